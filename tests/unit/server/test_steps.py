"""What the engine does for many at once is what the oracle does for each by itself."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import pytest
import torch

from augury.activations import Activations, Provenance, capture
from augury.errors import InputError
from augury.lm import Transcript, generate
from augury.lm.tuners import active_adapters
from augury.oracle import Oracle, passes
from augury.oracle.asking import settings_of
from augury.oracle.reading import at_positions
from augury.server.engine import DONE, ERROR, Engine
from augury.server.events import ProgressEvent
from augury.server.queue import Job, Queue
from augury.server.steps import Steps
from augury.server.work import Ask, Capture, Context, Generate, Scan, ScoreAll

TEXTS = ("The tide comes in twice a day.", "A baker gets up early.", "Nobody owns the moon, and yet.", "Iron rusts.")
NEVER = 1e18
YES_NO = ("Yes", "No")


class Waiting:
    def __init__(self) -> None:
        self.parts: list = []
        self.ended = threading.Event()

    def __call__(self, what, value) -> None:
        self.parts.append((what, value))
        if what in (DONE, ERROR):
            self.ended.set()

    def of(self, name: str) -> list:
        assert self.ended.wait(60), "it was never told"
        assert self.parts[-1][0] == DONE, self.parts[-1]
        return [value for what, value in self.parts if what == name]


@pytest.fixture
def engine(oracle: Oracle):
    made = Engine(Steps({"base": oracle.base}, {"o": oracle}).run, Queue(1000), most=8)
    yield made
    made.stop(30)


def put(engine: Engine, caller: str, step) -> Waiting:
    waiting = Waiting()
    engine.queue.put(Job(caller, step.key, step, waiting, NEVER))
    return waiting


@pytest.fixture
def readings(oracle: Oracle) -> list[Activations]:
    return [capture(oracle.base, text, oracle.contract.layers[0], "last 3") for text in TEXTS]


def same(one, other) -> bool:
    """Equal but for float noise of the batch's padding."""
    if hasattr(one, "margin"):
        return one.margin == pytest.approx(other.margin, abs=1e-4) and one.question == other.question
    return (one.text, one.question, one.samples) == (other.text, other.question, other.samples)


def test_answers_of_many_callers_are_each_ones_own(engine, oracle, readings):
    plain, sampled = settings_of(0, 1.0, 6, 0), settings_of(3, 1.0, 6, 5)
    rng = random.Random(0)
    asked = []
    for number in range(24):
        read, questions = rng.choice(readings), tuple(rng.sample(["What?", "Who is it?", "Why so?"], 2))
        step = Ask("o", read, questions, rng.choice([plain, sampled]))
        asked.append((step, put(engine, f"c{number % 5}", step)))
    engine.start()
    for step, waiting in asked:
        answers = waiting.of("answer")
        assert [number for number, _ in answers] == [0, 1]
        for (_, answer), question in zip(answers, step.questions, strict=True):
            samples, temperature = step.settings.samples, step.settings.temperature or 1.0
            alone = oracle.ask(step.read, question, samples=samples, temperature=temperature, max_new_tokens=6,
                               seed=step.settings.seed)  # fmt: skip
            assert same(answer, alone) and answer.source.text == alone.source.text
    assert engine.batches < len(asked), "some went together"


def test_scores_and_scans_are_the_oracles(engine, oracle, readings):
    scored = [(ScoreAll("o", read, ("Is it so?", "Is it not?"), YES_NO, donors=4), read) for read in readings]
    waiting = [put(engine, f"c{i}", step) for i, (step, _) in enumerate(scored)]
    scan = put(engine, "c0", Scan("o", readings[0], ("Is it so?", "Is it warm?"), window=2, donors=4))
    engine.start()
    for (step, read), one in zip(scored, waiting, strict=True):
        for (_, found), question in zip(one.of("score"), step.questions, strict=True):
            alone = oracle.score(read, question, donors=4)
            assert same(found, alone) and found.percentile == alone.percentile
    found = scan.of("scan")
    assert [number for number, _ in found] == [0, 1] and scan.of("progress")[-1] == ProgressEvent(
        number=1, done=3, total=3
    )
    for (_, one), question in zip(found, ("Is it so?", "Is it warm?"), strict=True):
        assert one.margins == pytest.approx(oracle.scan(readings[0], question, window=2, donors=4).margins, abs=1e-4)


def test_controls_come_after_and_are_the_callers_own(engine, oracle, readings):
    """In a batch of the library `shuffled` takes another context of the batch; that would be another caller's here."""
    settings = settings_of(0, 1.0, 5, 0)
    asks = [put(engine, f"c{i}", Ask("o", read, ("What?",), settings, donors=4)) for i, read in enumerate(readings)]
    scores = [put(engine, f"c{i}", ScoreAll("o", r, ("So?",), YES_NO, None, 4, True)) for i, r in enumerate(readings)]
    engine.start()
    for read, asked, scored in zip(readings, asks, scores, strict=True):
        (_, first), (_, last) = asked.of("answer")
        alone = oracle.ask(read, "What?", max_new_tokens=5, controls=True, donors=4)
        assert not first.controls and same(first, last)
        assert {name: getattr(c, "text", str(c)) for name, c in last.controls.items()} == {
            name: getattr(c, "text", str(c)) for name, c in alone.controls.items()
        }
        (_, first), (_, last) = scored.of("score")
        assert not first.controls
        own = oracle.score(read, "So?", controls=True, donors=4).controls
        assert all(same(last.controls[name], own[name]) for name in own)


