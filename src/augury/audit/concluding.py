"""The report of an audit as JSON-ready fields: what is claimed, on what evidence, and what silence is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from augury.activations import Activations
from augury.audit.asks import OPEN, QUESTION
from augury.audit.blackbox import Told
from augury.audit.contrast import (
    LEAST_PEERS,
    LEVEL,
    Contrast,
    Floats,
    contrast,
    figures,
    in_spreads,
)
from augury.audit.controls import PROMPTS_EACH, Planted, detections, stated
from augury.audit.gather import DIFFERENCE, READS, TUNED, Asked, Block, Gatherer, changes, norm_map, since
from augury.audit.prompts import Prompt
from augury.audit.states import PART, Reads
from augury.audit.subjects import BASE, TARGET
from augury.audit.words import verdict
from augury.oracle.reading import decoded
from augury.oracle.together import Work

SHOWN = 3  # findings that are shown with their evidence where fewer are claimed
EXAMPLES = 3  # prompts of each
GENERATIONS = 12


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that an audit has gathered.

    Attributes:
        settings: What the run follows from.
        audit_prompts: What was read.
        gatherer: What asks, and keeps what it is told.
        asked: What each fine-tune was asked, by place.
        told: What each model says and writes by itself.
        planted: How many concepts are planted; None: those that are shown.
        layers: What the oracle reads.
        mapped: The layers of the map.
    """

    settings: Mapping[str, Any]
    audit_prompts: Sequence[Prompt]
    gatherer: Gatherer
    asked: Mapping[str, Mapping[str, Asked]]
    told: Mapping[str, Told]
    planted: int | None
    layers: Sequence[int]
    mapped: Sequence[int]

    @property
    def concepts(self) -> tuple[str, ...]:
        return self.gatherer.asker.concepts

    @property
    def peers(self) -> list[str]:
        return [key for key in self.asked if key != TARGET]

    @cached_property
    def controls(self) -> Mapping[str, Floats]:
        """`none` and `shuffled` by place."""
        return self.gatherer.controls()

    @cached_property
    def changes(self) -> dict[str, Floats]:
        """Of each fine-tune `[reads, prompts, concepts]`."""
        return {key: changes(asked, self.controls) for key, asked in self.asked.items()}

    @cached_property
    def contrast(self) -> Contrast | None:
        """The target against its peers; None with too few of them."""
        if len(self.peers) < LEAST_PEERS:
            return None
        return contrast(figures(self.changes[TARGET]), np.stack([figures(self.changes[key]) for key in self.peers]))

    @cached_property
    def ranking(self) -> Floats:
        """What concepts are ranked by: `[reads, concepts]`."""
        return self.contrast.scores if self.contrast is not None else in_spreads(figures(self.changes[TARGET]))

    @cached_property
    def order(self) -> list[int]:
        """Concepts from the one that stands out most."""
        return np.argsort(-self.ranking.max(0), kind="stable").tolist()

    @cached_property
    def shown(self) -> list[int]:
        """The concepts that are shown with their evidence: all that are claimed, at least the first few."""
        claimed = 0 if self.contrast is None else int(self.contrast.claimed.any(0).sum())
        return self.order[: max(SHOWN, claimed)]


def conclude(found: Evidence) -> dict[str, Any]:
    """The report."""
    shown = found.shown
    says = stated(found.gatherer)
    examples = {concept: _examples(found, concept) for concept in shown}
    answers = _opened(found, sorted({place for places in examples.values() for place in places}))
    planted = _planted(found)
    black = _black_box(found)
    findings = [
        _finding(found, concept, says, examples.get(concept, []), answers, planted, black) for concept in found.order
    ]
    report = {
        "kind": "audit",
        "target": found.settings["fine-tunes"][TARGET]["name"],
        "settings": found.settings,
        "question": QUESTION,
        "open questions": list(OPEN),
        "reads": [{"kind": kind, "place": place} for kind, place in READS],
        "level": LEVEL,
        "contrast": _contrast(found),
        "findings": findings,
        "planted": [asdict(one) for one in planted],
        "black box": black,
        "map": {"layers": list(found.mapped), "read": list(found.layers), "places": norm_map(found.gatherer, TARGET)},
        "noise floor": found.gatherer.floor,
        "positions": {
            key: {place: {"asked": one.positions, "left out": one.left_out} for place, one in asked.items()}
            for key, asked in found.asked.items()
        },
        "kinds": _kinds(found.audit_prompts),
        "costs": asdict(found.gatherer.work()),
    }
    return {**report, "verdict": verdict(report)}


