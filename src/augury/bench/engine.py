"""Asking an oracle, and each of its controls, every question of a task: in blocks that are kept as they are done."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import Tensor

from augury.bench.asks import Ask, donors, shared
from augury.bench.readings import Reading, Taken, Target, take
from augury.bench.task import Task
from augury.lm import Sampling
from augury.oracle import Oracle
from augury.oracle.choices import Spelled, prefixed, spell
from augury.oracle.controls import NONE, SHUFFLED, TEXT_ALL, TEXT_WINDOW, UNTRAINED, reader_text
from augury.oracle.passes import Row, Runner
from augury.oracle.prompt import build_prompt, plain_prompt
from augury.oracle.reading import decoded, default_layers, text_at, text_until
from augury.oracle.together import Decoded, Group, Work, continuations_together, decode_together, logprobs_together

ORACLE = "oracle"
RATERS = (ORACLE, NONE, SHUFFLED, TEXT_WINDOW, TEXT_ALL, UNTRAINED)
PROBE = "probe"  # no rater that is asked: see `augury.bench.baseline`
COLUMNS = (*RATERS, PROBE)
BLOCK = 48  # groups
DIGITS = 6

# What one rater gives to one question, JSON-ready: `log_probs` of the choices or of the tokens (with `likeliest`),
# or a `text`; None where there is nothing to answer from.
Result = dict[str, Any]
Block = dict[str, Any]  # `results`, for each group and question one; `work`, what was run for them
Blocks = Callable[[str, int, Callable[[], Block]], Block]


@dataclass
class Engine:
    """An oracle with its controls, and the target in its states.

    Attributes:
        oracle: Who is asked.
        target: What is read.
        batch_size: Rows in a forward pass.
        seed: Of the donors.
    """

    oracle: Oracle
    target: Target
    batch_size: int = 24
    seed: int = 0

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that are read: the contract's first tuple."""
        return default_layers(self.oracle.contract)

    def take(self, asks: Sequence[Ask]) -> dict[Reading, Taken]:
        """Capture what these questions read, each context once in each state."""
        wanted: dict[Reading, set[int]] = {}
        for ask in asks:
            wanted.setdefault(Reading.of(ask.item), set()).update(ask.positions)
        return take(self.target, self.layers, wanted)

    def answers(
        self, task: Task, asks: Sequence[Ask], taken: dict[Reading, Taken], rater: str, kept: Blocks
    ) -> tuple[list[Result | None], Work]:
        """One rater's results, one for each ask, and what was run; None where a reader has no text to answer from.

        Args:
            task: Whose questions they are.
            asks: The questions.
            taken: What was captured.
            rater: `oracle`, or a control's name.
            kept: Given a block's name, its number and what makes it, gives it: made now, or kept before.
        """
        sources = self._sources(asks, taken, rater)
        answered = [i for i, source in enumerate(sources) if source is not None]
        found: list[Result | None] = [None] * len(asks)
        work = Work()
        for number, part in enumerate(self._by_choices(task, asks, answered)):
            named = partial(kept, f"{rater}-{number}")
            for i, result in zip(part, self._results(task, asks, part, sources, rater, named, work), strict=True):
                found[i] = result
        return found, work

    def _by_choices(self, task: Task, asks: Sequence[Ask], places: Sequence[int]) -> list[list[int]]:
        """The asks with the same choices together, since these are scored together."""
        found: dict[tuple[str, ...], list[int]] = {}
        for i in places:
            found.setdefault(task.choices_of(asks[i].item) if task.kind == "choice" else (), []).append(i)
        return list(found.values())

    def _results(
        self,
        task: Task,
        asks: Sequence[Ask],
        part: Sequence[int],
        sources: Sequence[_Source | None],
        rater: str,
        kept: Callable[[int, Callable[[], Block]], Block],
        work: Work,
    ) -> Iterator[Result]:
        keys = [_known(sources[i]).key for i in part]
        tails = [_tail(task, asks[i]) for i in part]
        questions = [(asks[i].question, tail) for i, tail in zip(part, tails, strict=True)]
        plan = shared(keys, questions)
        who = self._runner(rater)
        spelled = self._spelled(task, asks[part[0]])
        samples = task.samples if rater == ORACLE else 0
        done: list[list[Result]] = []
        for start in range(0, len(plan.keys), BLOCK):
            members = plan.members[start : start + BLOCK]

            def make(members: Sequence[Sequence[int]] = members) -> Block:
                groups = [
                    Group.of([self._row(task, asks[part[m]], _known(sources[part[m]])) for m in group])
                    for group in members
                ]
                wanted = [[tails[m] for m in group] for group in members]
                run = Work()
                return {"results": self._run(task, who, groups, wanted, spelled, samples, run), "work": asdict(run)}

            block = kept(start // BLOCK, make)
            done.extend(block["results"])
            work.add(Work(**block["work"]))
        return (done[group][place] for group, place in plan.of)

    def _sources(self, asks: Sequence[Ask], taken: dict[Reading, Taken], rater: str) -> list[_Source | None]:
        """What each ask's prompt is filled with: activations, nothing, or a text; None where there is no text."""
        if rater == NONE:
            return [_Source(("none", len(ask.positions)), count=len(ask.positions)) for ask in asks]
        if rater in (TEXT_WINDOW, TEXT_ALL):
            base, text_of = self.oracle.base, text_at if rater == TEXT_WINDOW else text_until
            texts = [text_of(base, ask.item.token_ids, ask.positions) for ask in asks]
            return [_Source(text, text=text) if text else None for text in texts]
        read: list[Reading | None] = [Reading.of(ask.item) for ask in asks]
        if rater == SHUFFLED:
            read = self._donors(asks)
        made: dict[Hashable, _Source] = {}
        return [None if r is None else _slots(ask, r, taken[r], made) for ask, r in zip(asks, read, strict=True)]

    def _donors(self, asks: Sequence[Ask]) -> list[Reading | None]:
        """For each ask the reading of another problem that stands in for its own."""
        problem_of = {Reading.of(ask.item): ask.item.problem for ask in asks}
        readings = list(problem_of)
        counts: dict[Reading, int] = {}
        for ask in asks:
            counts[Reading.of(ask.item)] = max(counts.get(Reading.of(ask.item), 0), len(ask.positions))
        found = donors(readings, list(problem_of.values()), [counts[r] for r in readings], self.seed)
        donor = {reading: None if j is None else readings[j] for reading, j in zip(readings, found, strict=True)}
        return [donor[Reading.of(ask.item)] for ask in asks]

    def _runner(self, rater: str) -> Runner:
        runner = self.oracle.runner(batch_size=self.batch_size)
        if rater in (ORACLE, NONE, SHUFFLED):
            return runner
        plain = runner.without_adapters()
        if rater == UNTRAINED or self.oracle.reader is None:
            return plain
        return Runner(plain.lm, plain.contract, (self.oracle.reader,), plain.coefficient, plain.batch_size)

    def _row(self, task: Task, ask: Ask, source: _Source) -> Row:
        base, contract = self.oracle.base, self.oracle.contract
        choices = task.choices_of(ask.item)
        question = prefixed(contract, ask.question, choices) if choices else ask.question
        if source.text is not None:
            return Row(plain_prompt(base, contract, reader_text(source.text, question)), None)
        return Row(build_prompt(base, contract, self.layers, source.count, question), source.vectors)

    def _spelled(self, task: Task, ask: Ask) -> Spelled | None:
        choices = task.choices_of(ask.item)
        return spell(self.oracle.base, self.oracle.contract, choices) if choices else None

    def _run(
        self,
        task: Task,
        who: Runner,
        groups: Sequence[Group],
        tails: Sequence[Sequence[tuple[int, ...]]],
        spelled: Spelled | None,
        samples: int,
        work: Work,
    ) -> list[list[Result]]:
        if spelled is not None and spelled.method == "first-token":
            return _first_tokens(who, groups, spelled, work)
        if spelled is not None:
            return _whole_choices(who, groups, spelled, work)
        if task.kind == "tokens":
            return _forced(who, groups, tails, work)
        sampling = Sampling(task.new_tokens, seed=self.seed)
        found = decode_together(who, groups, sampling, work, samples)
        return [[_told(who, answer) for answer in rows] for rows in found]


def _told(who: Runner, found: Decoded) -> Result:
    """The greedy `text`; where more were drawn, these `samples` and the mean `log_prob` of the greedy one's tokens."""
    texts = [decoded(who.lm, ids).strip() for ids in (found.token_ids, *found.samples)]
    if not found.samples:
        return {"text": texts[0]}
    return {"text": texts[0], "samples": texts[1:], "log_prob": round(float(found.log_probs.mean()), DIGITS)}


def _first_tokens(who: Runner, groups: Sequence[Group], spelled: Spelled, work: Work) -> list[list[Result]]:
    found = logprobs_together(who, groups, [token for ids in spelled.ids for token in ids], work)
    sizes = [len(ids) for ids in spelled.ids]
    return [[_logged([part.logsumexp(0) for part in row.split(sizes)]) for row in rows] for rows in found]


def _whole_choices(who: Runner, groups: Sequence[Group], spelled: Spelled, work: Work) -> list[list[Result]]:
    each = len(spelled.ids)
    repeated = [Group.of([row for row in group.rows for _ in spelled.ids]) for group in groups]
    wanted = [[ids for _ in group.rows for ids in spelled.ids] for group in groups]
    found = continuations_together(who, repeated, wanted, work)
    sums = [[forced.log_probs.sum() for forced in group] for group in found]
    return [[_logged(row[i : i + each]) for i in range(0, len(row), each)] for row in sums]


def _forced(
    who: Runner, groups: Sequence[Group], tails: Sequence[Sequence[tuple[int, ...]]], work: Work
) -> list[list[Result]]:
    found = continuations_together(who, groups, tails, work)
    return [[{**_logged(list(f.log_probs)), "likeliest": f.likeliest.tolist()} for f in group] for group in found]


@dataclass(frozen=True, eq=False)
class _Source:
    """What fills a prompt: `vectors` into `count` slots, a `text` in their place, or nothing."""

    key: Hashable
    count: int = 0
    vectors: Tensor | None = None
    text: str | None = None


def _slots(ask: Ask, reading: Reading, taken: Taken, made: dict[Hashable, _Source]) -> _Source:
    """The activations that go into an ask's slots: of its own positions, or of as many of a donor's last."""
    own = reading == Reading.of(ask.item)
    positions = ask.positions if own else taken.positions[-len(ask.positions) :]
    key = (reading, positions)
    if key not in made:
        made[key] = _Source(key, len(positions), taken.at(positions))
    return made[key]


def _known(source: _Source | None) -> _Source:
    assert source is not None
    return source


def _tail(task: Task, ask: Ask) -> tuple[int, ...]:
    """The tokens that are asked for, where an answer is made of them."""
    return tuple(map(int, ask.item.facts["tokens"].split())) if task.kind == "tokens" else ()


def _logged(values: Sequence[Tensor]) -> Result:
    return {"log_probs": [round(float(value), DIGITS) for value in values]}
