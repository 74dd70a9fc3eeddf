"""An audit from beginning to end, kept as it goes: capture every model, ask, contrast, control, report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from augury.activations import capture_bytes
from augury.activations.versions import versions
from augury.audit.asks import DONORS, Asker
from augury.audit.blackbox import Told, told_by
from augury.audit.concluding import conclude
from augury.audit.controls import PROMPTS_EACH, STRENGTHS, TEXTS_EACH
from augury.audit.evidence import SHOWN, Evidence
from augury.audit.gather import AGAIN, PROMPTS, READS, Gatherer, Tell
from augury.audit.page import page
from augury.audit.prompts import Prompt
from augury.audit.states import (
    PLACES,
    READ_ANSWER,
    READ_END,
    READ_FIRST,
    Captures,
    Context,
    answer_contexts,
    answered,
    floor_between,
    kept_contexts,
    mapped_layers,
    most_positions,
    parts,
    prompt_contexts,
)
from augury.audit.subjects import BASE, TARGET, Shelf, Subject, check_alike, check_apart
from augury.bench.run import adapter_digest
from augury.data.estimate import spelled_time
from augury.errors import InputError
from augury.files import locked, write_text
from augury.lm import LanguageModel, Transcript
from augury.oracle.together import Work

SETTINGS, REPORT, HTML, TOLD, CAPTURES = "settings.json", "report.json", "report.html", "told", "captures"
CONTEXTS = "prompts.json"  # as they were rendered, among what is captured


@dataclass(frozen=True)
class Audit:
    """What is audited, and by what.

    Attributes:
        target: The fine-tune.
        peers: Other fine-tunes of the base, which were not given what is looked for.
        prompts: What is read.
        concepts: What the oracle is asked about.
        planted: How many of the concepts that stand highest are planted as a control; None: those that are shown.
    """

    target: Subject
    peers: tuple[Subject, ...]
    prompts: tuple[Prompt, ...]
    concepts: tuple[str, ...]
    planted: int | None = None

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """All fine-tunes."""
        return (self.target, *self.peers)


@dataclass(frozen=True)
class Costs:
    """What an audit takes, told before.

    Attributes:
        models: Fine-tunes that are read, beside the base.
        readings: Reads that are asked about, each by all concepts.
        questions: Questions to the oracle, at most.
        bytes: On disk, of captured activations.
        seconds: Of asking on this machine, from a reading that was timed.
    """

    models: int
    readings: int
    questions: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        size = f"{self.bytes / 1e6:.0f} MB" if self.bytes >= 1e6 else f"{self.bytes / 1e3:.0f} kB"
        peers = "no peers" if self.models == 1 else f"{self.models - 1} peer{'s' if self.models > 2 else ''}"
        return (
            f"at most {self.readings:,} readings (the target and {peers}), about {self.questions:,} questions, "
            f"{size} on disk, {spelled_time(self.seconds)} of asking on this machine"
        )


def costs_of(audit: Audit, asker: Asker) -> Costs:
    """What an audit takes, at most: positions below the noise are not asked, and a prompt may be shorter."""
    prompts, models, lm = len(audit.prompts), len(audit.subjects), asker.oracle.base
    base = prompts * (2 + models + 1)  # two places of the prompts, every fine-tune's answers, and captured again
    inside = min(prompts, PROMPTS_EACH * len({prompt.kind for prompt in audit.prompts}))
    count = SHOWN if audit.planted is None else audit.planted
    planted = inside * (len(PLACES) + count * len(STRENGTHS) * len(READS)) if count else 0
    controls = 2 * (1 + DONORS) + TEXTS_EACH * len(audit.concepts)  # places have two widths
    readings = prompts * len(READS) * models + base + planted + controls
    rows = prompts * (READ_FIRST + READ_END + READ_ANSWER)
    mapped = len(mapped_layers(lm.n_layers, asker.layers))
    size = 2 * capture_bytes(lm, mapped, rows) + 2 * len(audit.peers) * capture_bytes(lm, len(asker.layers), rows)
    return Costs(models, readings, readings * len(audit.concepts), size, readings * asker.seconds())


def run_audit(
    audit: Audit,
    shelf: Shelf,
    out: Path,
    tell: Tell = lambda what, done, total: None,
    announce: Callable[[Costs], None] = lambda costs: None,
) -> dict[str, Any]:
    """Audit a fine-tune, or go on where a run was cut off.

    Args:
        audit: What is audited.
        shelf: Holds the models.
        out: Where everything goes.
        tell: Called with what is done, how much of it, and of how much.
        announce: Called with the costs before they are spent; not where all of it was done before.

    Returns:
        The report, as in `report.json`.

    Raises:
        InputError: The folder holds another run, a fine-tune is below the noise floor everywhere or was named twice,
            or another process works there.
        ContractError: A model is no fine-tune of the base.
        StorageError: The disk is full; finished parts are kept, and a later call goes on from them.
    """
    why, instead = "another process holds its lock", "wait for it, or choose another -o"
    with locked(out.resolve() / ".lock", InputError(f"{out} is being worked on already.", why, instead)):
        check_apart(audit.subjects)
        settings = settings_of(audit, shelf)
        finished = (out / REPORT).exists() and _read_settings(out / SETTINGS) == settings
        take_folder(out, settings)
        run = Run(audit, shelf, out, tell)
        if not finished:
            announce(costs_of(audit, Asker(shelf.oracle(), audit.concepts, Work())))
        report = conclude(run.evidence(run.captured()))
        write_text(out / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        write_text(out / HTML, page(report))
        return report


def settings_of(audit: Audit, shelf: Shelf) -> dict[str, Any]:
    """What a run follows from, JSON-ready."""
    oracle = shelf.oracle()
    return {
        "base": oracle.base.identity.model_dump(mode="json"),
        "dtype": str(oracle.base.dtype).removeprefix("torch."),
        "oracle": {"name": oracle.name, "adapter": adapter_digest(oracle, oracle.adapter), "notes": list(oracle.notes)},
        "contract": oracle.contract.model_dump(mode="json"),
        "fine-tunes": {one.key: {"name": one.name, "digest": one.digest} for one in audit.subjects},
        "prompts": [asdict(prompt) for prompt in audit.prompts],
        "concepts": list(audit.concepts),
        "planted": audit.planted,
        "versions": dict(versions()),
    }


def take_folder(out: Path, settings: Mapping[str, Any]) -> None:
    """Take a new folder, or go on in one that holds this run; peers and what is planted may be others than before.

    A folder in which nothing was captured yet is free: what was to be audited there could not be.

    Raises:
        InputError: It holds another run.
    """
    path, captures = out / SETTINGS, out / CAPTURES
    if any(captures.glob("*.safetensors")) or any((out / TOLD).glob("*.json")):
        before, now = _followed(_read_settings(path)), _followed(settings)
        differs = [name for name in now if before.get(name) != now[name]]
        if differs:
            why, instead = f"it differs in {', '.join(differs)}", "name a new folder with -o, or remove this one"
            raise InputError(f"{out} holds another run.", why, instead)
        _check_peers(out, _read_settings(path), settings)
    else:
        (captures / CONTEXTS).unlink(missing_ok=True)
    write_text(path, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")


def _check_peers(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to put a report with fewer peers in the place of one."""
    had, has = (set(settings.get("fine-tunes", {})) for settings in (before, now))
    if (out / REPORT).exists() and has < had:
        why = f"it has a report with {len(had) - 1} peers, and only {len(has) - 1} of them are named now"
        raise InputError(f"{out} would lose its report.", why, "name all of them again, or a new folder with -o")


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why, instead = f"{path.name} cannot be read: {error}", "name a new folder with -o, or remove this one"
        raise InputError(f"{path.parent} holds what is no run of an audit, or a damaged one.", why, instead) from error
    return found if isinstance(found, dict) else {}


