"""Open questions about a model in the middle of its reasoning, and those points at which it takes something back.

A point is a place in a chain of thought of the model's own. What a judge is told is true of it is the problem, what
stands before the point, and how the model went on: all of that the model said itself.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from augury.bench.item import Item, ItemSet
from augury.bench.own_answers import answer_text, written
from augury.bench.published_items import published
from augury.bench.task import REGISTRY, Build, Items, NotMeasurable, Task
from augury.bench.texts import texts
from augury.lm import LanguageModel, Sampling, generate_many, transcript_of

WINDOW, POSITIONS = 20, 50
LENGTH = 240  # tokens of a chain of thought
FIRST, BEHIND = 40, 16  # characters before the first point, tokens behind the last
POINTS = 4  # of a chain of thought
AGAIN, CONSISTENT, NEXT = 10, 0.4, 24  # continuations of a point, the share that must take it back, and their tokens
LEAST = 30  # points
CHAINS = 8  # chains of thought of a problem in which backtracking is looked for, at most
TOLD = 300  # characters of what stands around a point that a judge is told
SHOWN = 160  # characters of an option
OPTIONS = ("A", "B", "C", "D")
PUBLISHED, PROMPTS = "backtracking/backtracking_eval_dataset.json", "vagueness/prompts.json"
_SENTENCE = re.compile(r"(?<=[.!?\n])\s+")


@dataclass(frozen=True)
class Chain:
    """A chain of thought.

    Attributes:
        problem: The problem's name.
        asked: What the model was asked.
        text: What it wrote.
        number: Among the problem's.
    """

    problem: str
    asked: str
    text: str
    number: int


def build(wanted: Build) -> Iterator[Item]:
    """Points between the sentences of the model's chains of thought, one round after the other."""
    problems = {row["id"]: row["text"] for row in texts("reasoning")["problems"]}
    rounds = -(-wanted.size // (POINTS * len(problems)))
    chains = list(_chains(wanted, problems, rounds, 0.7 if rounds > 1 else 0.0))
    rng = random.Random(f"{wanted.seed}:reasoning")
    found = {(chain.problem, chain.number): _places(chain.text, rng) for chain in chains}
    wanted.counts.update(chains=len(chains), points=sum(map(len, found.values())))
    for step in range(POINTS):
        for chain in chains:
            places = found[chain.problem, chain.number]
            if step < len(places):
                yield _item(wanted.lm, chain, problems[chain.problem], places[step], rng)


def _chains(wanted: Build, problems: dict[str, str], rounds: int, temperature: float) -> Iterator[Chain]:
    ask = texts("reasoning")["ask"]
    rows = [(name, ask.format(problem=text), number) for number in range(rounds) for name, text in problems.items()]
    turns = [[{"role": "user", "content": asked}] for _, asked, _ in rows]
    told = written(wanted.lm, turns, Sampling(LENGTH, temperature, seed=wanted.seed), wanted.told)
    for (name, asked, number), (_, text) in zip(rows, told, strict=True):
        yield Chain(name, asked, text, number)


def _places(text: str, rng: random.Random) -> list[int]:
    """Some places between sentences, in the order of the text."""
    ends = [found.start() for found in _SENTENCE.finditer(text)]
    usable = [end for end in ends if FIRST <= end <= len(text) - FIRST]
    return sorted(rng.sample(usable, min(POINTS, len(usable))))


def _item(lm: LanguageModel, chain: Chain, problem: str, place: int, rng: random.Random) -> Item:
    before, behind = chain.text[:place], chain.text[place:]
    facts = {
        "reference": reference(problem, before, behind),
        "ask": rng.choice(texts("reasoning")["vagueness"]),
    }
    return point(lm, f"{chain.problem} {chain.number} {place}", chain.problem, chain.asked, before, facts)


def reference(problem: str, before: str, behind: str) -> str:
    """What a judge is told of a point."""
    return (
        f"The problem: {problem}\nThe reasoning up to the point: ...{before[-TOLD:].strip()}\n"
        f"It goes on: {behind[:TOLD].strip()}..."
    )


def point(lm: LanguageModel, name: str, problem: str, asked: str, before: str, facts: dict[str, str]) -> Item:
    """An item that is read at the end of what the model had written so far."""
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": before.strip()}]
    found = transcript_of(lm, messages, "open")
    stop = found.spans[-1].stop
    spans = tuple((span.role, span.start, span.stop) for span in found.spans)
    first = max(found.spans[-1].start, stop - POSITIONS)
    return Item(name, problem, found.token_ids[:stop], tuple(range(first, stop)), facts, spans=spans)


def build_backtracking(wanted: Build) -> Iterator[Item]:
    """Points at which the model takes back what it said, and does so again when it goes on from there anew.

    A point counts where at least four of ten continuations take it back. What is true of it is how the model went on.
    """
    problems = {row["id"]: row["text"] for row in texts("reasoning")["problems"]}
    points = _turning(wanted, problems)
    rates = _rates(wanted, points)
    kept = [(chain, place) for (chain, place), rate in zip(points, rates, strict=True) if rate >= CONSISTENT]
    wanted.counts.update(consistent=len(kept))
    if len(kept) < LEAST or len({chain.problem for chain, _ in kept}) < len(OPTIONS):
        raise NotMeasurable(f"it takes back what it said at fewer than {LEAST} points", **wanted.counts)
    rng = random.Random(f"{wanted.seed}:backtracking")
    went_on = {(chain.problem, _shown(chain.text[place:])) for chain, place in kept}
    for chain, place in kept[: wanted.size]:
        own = _shown(chain.text[place:])
        others = sorted({text for name, text in went_on if name != chain.problem} - {own})
        if len(others) < len(OPTIONS) - 1:
            continue
        options = rng.sample([own, *rng.sample(others, len(OPTIONS) - 1)], len(OPTIONS))
        facts = {
            "reference": reference(problems[chain.problem], chain.text[:place], chain.text[place:]),
            "truth": OPTIONS[options.index(own)],
            "options": _listed(options),
        }
        name = f"{chain.problem} {chain.number} {place}"
        yield point(wanted.lm, name, chain.problem, chain.asked, chain.text[:place], facts)


def _turning(wanted: Build, problems: dict[str, str]) -> list[tuple[Chain, int]]:
    """Points in so many chains as there is hope for: a model that hardly takes anything back is given up early."""
    points: list[tuple[Chain, int]] = []
    for turn in range(CHAINS):
        chains = list(_chains(replace(wanted, seed=wanted.seed + turn), problems, 1, 0.7))
        points += [(replace(chain, number=turn), place) for chain in chains for place in turning_points(chain.text)]
        wanted.counts.update(chains=(turn + 1) * len(problems), turning=len(points))
        if len(points) >= 2 * wanted.size or (turn and len(points) * CHAINS < LEAST * (turn + 1)):
            break
    return points


def turning_points(text: str) -> list[int]:
    """Where sentences end after which the text takes something back."""
    return [
        found.start()
        for found in _SENTENCE.finditer(text)
        if found.start() >= FIRST and takes_back(text[found.end() :])
    ]


def takes_back(text: str) -> bool:
    """Whether a text begins by taking something back."""
    start = text.lstrip().casefold()
    return any(start.startswith(marker) for marker in texts("reasoning")["markers"])


def _rates(wanted: Build, points: Sequence[tuple[Chain, int]]) -> list[float]:
    """For each point the share of new continuations that take it back."""
    starts = [
        transcript_of(
            wanted.lm,
            [{"role": "user", "content": chain.asked}, {"role": "assistant", "content": chain.text[:place].strip()}],
            "open",
        )
        for chain, place in points
    ]
    rows = [start for start in starts for _ in range(AGAIN)]
    if not rows:
        return []
    told = generate_many(wanted.lm, rows, Sampling(NEXT, 0.7, seed=wanted.seed), width=64)
    again = [takes_back(answer_text(wanted.lm, transcript)) for transcript in told]
    return [sum(again[i * AGAIN : (i + 1) * AGAIN]) / AGAIN for i in range(len(points))]


def _shown(text: str) -> str:
    return " ".join(text.split())[:SHOWN]


def _listed(options: Sequence[str]) -> str:
    return "\n".join(f"{letter}) {text}" for letter, text in zip(OPTIONS, options, strict=True))


def load_backtracking(wanted: Build, folder: Path) -> ItemSet:
    """The published points of Qwen3-8B's chains of thought.

    Raises:
        FormatError: The file is not in the published form.
    """

    def read(row: dict) -> Iterator[Item]:
        facts = {
            "reference": row["uncertainty_description"],
            "truth": OPTIONS[row["mc_correct_index"]],
            "options": _listed(row["mc_options"]),
        }
        yield _published_point(wanted.lm, row, facts)

    return published("backtracking", folder, PUBLISHED, read)


def load(wanted: Build, folder: Path) -> ItemSet:
    """The same points with what is known of their surroundings, and one of the published questions each.

    Raises:
        FormatError: The file is not in the published form.
    """
    path = folder / PROMPTS
    prompts = json.loads(path.read_text(encoding="utf-8"))["prompts"] if path.is_file() else []
    rng = random.Random("vagueness")

    def read(row: dict) -> Iterator[Item]:
        told = reference(row["problem"], row["prefix"], row["original_continuation"])
        yield _published_point(wanted.lm, row, {"reference": told, "ask": rng.choice(prompts)})

    return published("reasoning", folder, PUBLISHED, read)


def _published_point(lm: LanguageModel, row: dict, facts: dict[str, str]) -> Item:
    """A point inside an open thinking block, where the template has such."""
    start = transcript_of(lm, [{"role": "user", "content": row["problem"]}], "thinking")
    tail = transcript_of(lm, row["prefix"]).token_ids
    ids = (*start.token_ids, *tail)
    name = f"{row['problem_id']} {row['rollout_idx']} {row['char_pos']}"
    first = max(len(start.token_ids), len(ids) - POSITIONS)
    spans = tuple((span.role, span.start, span.stop) for span in start.spans)
    return Item(name, row["problem_id"], ids, tuple(range(first, len(ids))), facts, spans=spans)


_TEXTS = texts("reasoning")
_OWN = ("chains of thought of the target on problems of this package", "that of this package")
REGISTRY.add(
    Items("reasoning", *_OWN, build, load),
    Items("backtracking", *_OWN, build_backtracking, load_backtracking),
    Task(
        "vagueness",
        "whether answers about a point of the model's reasoning state something of it, and truly",
        "reasoning",
        "open",
        ("{ask}",),
        window=WINDOW,
        new_tokens=48,
        rubric="specificity",
        aggregate="vagueness",
    ),
    Task(
        "domain_confusion",
        "which problem the model is working on",
        "reasoning",
        "open",
        tuple(_TEXTS["domain_confusion"]),
        window=WINDOW,
        new_tokens=48,
        rubric="problem",
        aggregate="domain_confusion",
    ),
    Task(
        "hallucination",
        "whether what is said of the model's reasoning is made up; correct, vague and wrong stand beside each other",
        "reasoning",
        "open",
        tuple(_TEXTS["hallucination"]),
        window=5,
        new_tokens=48,
        rubric="invention",
        aggregate="hallucination",
    ),
    Task(
        "backtracking",
        "what the model is uncertain about where it is about to take something back",
        "backtracking",
        "open",
        tuple(_TEXTS["backtracking"]),
        window=WINDOW,
        new_tokens=64,
        rubric="uncertainty",
        aggregate="backtracking",
    ),
    Task(
        "backtracking_choice",
        "the same with four options, of which three are from other problems",
        "backtracking",
        "choice",
        (
            "How does the model go on from here?\n{options}\nAnswer with the letter only.",
            "Which of these comes next in the model's reasoning?\n{options}\nOutput only A, B, C, or D.",
        ),
        window=WINDOW,
        sweep=(1, 5, 50),
        choices=OPTIONS,
    ),
)