def _contrast(found: Evidence) -> dict[str, Any] | None:
    """The statistic with its null distribution: peer against peer, and base against base."""
    if found.contrast is None:
        return None
    one = found.contrast
    again, plain = found.gatherer.base_again()
    return {
        "p": one.p,
        "statistic": one.statistic,
        "threshold": one.threshold,
        "peers": dict(zip(found.peers, one.peers.tolist(), strict=True)),
        "base against base": float(np.abs(figures(again - plain)).max()),
        "least needed": float(np.median(one.needed.min(0))),
    }


def _examples(found: Evidence, concept: int) -> list[tuple[int, int]]:
    """The reads and prompts in which a concept stands out most against the peers: `(read, prompt)`."""
    read = int(found.ranking[:, concept].argmax())
    by_prompt = _by_prompt(found, read, concept)
    places = [int(i) for i in np.argsort(-by_prompt, kind="stable") if not np.isnan(by_prompt[i])]
    return [(read, place) for place in places[:EXAMPLES]]


def _by_prompt(found: Evidence, read: int, concept: int) -> Floats:
    """What the target changed in each prompt, centred over concepts, less what its peers did: `[prompts]`."""
    centred = {key: moved[read] - moved[read].mean(-1, keepdims=True) for key, moved in found.changes.items()}
    own = centred[TARGET][:, concept]
    if not found.peers:
        return own
    others = np.stack([centred[key][:, concept] for key in found.peers])
    known = ~np.isnan(others)
    return own - np.where(known, others, 0).sum(0) / np.maximum(1, known.sum(0))


def _opened(found: Evidence, wanted: Sequence[tuple[int, int]]) -> dict[tuple[str, int], dict[str, list[str]]]:
    """The open questions about the three reads of these places: by place and prompt."""
    places = sorted({(READS[read][1], prompt) for read, prompt in wanted})
    return {place: _ask_open(found, *place) for place in places}


def _ask_open(found: Evidence, place: str, prompt: int) -> dict[str, list[str]]:
    def make() -> Block:
        read, asker = _read(found, place, prompt), found.gatherer.asker
        given = [acts for acts in (read.tuned, read.base, read.difference) if acts is not None]
        before = Work(**asdict(asker.work))
        return {"answers": asker.open(given), "work": since(before, asker.work)}

    told = found.gatherer.kept(f"open-{place}", prompt, make)["answers"]
    return dict(zip((TUNED, "base", DIFFERENCE), told, strict=True))