def _followed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What everything that is kept follows from: what is kept of a peer stands under its digest."""
    plain = {name: value for name, value in settings.items() if name not in ("fine-tunes", "planted")}
    return {**plain, "target": settings.get("fine-tunes", {}).get(TARGET)}


class Run:
    """One audit in its folder."""

    def __init__(self, audit: Audit, shelf: Shelf, out: Path, tell: Tell) -> None:
        self.audit, self.shelf, self.out, self.tell = audit, shelf, out, tell
        self.captures = Captures(out / CAPTURES)
        oracle = shelf.oracle()
        asker = Asker(oracle, audit.concepts, Work())
        self.layers, self.identity = asker.layers, oracle.base.identity
        self.most = most_positions(oracle.contract)
        self.mapped = mapped_layers(oracle.base.n_layers, self.layers)
        make = partial(prompt_contexts, oracle.base, audit.prompts, self.most)
        self.prompts = kept_contexts(out / CAPTURES / CONTEXTS, make)
        self.told: dict[str, Told] = {}

    def captured(self) -> Gatherer:
        """Every model captured: the fine-tunes first, one at a time, then the base on all that they read."""
        contexts: dict[str, Sequence[Context]] = {PROMPTS: self.prompts}
        subjects = self.audit.subjects
        for i, subject in enumerate(subjects):
            contexts[subject.key] = self._fine_tune(subject)
            self.tell("capturing", i + 1, len(subjects) + 1)
        floor = self._base(contexts)
        self.tell("capturing", len(subjects) + 1, len(subjects) + 1)
        asker = Asker(self.shelf.oracle(), self.audit.concepts, Work())
        found = Gatherer(asker, self.captures, contexts, floor, self.out / "asks", self.tell)
        for subject in subjects:
            found.check_moves(subject.key, subject.name)
        return found

    def _fine_tune(self, subject: Subject) -> list[Context]:
        key, count = subject.key, len(self.prompts)
        layers = self.mapped if key == TARGET else self.layers
        if self._is_missing(key, (PROMPTS, key)):
            with self.shelf.opened(subject) as lm:
                check_alike(self.identity, lm.identity)
                contexts = self._answers(key, lm)
                self.captures.take(lm, key, PROMPTS, self.prompts, layers)
                self.captures.take(lm, key, key, contexts, layers)
        assert not self.captures.missing(key, key, count)
        return self._answers(key, None)

    def _is_missing(self, key: str, read: Sequence[str]) -> bool:
        there = self._path(key).is_file()
        return not there or any(self.captures.missing(key, whose, len(self.prompts)) for whose in read)

    def _path(self, key: str) -> Path:
        return self.out / TOLD / f"{key}.json"

    def _answers(self, key: str, lm: LanguageModel | None) -> list[Context]:
        """What a model answered to the prompts: before, or now."""
        path = self._path(key)
        if not path.is_file():
            assert lm is not None
            told = told_by(lm, self.audit.concepts, answered(lm, self.prompts))
            write_text(path, json.dumps(told.to_dict(), ensure_ascii=False) + "\n")
        self.told[key] = Told(**json.loads(path.read_text(encoding="utf-8")))
        answers = [Transcript(tuple(ids), model=self.identity.name) for ids in self.told[key].token_ids]
        return answer_contexts(self.prompts, answers, self.most)

    def _base(self, contexts: dict[str, Sequence[Context]]) -> float:
        """The base on the prompts and on every fine-tune's answers; and what it differs by from itself."""
        lm = self.shelf.base()
        contexts[BASE] = self._answers(BASE, lm)
        self.captures.take(lm, BASE, PROMPTS, self.prompts, self.mapped)
        for key in (subject.key for subject in self.audit.subjects):
            self.captures.take(lm, BASE, key, contexts[key], self.mapped if key == TARGET else self.layers)
        return max(self._apart(lm, whose, contexts[whose]) for whose in (PROMPTS, TARGET))

    def _apart(self, lm: LanguageModel, whose: str, contexts: Sequence[Context]) -> float:
        """How far the base is from itself in another batch."""
        self.captures.take(lm, AGAIN, whose, contexts, self.layers, batch_size=1)
        found = []
        for part in range(len(parts(contexts))):
            one, other = (self.captures.read(who, whose, part) for who in (BASE, AGAIN))
            found.append(floor_between(one, other, self.layers))
        return max(found)

    def evidence(self, gatherer: Gatherer) -> Evidence:
        """All that the report is made of."""
        keys = [subject.key for subject in self.audit.subjects]
        return Evidence(
            settings=json.loads((self.out / SETTINGS).read_text(encoding="utf-8")),
            audit_prompts=self.audit.prompts,
            gatherer=gatherer,
            asked=gatherer.all_of(keys),
            told=self.told,
            planted=self.audit.planted,
            layers=self.layers,
            mapped=self.mapped,
        )
