"""What is told on the way is each caller's own, comes to the same end as without it, and ends when nobody listens."""

from __future__ import annotations

import asyncio
import time

import pytest

from augury.activations import capture
from augury.lm import generate
from augury.lm.tuners import active_adapters
from augury.oracle.asking import settings_of
from augury.oracle.controls import CONTROLS
from augury.oracle.wire import AnswerOut, ScoreOut
from augury.server.engine import ERROR, Engine
from augury.server.events import EVENTS, TextEvent
from augury.server.queue import Job, Queue
from augury.server.refused import LateError, StoppedError
from augury.server.shown import UNFINISHED, so_far
from augury.server.steps import Steps
from augury.server.telling import Mail
from augury.server.work import Ask, Context, Generate, ScoreAll
from tests.unit.server.test_app import TEXT, client, events, plain, result, service
from tests.unit.server.test_steps import NEVER, TEXTS, YES_NO, Waiting, engine, put, readings, same

__all__ = ["client", "engine", "readings", "service"]


def whole(text: str) -> str:
    """What is shown of a text that may end within a character."""
    return text.rstrip(UNFINISHED).strip()


def untouched(model) -> bool:
    return active_adapters(model) == () and not any(module._forward_hooks for module in model.modules())


class Stop(Exception):
    pass


def test_the_target_tells_its_tokens_as_they_come(oracle):
    told: list[list[int]] = []
    found = generate(oracle.lm, TEXT, max_new_tokens=6, temperature=1.0, seed=3, told=lambda ids: told.append([*ids]))
    start = found.spans[-1].start
    assert told == [list(found.token_ids[start : start + count]) for count in range(1, len(told) + 1)]
    assert found.token_ids[start:] == tuple(told[-1]) and len(told) > 1

    def stop(ids):
        if len(ids) == 2:
            raise Stop

    with pytest.raises(Stop):
        generate(oracle.lm, TEXT, max_new_tokens=6, told=stop)
    assert untouched(oracle.lm.model)
    assert generate(oracle.lm, TEXT, max_new_tokens=6, temperature=1.0, seed=3) == found


def test_half_a_character_is_not_shown(oracle):
    ids = oracle.lm.tokenizer("né", add_special_tokens=False)["input_ids"]
    assert [so_far(oracle.lm, ids[:count]) for count in (1, 2, 3)] == ["n", "n", "né"]


def asking(client, **fields) -> dict:
    """Questions about what is kept, so that two requests read the same capture."""
    kept = client.post("/v1/capture", json={"context": {"text": TEXT}, "positions": "last 8"}).json()
    return {**plain(**fields), "reading": {"handle": kept["handle"]}}


