"""Items for a model: the user's published ones, or made now; what cannot be made says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from augury.bench.item import Item, ItemSet, Manifest, read_items, read_manifest
from augury.bench.organisms import fingerprint_of, organisms_folder
from augury.bench.task import NO, YES, Build, Items, NotMeasurable, Task
from augury.errors import InputError, NotFoundError
from augury.lm import LanguageModel, transcript_of

Told = Callable[[str, int, int], None]


def build_items(
    lm: LanguageModel, items: Items, size: int, seed: int, told: Told, organisms: Path | None = None
) -> ItemSet:
    """Make a set for a model; what cannot be made is told in its manifest.

    Args:
        lm: The target.
        items: What to make.
        size: About how many.
        seed: Of all draws.
        told: Called with what is made, how much of it, and of how much.
        organisms: Where the target's organisms are, or are made; None: in the cache.
    """
    wanted = Build(lm, size, seed, {}, organisms, lambda done, total: told(f"making {items.name}", done, total))
    unmeasurable, found = None, ()
    try:
        _check_turns(lm)
        found = tuple(items.build(wanted))
        _check_answers(found, least_of(items, size))
    except NotMeasurable as error:
        unmeasurable = error.why
        wanted.counts.update(error.counts)
    manifest = Manifest(
        name=items.name, model=lm.identity, origin=items.origin, licence=items.licence,
        made={"size": size, "seed": seed}, counts={**wanted.counts, "items": len(found)}, unmeasurable=unmeasurable,
    )  # fmt: skip
    return _with_organisms(ItemSet(manifest, found), wanted)


def published_items(lm: LanguageModel, items: Items, folder: Path, seed: int, organisms: Path | None) -> ItemSet:
    """The published set of a folder of the user's; where its organisms are not there, that is told in its manifest.

    Raises:
        FormatError: It is not there, or not in the published form.
    """
    assert items.load is not None
    wanted = Build(lm, seed=seed, organisms=organisms)
    try:
        return _with_organisms(items.load(wanted, folder), wanted)
    except NotMeasurable as error:
        about = Manifest(
            name=items.name, model=lm.identity, origin=items.origin, licence=items.licence, counts=error.counts,
            unmeasurable=error.why,
        )  # fmt: skip
        return ItemSet(about, ())


def shipped_items(lm: LanguageModel, name: str, seed: int) -> ItemSet | None:
    """The set that the package ships for this very model; None where there is none, or for another seed."""
    place = resources.files("augury.bench").joinpath("shipped")
    with resources.as_file(place) as folder:
        for path in sorted(folder.glob(f"*/{name}.jsonl")):
            about = read_manifest(path)
            mine = about.model.weights_fingerprint == lm.identity.weights_fingerprint
            if mine and about.made.get("seed") == seed:
                return read_items(path)
    return None


def sets_in(folder: Path) -> dict[str, Path]:
    """The sets of items in a folder, by the name that they have themselves, whatever their files are called.

    Raises:
        NotFoundError: There are none.
        FormatError: A file holds no items.
        InputError: Two hold the same set.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.jsonl")):
        name = read_manifest(path).name
        if name in found:
            why, instead = f"{found[name].name} and {path.name} both hold {name}", "leave one of them there"
            raise InputError(f"It is not clear which items of {folder} are meant.", why, instead)
        found[name] = path
    if not found:
        why = f"{folder} has no .jsonl file" if folder.is_dir() else f"{folder} is no folder"
        raise NotFoundError("There are no items.", why, f"make some: augury bench build TASK -o {folder}/TASK.jsonl")
    return found


def _check_turns(lm: LanguageModel) -> None:
    """What is read is found by its turn, so the chat template must hold a message as it is."""
    turns = [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Well."}]
    missing = {turn["role"] for turn in turns} - {span.role for span in transcript_of(lm, turns).spans}
    if missing:
        raise NotMeasurable(f"its chat template does not hold the words of the {' and '.join(sorted(missing))}")


def _with_organisms(found: ItemSet, wanted: Build) -> ItemSet:
    """The set with the fingerprints of the adapters that read its texts."""
    names = sorted({item.state.organism for item in found.items if item.state.organism})
    folder = wanted.organisms or organisms_folder(wanted.lm)
    held = {name: fingerprint_of(folder / name) for name in names}
    return replace(found, manifest=found.manifest.model_copy(update={"organisms": held}))


def least_of(items: Items, size: int) -> int:
    """Items of either answer that a set must have: fewer only where it was made smaller than the smallest profile's."""
    return min(items.least, 3 * size // 8)


def too_few(task: Task, found: ItemSet, items: Items) -> str | None:
    """Why a task cannot be measured with a set that was made, where others can: too few of its items count."""
    counted = [item for item in found.items if task.where(item)]
    if not counted:
        return "no item counts for it"
    if task.kind != "yes_no" or "size" not in found.manifest.made:
        return None
    try:
        _check_answers(counted, least_of(items, found.manifest.made["size"]), task.truth)
    except NotMeasurable as error:
        return error.why
    return None


def _check_answers(found: Sequence[Item], least: int, fact: str = "truth") -> None:
    """Refuse an empty set, and one of yes and no in which one of them hardly occurs."""
    if not found:
        raise NotMeasurable("no item could be made for it")
    answers = [item.facts[fact] for item in found if item.facts.get(fact) in (YES, NO)]
    counts = {answer: answers.count(answer) for answer in (YES, NO)}
    if answers and min(counts.values()) < least:
        why = f"it has {counts[YES]} items whose answer is yes and {counts[NO]} whose answer is no"
        raise NotMeasurable(why, yes=counts[YES], no=counts[NO])
