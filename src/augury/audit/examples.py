"""The prompts in which a concept stands out most, with all that was read and answered there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from augury.audit.blackbox import names
from augury.audit.contrast import Floats
from augury.audit.evidence import Evidence
from augury.audit.gather import DIFFERENCE, DIGITS, READS, TUNED, Block, since
from augury.audit.states import PART, Reads
from augury.audit.subjects import TARGET
from augury.oracle.reading import decoded
from augury.oracle.together import Work

EXAMPLES = 3  # prompts of each concept


def places_of(found: Evidence, concept: int) -> list[tuple[int, int]]:
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


def opened(found: Evidence, wanted: Sequence[tuple[int, int]]) -> dict[tuple[str, int], dict[str, list[str]]]:
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


def example(
    found: Evidence,
    concept: int,
    read: int,
    prompt: int,
    answers: Mapping[tuple[str, int], dict[str, list[str]]],
) -> dict[str, Any]:
    _, place = READS[read]
    asked, read_there = found.asked[TARGET][place], _read(found, place, prompt)
    acts, difference = read_there.tuned, read_there.difference
    base = found.gatherer.asker.oracle.base
    tokens = [] if acts is None else [decoded(base, [token], special=True) for token in acts.token_ids]
    margins = {"fine-tuned": asked.tuned, "base": asked.base, "difference": asked.difference}
    controls = {name: float(found.controls[f"{name} {place}"][concept]) for name in ("none", "shuffled")}
    by_prompt = _by_prompt(found, read, concept)
    return {
        "prompt": found.audit_prompts[prompt].text,
        "kind": found.audit_prompts[prompt].kind,
        "place": place,
        "positions": [] if acts is None else list(acts.positions),
        "read text": "" if acts is None else decoded(base, acts.token_ids, special=True),
        "tokens": tokens,
        "norms": []
        if difference is None or difference.relative_norms is None
        else [round(norm, DIGITS) for norm in difference.relative_norms.mean(0).tolist()],
        "text names it": names(found.texts[place][prompt], found.concepts[concept]),
        "norm": read_there.norm,
        "contrast": float(by_prompt[prompt]),
        "margins": {name: float(values[prompt, concept]) for name, values in margins.items()} | controls,
        "answers": answers[place, prompt],
    }