def streamed(client, verb: str, body: dict) -> list[tuple[str, dict]]:
    with client.stream("POST", f"/v1/{verb}", json={**body, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        found = events(response)
    for name, row in found:
        EVENTS[name].model_validate(row, extra="forbid")
    assert found[-1] == ("done", {})
    return found


def test_what_the_target_writes_is_streamed(client):
    asked = {"context": {"text": TEXT}, "max_new_tokens": 7, "temperature": 1.0, "seed": 3}
    *written, (last, generated), _ = streamed(client, "generate", asked)
    assert last == "generated" and generated == client.post("/v1/generate", json=asked).json()
    assert [name for name, _ in written] == ["written"] * len(written)
    assert written[-1][1]["text"] == generated["text"].rstrip(UNFINISHED)
    counts = [row["tokens"] for _, row in written]
    assert (
        counts == sorted(set(counts)) and counts[-1] >= generated["spans"][-1]["stop"] - generated["spans"][-1]["start"]
    )


@pytest.mark.parametrize("samples", [0, 3])
def test_an_answer_is_streamed_as_it_is_written_and_its_controls_as_they_come(client, samples):
    asked = asking(client, samples=samples, max_new_tokens=6, controls=True, questions=["What?", "Who is it?"], seed=5)
    found = streamed(client, "ask", asked)
    alone = [result(AnswerOut, row) for row in client.post("/v1/ask", json=asked).json()["answers"]]
    texts = {row["number"]: row["texts"] for name, row in found if name == "text"}
    for number, answer in enumerate(alone):
        assert texts[number] == [whole(text) for text in answer.samples or (answer.text,)]
        own = [result(AnswerOut, row["answer"]) for name, row in found if name == "answer" and row["number"] == number]
        counts = [len(one.controls) for one in own]
        assert counts[0] == 0 and counts[-1] == 5 and counts == sorted(counts) and len(set(counts)) > 3
        assert own[-1] == answer, "to the bit what it is without the stream"
        assert tuple(own[-1].controls) == CONTROLS
    first = next(i for i, (name, _) in enumerate(found) if name == "answer")
    assert all(name == "text" for name, _ in found[:first]) and "text" not in [name for name, _ in found[first:]]


def test_a_score_is_streamed_and_its_controls_as_they_come(client):
    asked = asking(client, controls=True)
    found = streamed(client, "score", asked)
    own = [result(ScoreOut, row["score"]) for name, row in found if name == "score"]
    counts = [len(score.controls) for score in own]
    assert counts[0] == 0 and counts == sorted(counts) and len(set(counts)) > 3 and len(own) == len(found) - 1
    (alone,) = client.post("/v1/score", json=asked).json()["scores"]
    assert own[-1] == result(ScoreOut, alone)


def test_a_scan_is_streamed(client):
    names = [name for name, _ in streamed(client, "scan", plain("Is it so?"))]
    assert set(names) == {"progress", "scan", "done"}


@pytest.mark.parametrize("samples", [0, 2])
def test_jobs_of_a_batch_are_each_told_their_own(engine, oracle, readings, samples):
    settings = settings_of(samples, 1.0, 6, 0)
    steps = [Ask("o", read, ("What?", "Who?"), settings, stream=i != 1) for i, read in enumerate(readings)]
    waiting = [put(engine, f"c{i}", step) for i, step in enumerate(steps)]
    engine.start()
    for i, one in enumerate(waiting):
        answers, told = dict(one.of("answer")), one.of("text")
        assert bool(told) == (i != 1), "only who asked for it is told"
        for number, answer in answers.items() if told else ():
            texts = [event.texts for event in told if event.number == number]
            assert texts[-1] == tuple(whole(text) for text in answer.samples or (answer.text,))
            assert len(texts) > 1
    assert engine.batches == 1


class Leaving(Waiting):
    """Goes when it is told the first text."""

    def __init__(self) -> None:
        super().__init__()
        self.job = Job("", None, None, self, NEVER)

    def __call__(self, what, value) -> None:
        super().__call__(what, value)
        if what in ("text", "written", "answer", "score"):
            self.job.gone.set()


def leaving(engine: Engine, caller: str, step) -> Leaving:
    told = Leaving()
    told.job = Job(caller, step.key, step, told, NEVER)
    engine.queue.put(told.job)
    return told


def test_one_who_goes_does_not_stop_the_others_of_its_batch(engine, oracle, readings):
    settings = settings_of(0, 1.0, 8, 0)
    gone = leaving(engine, "a", Ask("o", readings[0], ("What?",), settings, stream=True))
    stays = put(engine, "b", Ask("o", readings[1], ("What?",), settings, stream=True))
    engine.start()
    ((_, answer),) = stays.of("answer")
    assert same(answer, oracle.ask(readings[1], "What?", max_new_tokens=8))
    assert len(stays.of("text")) == len(answer.token_ids) > 2, "it was run once"
    assert len([what for what, _ in gone.parts if what == "text"]) == 1 and engine.batches == 1


@pytest.mark.parametrize("kind", ["ask", "generate"])
def test_what_nobody_waits_for_ends_at_the_next_token(engine, oracle, readings, monkeypatch, kind):
    counted = []
    plain_read = oracle.lm.model.forward
    monkeypatch.setattr(oracle.lm.model, "forward", lambda *a, **k: counted.append(1) or plain_read(*a, **k))
    asked = Ask("o", readings[0], ("What?",), settings_of(0, 1.0, 300, 0), stream=True)
    written = Generate("base", Context(TEXTS[0]), {"max_new_tokens": 300, "temperature": 1.0, "seed": 3}, stream=True)
    gone = leaving(engine, "a", asked if kind == "ask" else written)
    engine.start()
    assert gone.ended.wait(20) and gone.parts[-1][0] == ERROR and isinstance(gone.parts[-1][1], StoppedError)
    assert len(counted) <= 3 and untouched(oracle.lm.model)


def test_controls_that_nobody_waits_for_are_not_run(engine, oracle, readings):
    asked = Ask("o", readings[0], ("What?",), settings_of(0, 1.0, 5, 0), donors=4, stream=True)
    scored = ScoreAll("o", readings[0], ("So?",), YES_NO, None, 4, True, True)
    for step, what in ((asked, "answer"), (scored, "score")):
        told = Waiting()
        job = Job("a", step.key, step, told, NEVER)

        def leave(name, value, job=job, told=told):
            told(name, value)
            if name in ("answer", "score") and value[1].controls:
                job.gone.set()

        job.tell = leave
        engine.queue.put(job)
        if engine._thread is None:
            engine.start()
        assert told.ended.wait(20) and isinstance(told.parts[-1][1], StoppedError)
        found = [value[1] for name, value in told.parts if name == what]
        assert [bool(one.controls) for one in found] == [False, True] and len(found[-1].controls) < 5
    assert untouched(oracle.lm.model)


def test_who_is_late_is_stopped_on_the_way(engine, oracle):
    told, settings = Waiting(), {"max_new_tokens": 9, "temperature": 1.0, "seed": 3}
    step = Generate("base", Context(TEXTS[0]), settings, stream=True)
    job = Job("a", step.key, step, told, NEVER)

    def late(what, value):
        told(what, value)
        job.until = time.monotonic()

    job.tell = late
    engine.queue.put(job)
    engine.start()
    assert told.ended.wait(20) and [what for what, _ in told.parts] == ["written", ERROR]
    assert isinstance(told.parts[-1][1], LateError)


def test_who_reads_slowly_fills_no_memory():
    async def told() -> list:
        mail = Mail(asyncio.get_running_loop())
        for count in range(1000):
            mail.tell("text", TextEvent(number=count % 2, texts=("x" * count,)))
        for number in range(2):
            mail.tell("answer", (number, "whole"))
        await asyncio.sleep(0.05)
        return [await mail.get() for _ in range(4)]

    found = asyncio.run(told())
    assert [(what, getattr(value, "number", None)) for what, value in found[:2]] == [("text", 0), ("text", 1)]
    assert [len(value.texts[0]) for _, value in found[:2]] == [998, 999]
    assert found[2:] == [("answer", (0, "whole")), ("answer", (1, "whole"))]


def test_rows_of_other_lengths_are_told_to_their_own(oracle):
    """The order of rows in a batch is by length, and not that of the jobs."""
    engine = Engine(Steps({"base": oracle.base}, {"o": oracle}).run, Queue(10))
    reads = [capture(oracle.base, TEXTS[0], oracle.contract.layers[0], f"last {count}") for count in (7, 1, 4)]
    settings = settings_of(0, 1.0, 5, 0)
    waiting = [put(engine, f"c{i}", Ask("o", r, ("What?",), settings, stream=True)) for i, r in enumerate(reads)]
    engine.start()
    for one in waiting:
        ((_, answer),) = one.of("answer")
        assert one.of("text")[-1].texts == (whole(answer.text),)
    engine.stop(5)
