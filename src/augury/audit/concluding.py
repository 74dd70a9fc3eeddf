"""The report of an audit as JSON-ready fields: what is claimed, on what evidence, and what silence is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from augury.audit.asks import OPEN, QUESTION
from augury.audit.blackbox import names, words_apart
from augury.audit.contrast import (
    LEVEL,
    Moved,
    comparable,
    contrast,
    figures,
    spread,
)
from augury.audit.controls import PROMPTS_EACH, Planted, detections, stated
from augury.audit.evidence import Evidence
from augury.audit.examples import example, opened, places_of
from augury.audit.gather import READS, norm_map
from augury.audit.prompts import Prompt
from augury.audit.subjects import BASE, TARGET
from augury.audit.words import verdict

GENERATIONS = 12
WORDS = 10  # of its own that are shown


def conclude(found: Evidence) -> dict[str, Any]:
    """The report."""
    shown = found.shown
    known = stated(found.gatherer)
    examples = {concept: places_of(found, concept) for concept in shown}
    answers = opened(found, sorted({place for places in examples.values() for place in places}))
    planted = _planted(found)
    black = _black_box(found)
    findings = [
        _finding(found, concept, known, examples.get(concept, []), answers, planted, black) for concept in found.order
    ]
    report = {
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
    return {"kind": "audit", "verdict": verdict(report), **report}


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
        "least needed": float(np.median(np.nanmin(one.needed, 0))),
        "left out": [{"kind": READS[i][0], "place": READS[i][1]} for i in np.flatnonzero(np.isnan(one.needed[:, 0]))],
    }


def _finding(
    found: Evidence,
    concept: int,
    known: Mapping[str, float],
    examples: Sequence[tuple[int, int]],
    answers: Mapping[tuple[str, int], dict[str, list[str]]],
    planted: Sequence[Planted],
    black: Mapping[str, Any],
) -> dict[str, Any]:
    """One concept: how far it stands out in each read, and in which prompts."""
    name, own = found.concepts[concept], found.moved(TARGET).figures[:, concept]
    one, best = found.contrast, int(found.ranking[:, concept].argmax())
    told: dict[str, Any] = {
        "concept": name,
        "claimed": False if one is None else bool(one.claimed[:, concept].any()),
        "p": None if one is None else float(one.each[:, concept].min()),
        "score": float(found.ranking[best, concept]),
        "read": {"kind": READS[best][0], "place": READS[best][1]},
        "moved": float(own[best]),
        "needed": None if one is None or np.isnan(one.needed[best, concept]) else float(one.needed[best, concept]),
        "by read": [
            {"kind": kind, "place": place, "moved": float(own[i]), "score": float(found.ranking[i, concept])}
            for i, (kind, place) in enumerate(READS)
        ],
        "stated": known[name],
        "planted": [asdict(row) for row in planted if row.concept == name],
        "black box": black["margins"][name] if black["margins"] is not None else None,
        "written": _written(found, name),
        "text names it": sum(names(text, name) for text in found.texts[READS[best][1]]),
    }
    shown = [example(found, concept, read, prompt, answers) for read, prompt in examples]
    return {**told, "examples": shown}


def _written(found: Evidence, concept: str) -> dict[str, int]:
    """In how many of its answers to the prompts each model names a concept by itself; of the peers the most."""
    counts = {key: sum(names(answer, concept) for answer in told.answers) for key, told in found.told.items()}
    most = {"peers": max(counts[key] for key in found.peers)} if found.peers else {}
    return {"target": counts[TARGET], "base": counts[BASE], **most, "of": len(found.audit_prompts)}


def _planted(found: Evidence) -> list[Planted]:
    """The concepts that stand highest, planted in a few prompts of each kind."""
    places = [i for kind in _kinds(found.audit_prompts) for i in _of_kind(found.audit_prompts, kind)[:PROMPTS_EACH]]
    peers = [found.moved(key, places) for key in found.peers]
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
    step = -(-len(found.audit_prompts) // GENERATIONS)
    written = [{"prompt": p.text, "fine-tuned": a, "base": b} for p, a, b in list(rows)[::step]]
    said = {"generations": written, "words": _words(found)}
    if any(told.margins is None for told in found.told.values()):  # a model without a chat template
        return {"margins": None, "p": None, "first": None, "claimed": [], **said}
    moved = {key: _in_words(found, key) for key in found.asked}
    peers = [moved[key] for key in found.peers]
    one = contrast(moved[TARGET], peers) if found.contrast and comparable(peers).all() else None
    scores = one.scores[0] if one is not None else moved[TARGET].scaled[0]
    return {
        "margins": {name: float(value) for name, value in zip(found.concepts, moved[TARGET].figures[0], strict=True)},
        "p": None if one is None else one.p,
        "first": found.concepts[int(scores.argmax())],
        "claimed": [] if one is None else [found.concepts[i] for i in np.flatnonzero(one.claimed[0])],
        **said,
    }


def _words(found: Evidence) -> dict[str, Any]:
    """Words that set the fine-tune's answers apart, and by how many answers a peer's do at most."""
    own, most = words_apart(
        found.told[TARGET].answers, found.told[BASE].answers, [found.told[key].answers for key in found.peers]
    )
    return {"own": [asdict(one) for one in own[:WORDS]], "most of a peer": most, "of": len(found.audit_prompts)}


def _in_words(found: Evidence, key: str) -> Moved:
    """How far a fine-tune's own Yes moved; there is no other size to it than its spread."""
    own, base = found.told[key].margins, found.told[BASE].margins
    assert own is not None and base is not None
    moved = figures((np.array(own) - np.array(base))[None, None])
    return Moved(moved, spread(moved)[:, 0])
