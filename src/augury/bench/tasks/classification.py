"""Classification: texts of two classes, each asked about both; of kinds that oracles are trained on, and of others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from augury.bench.item import Item, ItemSet, Manifest
from augury.bench.task import NO, REGISTRY, YES, Build, Items, Task
from augury.bench.texts import texts
from augury.errors import FormatError
from augury.lm import LanguageModel, transcript_of

WINDOW = 10
WORDINGS = 3
EACH = 40  # texts of a published set
KNOWN, NEW = "in distribution", "out of distribution"
# Sets that no published oracle was trained on; on the others most were (in the split that is not here).
HELD_OUT = ("engels",)


def build(wanted: Build) -> Iterator[Item]:
    """Every text, asked about the class it is of and about the other one; families and classes in turn."""
    families = texts("classification")["families"]
    longest = max(len(rows) for family in families.values() for rows in family["labels"].values())
    for i in range(longest):
        for name, family in families.items():
            for label, rows in family["labels"].items():
                if i < len(rows):
                    yield from _asked(wanted.lm, name, family, label, rows[i], family["labels"])


def _asked(
    lm: LanguageModel, name: str, family: dict[str, Any], label: str, text: str, labels: Sequence[str]
) -> Iterator[Item]:
    found = transcript_of(lm, [{"role": "user", "content": text}], "generation")
    count = len(found.token_ids)
    for asked in labels:
        wordings = {f"ask{i}": form.format(label=asked) for i, form in enumerate(family["questions"])}
        yield Item(
            id=f"{name}: {text} {asked}",
            problem=text,
            token_ids=found.token_ids,
            positions=tuple(
                range(max(0, count - WINDOW), count)
            ),  # of all texts equally many: their number tells nothing
            facts={
                "truth": YES if asked == label else NO,
                "family": name,
                "asked": f"{name}: {asked}",
                "known": KNOWN if family["known"] else NEW,
                **wordings,
            },
            spans=tuple((span.role, span.start, span.stop) for span in found.spans),
        )


def load(wanted: Build, folder: Path) -> ItemSet:
    """The published sets: one JSONL file each, with `index.json` and `paraphrases.json`, in `classification/`.

    Raises:
        FormatError: A file is not there, or not in this form.
    """
    place = folder / "classification"
    try:
        index = json.loads((place / "index.json").read_text(encoding="utf-8"))
        wordings = json.loads((place / "paraphrases.json").read_text(encoding="utf-8"))
        items = [item for row in _sets(index) for item in _published(wanted.lm, place, row, wordings)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())[:200]
        raise FormatError(f"{place} is not in the published form.", why, "restore it from where it came") from error
    about = Manifest(
        name="classification", model=wanted.lm.identity, origin="activation_oracles", licence="MIT", made={"each": EACH}
    )
    return ItemSet(about, tuple(items))


def _sets(index: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Those of two classes."""
    return (row for row in index.values() if len(row.get("labels", ())) == 2)


def _published(lm: LanguageModel, place: Path, row: dict[str, Any], wordings: Any) -> Iterator[Item]:
    """A set of two classes: the first texts of each, in the file's own order."""
    lines = [json.loads(line) for line in (place / row["file"]).read_text(encoding="utf-8").splitlines()]
    name, labels = Path(row["file"]).stem, list(row["labels"])
    by_label = {label: [line["text"] for line in lines if line["label"] == label][: EACH // 2] for label in labels}
    for part in row["paraphrase_path"]:
        wordings = wordings[part]
    for pair in zip(*by_label.values(), strict=False):
        for label, text in zip(labels, pair, strict=True):
            yield from _about(lm, name, row["group"] not in HELD_OUT, labels, label, text, wordings)


def _about(
    lm: LanguageModel, name: str, known: bool, labels: list[str], label: str, text: str, wordings: Any
) -> Iterator[Item]:
    """Where wordings are by label each is asked about; else about the first class alone."""
    for asked in labels if isinstance(wordings, dict) else labels[:1]:
        forms = wordings[asked] if isinstance(wordings, dict) else wordings
        family = {"known": known, "questions": [form.replace("{}", asked) for form in forms[:WORDINGS]]}
        yield from _asked(lm, name, family, label, text, [asked])


def known(item: Item) -> bool:
    """Whether published oracles are trained on such questions."""
    return item.facts["known"] == KNOWN


def new(item: Item) -> bool:
    """Whether they are not."""
    return item.facts["known"] == NEW


_WORDINGS = tuple(f"{{ask{i}}}" for i in range(WORDINGS))
REGISTRY.add(
    Items("classification", "sentences of this package", "that of this package", build, load),
    Task(
        "classification",
        "the class of a text, of kinds that published oracles are trained on (mood, language, tense)",
        "classification",
        "yes_no",
        _WORDINGS,
        window=WINDOW,
        sweep=(1, 5),
        where=known,
        stratum="asked",
    ),
    Task(
        "classification_new",
        "the class of a text, of kinds that they are not trained on (manners, number, place)",
        "classification",
        "yes_no",
        _WORDINGS,
        window=WINDOW,
        sweep=(1, 5),
        where=new,
        stratum="asked",
    ),
)
