"""Positive controls: silence about a concept means something only where the oracle can speak of it.

Each concept is stated in texts that the base reads, and the concepts of interest are planted in the base besides, as a
direction of rising strength in prompts, and in the base's own answers, that say nothing of them: from which strength on
would the same test claim it?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from zlib import crc32

from augury.activations import Activations, Provenance
from augury.audit.asks import Asker
from augury.audit.contrast import LEAST_PEERS, Moved, contrast, in_spreads
from augury.audit.gather import (
    DIFFERENCE,
    PROMPTS,
    TUNED,
    Asked,
    Block,
    Gatherer,
    arrayed,
    listed,
    moved_by,
    norms_of,
    since,
)
from augury.audit.states import ANSWER, END, FIRST, PLACES, READ_END, Context, captured, most_positions, reads_of
from augury.audit.subjects import BASE
from augury.bench.item import PLAIN, State
from augury.bench.readings import Plants, Reading, Target, concept_directions, take
from augury.bench.tasks.planted import BELOW
from augury.bench.texts import texts
from augury.lm import transcript_of
from augury.oracle.together import Work

STRENGTHS = (0.1, 0.2, 0.4, 0.8)  # of the residual norm
TEXTS_EACH = 4  # texts that state each concept
PROMPTS_EACH = 1  # of each kind, in which concepts are planted


@dataclass(frozen=True)
class Planted:
    """A concept planted at one strength.

    Attributes:
        concept: Which.
        strength: As a share of the residual norm.
        rank: Its place among all concepts, from 1, in the read where it stands highest.
        score: Its largest score against the peers; None without enough of them.
        claimed: Whether the report would have claimed it; None without enough peers.
    """

    concept: str
    strength: float
    rank: int
    score: float | None
    claimed: bool | None


def stated(gatherer: Gatherer) -> dict[str, float]:
    """Of each concept the share of texts that state it in which the oracle puts it above all others."""
    block = gatherer.kept("stated", 0, lambda: _stated(gatherer.asker))
    margins, concepts = arrayed(block["margins"]), gatherer.asker.concepts
    # An oracle leans to Yes about some concepts whatever it reads: that is no more than the mean over all texts.
    best = (margins - margins.mean(0)).argmax(1).reshape(len(concepts), -1)
    return {name: float((row == place).mean()) for place, (name, row) in enumerate(zip(concepts, best, strict=True))}


def _stated(asker: Asker) -> Block:
    lm, sentences = asker.oracle.base, texts("planted")["sentences"][:TEXTS_EACH]
    most = most_positions(asker.oracle.contract)
    read = []
    for text in (sentence.format(concept=name) for name in asker.concepts for sentence in sentences):
        transcript = transcript_of(lm, text)
        count = READ_END if most is None else min(READ_END, most)
        rows = tuple(range(max(0, len(transcript) - count), len(transcript)))
        read += captured(lm, [Context("", transcript, {END: rows})], asker.layers, 1)
    return _block(asker, {"margins": read})


def _block(asker: Asker, reads: Mapping[str, Sequence[Activations | None]]) -> Block:
    before = Work(**asdict(asker.work))
    found = {name: listed(asker.margins(read)) for name, read in reads.items()}
    return {**found, "work": since(before, asker.work)}


def detections(
    gatherer: Gatherer, prompts: Sequence[int], concepts: Sequence[str], peers: Sequence[Moved]
) -> list[Planted]:
    """Plant each concept at each strength, and put it to the test of the report.

    Args:
        gatherer: What asks, and keeps what it is told.
        prompts: In which prompts, and the base's answers to them, concepts are planted.
        concepts: Which.
        peers: How far each peer moved the oracle in these prompts; with too few nothing is claimed.
    """
    directions: list[Plants] = []
    found = []
    for number, concept in enumerate(concepts):
        for step, strength in enumerate(STRENGTHS):

            def make(concept: str = concept, strength: float = strength) -> Block:
                if not directions:
                    directions.append(_plants(gatherer.asker))
                return _planted(gatherer, directions[0], State(planted=concept, strength=strength), prompts)

            block = gatherer.kept(f"planted-{crc32(concept.encode()):08x}-{strength:g}", 0, make)
            found.append(_tested(gatherer, concept, strength, block, peers))
            gatherer.tell("planting", number * len(STRENGTHS) + step + 1, len(concepts) * len(STRENGTHS))
    return found


def _tested(gatherer: Gatherer, concept: str, strength: float, block: Block, peers: Sequence[Moved]) -> Planted:
    asked = {place: _asked(block, place) for place in PLACES}
    own, at = moved_by(asked, gatherer.controls()), gatherer.asker.concepts.index(concept)
    spreads = in_spreads(own.figures)
    rank = 1 + int((spreads > spreads[:, [at]]).sum(1).min())
    if len(peers) < LEAST_PEERS:
        return Planted(concept, strength, rank, None, None)
    found = contrast(own, peers)
    return Planted(concept, strength, rank, float(found.scores[:, at].max()), bool(found.claimed[:, at].any()))


def _asked(block: Block, place: str) -> Asked:
    tuned, base, difference = (arrayed(block[f"{kind} {place}"]) for kind in (TUNED, BASE, DIFFERENCE))
    return Asked(tuned, base, difference, arrayed(block[f"norms {place}"]))


def _plants(asker: Asker) -> Plants:
    """A direction for each concept, below the lowest layer that is read."""
    lm = asker.oracle.base
    block = max(0, min(asker.layers) - max(1, lm.n_layers // BELOW))
    sentences = texts("planted")["sentences"]
    rows = {
        name: [transcript_of(lm, sentence.format(concept=name)).token_ids for sentence in sentences]
        for name in asker.concepts
    }
    return concept_directions(lm, block, rows)


def _planted(gatherer: Gatherer, directions: Plants, state: State, prompts: Sequence[int]) -> Block:
    """Planted against plain, at each place of some prompts and of the base's own answers to them."""
    asker, asked, whole, norms = gatherer.asker, dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for whose, places in ((PROMPTS, (FIRST, END)), (BASE, (ANSWER,))):
        contexts = [gatherer.contexts[whose][prompt] for prompt in prompts]
        moved, plain = (_taken(asker, directions, which, contexts) for which in (state, PLAIN))
        for place in places:
            rows = list(zip(contexts, moved, plain, strict=True))
            found = [reads_of(context, place, a, b, asker.layers, gatherer.floor) for context, a, b in rows]
            asked[f"{TUNED} {place}"] = [read.tuned for read in found]
            asked[f"{DIFFERENCE} {place}"] = [read.difference for read in found]
            if any(read.left_out for read in found):
                asked[f"{BASE} {place}"] = [read.base for read in found]
            whole[f"{BASE} {place}"] = [b[context.rows_of(place)] for context, _, b in rows]
            norms[f"norms {place}"] = norms_of(found)
    # What the base says is the same beside every concept and strength, where nothing is left out.
    return {**gatherer.kept("planted-in", 0, lambda: _block(asker, whole)), **_block(asker, asked), **norms}


def _taken(asker: Asker, directions: Plants, state: State, contexts: Sequence[Context]) -> list[Activations]:
    """What the base represents in a state, at all places of some contexts."""
    lm = asker.oracle.base
    readings = [Reading(state, context.transcript.token_ids) for context in contexts]
    wanted = {reading: set(context.rows) for reading, context in zip(readings, contexts, strict=True)}
    taken, provenance = take(Target(lm, plants=directions), asker.layers, wanted), Provenance.of(lm)
    return [
        Activations(taken[reading].vectors, asker.layers, context.rows, context.transcript, provenance)
        for reading, context in zip(readings, contexts, strict=True)
    ]