def _read(found: Evidence, place: str, prompt: int) -> Reads:
    return found.gatherer.reads(TARGET, place, prompt // PART)[prompt % PART]


def _finding(
    found: Evidence,
    concept: int,
    says: Mapping[str, float],
    examples: Sequence[tuple[int, int]],
    answers: Mapping[tuple[str, int], dict[str, list[str]]],
    planted: Sequence[Planted],
    black: Mapping[str, Any],
) -> dict[str, Any]:
    """One concept: how far it stands out in each read, and in which prompts."""
    name, own = found.concepts[concept], figures(found.changes[TARGET])[:, concept]
    one, best = found.contrast, int(found.ranking[:, concept].argmax())
    told: dict[str, Any] = {
        "concept": name,
        "claimed": False if one is None else bool(one.claimed[:, concept].any()),
        "p": None if one is None else float(one.each[:, concept].min()),
        "score": float(found.ranking[best, concept]),
        "read": {"kind": READS[best][0], "place": READS[best][1]},
        "moved": float(own[best]),
        "needed": None if one is None else float(one.needed[best, concept]),
        "by read": [
            {"kind": kind, "place": place, "moved": float(own[i]), "score": float(found.ranking[i, concept])}
            for i, (kind, place) in enumerate(READS)
        ],
        "stated": says[name],
        "planted": [asdict(row) for row in planted if row.concept == name],
        "black box": black["margins"][name] if black["margins"] is not None else None,
    }
    shown = [_example(found, concept, read, prompt, answers) for read, prompt in examples]
    return {**told, "examples": shown}


def _example(
    found: Evidence,
    concept: int,
    read: int,
    prompt: int,
    answers: Mapping[tuple[str, int], dict[str, list[str]]],
) -> dict[str, Any]:
    _, place = READS[read]
    asked, acts = found.asked[TARGET][place], _read(found, place, prompt).tuned
    margins = {"fine-tuned": asked.tuned, "base": asked.base, "difference": asked.difference}
    controls = {name: float(found.controls[f"{name} {place}"][concept]) for name in ("none", "shuffled")}
    by_prompt = _by_prompt(found, read, concept)
    return {
        "prompt": found.audit_prompts[prompt].text,
        "kind": found.audit_prompts[prompt].kind,
        "place": place,
        "positions": [] if acts is None else list(acts.positions),
        "read text": "" if acts is None else _text(found, acts),
        "norm": None if acts is None else _norm(found, place, prompt),
        "contrast": float(by_prompt[prompt]),
        "margins": {name: float(values[prompt, concept]) for name, values in margins.items()} | controls,
        "answers": answers[place, prompt],
    }


def _text(found: Evidence, acts: Activations) -> str:
    return decoded(found.gatherer.asker.oracle.base, acts.token_ids, special=True)


def _norm(found: Evidence, place: str, prompt: int) -> float:
    """`||difference|| / ||base||` at the layers that are read, the mean over asked positions."""
    difference = _read(found, place, prompt).difference
    assert difference is not None and difference.relative_norms is not None
    return float(difference.relative_norms.mean())


def _planted(found: Evidence) -> list[Planted]:
    """The concepts that stand highest, planted in a few prompts of each kind."""
    places = [i for kind in _kinds(found.audit_prompts) for i in _of_kind(found.audit_prompts, kind)[:PROMPTS_EACH]]
    peers = None
    if found.contrast is not None:
        peers = np.stack([found.changes[key][:, places] for key in found.peers])
    chosen = found.shown if found.planted is None else found.order[: found.planted]
    names = [found.concepts[i] for i in chosen]
    return detections(found.gatherer, places, names, peers)


def _kinds(prompts: Sequence[Prompt]) -> dict[str, int]:
    """How many prompts there are of each kind."""
    return {kind: len(_of_kind(prompts, kind)) for kind in dict.fromkeys(prompt.kind for prompt in prompts)}


def _of_kind(prompts: Sequence[Prompt], kind: str) -> list[int]:
    return [i for i, prompt in enumerate(prompts) if prompt.kind == kind]


def _black_box(found: Evidence) -> dict[str, Any]:
    """What the fine-tune says when it is asked in words, against the base, and what both write."""
    own, base = found.told[TARGET], found.told[BASE]
    rows = zip(found.audit_prompts, own.answers, base.answers, strict=True)
    # A few of every kind, since the first of all prompts are of one.
    step = max(1, len(found.audit_prompts) // GENERATIONS)
    written = [{"prompt": p.text, "fine-tuned": a, "base": b} for p, a, b in list(rows)[::step][:GENERATIONS]]
    if own.margins is None or base.margins is None:
        return {"margins": None, "p": None, "first": None, "claimed": [], "generations": written}
    moved = {key: figures(_moved(found, key)[None, None]) for key in found.asked}
    one = contrast(moved[TARGET], np.stack([moved[key] for key in found.peers])) if found.contrast else None
    scores = one.scores[0] if one is not None else in_spreads(moved[TARGET])[0]
    return {
        "margins": {name: float(value) for name, value in zip(found.concepts, moved[TARGET][0], strict=True)},
        "p": None if one is None else one.p,
        "first": found.concepts[int(scores.argmax())],
        "claimed": [] if one is None else [found.concepts[i] for i in np.flatnonzero(one.claimed[0])],
        "generations": written,
    }


def _moved(found: Evidence, key: str) -> Floats:
    own, base = found.told[key].margins, found.told[BASE].margins
    assert own is not None and base is not None
    return np.array(own) - np.array(base)