def test_captures_go_together_and_on(engine, oracle):
    layers = oracle.contract.layers[0]
    settings = settings_of(0, 1.0, 5, 0)

    def then(acts):
        step = Ask("o", acts, ("What?",), settings)
        return step.key, step

    found = [put(engine, f"c{i}", Capture("base", Context(t), layers, "last 2")) for i, t in enumerate(TEXTS)]
    asked = put(engine, "x", Capture("base", Context(TEXTS[1]), layers, "all", then))
    engine.start()
    for text, one in zip(TEXTS, found, strict=True):
        ((acts, shown),) = [(kept.acts, kept.tokens) for kept in one.of("captured")]
        alone = capture(oracle.base, text, layers, "last 2")
        assert torch.allclose(acts.vectors, alone.vectors, atol=1e-4) and acts.positions == alone.positions
        assert (shown.token_ids, "".join(shown.tokens)) == (alone.transcript.token_ids, text)
    ((_, answer),) = asked.of("answer")
    assert same(answer, oracle.ask(TEXTS[1], "What?", max_new_tokens=5, positions="all"))
    assert not asked.of("captured")


def test_what_would_take_too_much_is_refused_before_it_is_captured(oracle, monkeypatch):
    layers = oracle.contract.layers[0]
    room = 3 * oracle.lm.d_model * 4
    engine = Engine(Steps({"base": oracle.base}, {"o": oracle}, most_bytes=room).run, Queue(10))
    few, many = (
        put(engine, "a", Capture("base", Context(TEXTS[0]), layers, wanted)) for wanted in ("last 3", "last 4")
    )
    engine.start()
    assert few.of("captured") and many.ended.wait(10)
    assert isinstance(many.parts[-1][1], InputError) and "too many" in str(many.parts[-1][1])
    engine.stop(5)


def test_what_does_not_fit_beside_the_others_is_read_later(oracle):
    """Five contexts in room for two: each pass takes what fits, and all come out as by themselves."""
    layers = oracle.contract.layers[0]
    room = 2 * 3 * oracle.lm.d_model * 4
    steps, passes = Steps({"base": oracle.base}, {"o": oracle}, most_bytes=room), []

    def run(jobs):
        found = steps.run(jobs)
        passes.append(sum(bool(outcome.parts) for outcome in found))
        return found

    engine = Engine(run, Queue(10))
    texts = (*TEXTS, "One more.")
    waiting = [put(engine, f"c{i}", Capture("base", Context(t), layers, "last 3")) for i, t in enumerate(texts)]
    engine.start()
    for text, one in zip(texts, waiting, strict=True):
        (kept,) = one.of("captured")
        assert torch.allclose(kept.acts.vectors, capture(oracle.base, text, layers, "last 3").vectors, atol=1e-4)
    engine.stop(5)
    assert passes == [2, 2, 1]


def test_the_target_goes_on_as_it_does_by_itself(engine, oracle):
    settings = {"max_new_tokens": 6, "temperature": 1.0, "seed": 3}
    told = put(engine, "a", Generate("base", Context(TEXTS[0]), settings))
    engine.start()
    (found,), alone = told.of("generated"), generate(oracle.lm, TEXTS[0], **settings)
    assert found.token_ids == alone.token_ids
    assert [vars(span) for span in found.spans] == [vars(span) for span in alone.spans]


def test_what_raises_inside_the_model_leaves_it_as_it_was(engine, oracle, readings, monkeypatch):
    """One poisoned reading in a batch of five: four are right, and so is what comes after."""
    settings, plain = settings_of(0, 1.0, 5, 0), passes.decode
    bad = replace(readings[0], vectors=torch.zeros_like(readings[0].vectors))

    def failing(*arguments, prefill, **settings):
        if not all(row.vectors.any() for row in prefill.rows):
            with prefill():  # adapters and hooks are on
                raise RuntimeError("out of memory inside the model")
        return plain(*arguments, prefill=prefill, **settings)

    monkeypatch.setattr(passes, "decode", failing)
    monkeypatch.setattr("augury.oracle.reading.check_vectors", lambda *arguments: None)
    waiting = [put(engine, f"c{i}", Ask("o", read, ("What?",), settings)) for i, read in enumerate([*readings, bad])]
    engine.start()
    for read, one in zip(readings, waiting, strict=False):
        ((_, answer),) = one.of("answer")
        assert same(answer, oracle.ask(read, "What?", max_new_tokens=5))
    assert waiting[-1].ended.wait(10) and "inside the model" in str(waiting[-1].parts[-1][1])
    assert active_adapters(oracle.lm.model) == ()
    assert not any(module._forward_hooks for module in oracle.lm.model.modules())
    ((_, again),) = put(engine, "z", Ask("o", readings[2], ("What?",), settings)).of("answer")
    assert same(again, oracle.ask(readings[2], "What?", max_new_tokens=5))


def test_many_positions_are_selected_in_no_time(oracle):
    """A search of the whole list for each of them would take a minute."""
    count = 60_000
    read = Transcript((5,) * count)
    acts = Activations(torch.arange(count)[None, :, None].float(), (2,), tuple(range(count)), read, Provenance(None))
    began = time.monotonic()
    found = at_positions(oracle.base, acts, range(count - 1, -1, -1))
    assert time.monotonic() - began < 2 and found.vectors.flatten().tolist() == list(range(count - 1, -1, -1))


def test_an_empty_question_is_the_callers_own_fault(engine, readings):
    fine = settings_of(0, 1.0, 5, 0)
    bad, good = (
        put(engine, "a", Ask("o", readings[0], ("",), fine)),
        put(engine, "b", Ask("o", readings[1], ("Q?",), fine)),
    )
    engine.start()
    assert good.of("answer") and bad.ended.wait(10)
    assert isinstance(bad.parts[-1][1], InputError)
