"""The queue and its engine: fair, bounded, in batches, and right again after every failure."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augury.server.engine import DONE, ERROR, Engine, Outcome
from augury.server.queue import ALONE, Job, Queue
from augury.server.refused import BusyError, LateError, StoppedError

NEVER = 1e18


class Waiting:
    """Who waits for a job: what it was told, and an event at the end."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, object]] = []
        self.ended = threading.Event()

    def __call__(self, what: str, value: object) -> None:
        self.parts.append((what, value))
        if what in (DONE, ERROR):
            self.ended.set()

    def result(self, within: float = 10.0) -> list[tuple[str, object]]:
        assert self.ended.wait(within), "it was never told"
        return self.parts


def job(
    caller: str, key: object = "k", work: object = None, until: float = NEVER, tell=lambda what, value: None
) -> Job:
    return Job(caller, key, work, tell, until)


def drained(queue: Queue, most: int) -> list[list[Job]]:
    found = []
    while batch := queue.take(most, 0):
        found.append(batch)
    return found


def test_each_caller_gets_a_turn():
    queue = Queue(100)
    for number in range(6):
        queue.put(job("busy", ALONE, number))
    queue.put(job("rare", ALONE, "mine"))
    order = [(batch[0].caller, batch[0].work) for batch in drained(queue, 4)]
    assert order[:3] == [("busy", 0), ("rare", "mine"), ("busy", 1)] and [w for c, w in order if c == "busy"] == [
        *range(6)
    ]


def test_a_batch_has_one_key_and_every_callers_jobs_before_any_callers_second():
    queue = Queue(100)
    for number in range(4):
        queue.put(job("a", "x", number))
    queue.put(job("b", "y", 0))
    queue.put(job("b", "x", 1))
    queue.put(job("c", "x", 0))
    first = queue.take(3, 0)
    assert [(one.caller, one.work) for one in first] == [("a", 0), ("b", 1), ("c", 0)]
    rest = drained(queue, 3)
    assert {one.key for one in rest[0]} == {rest[0][0].key} and sum(map(len, rest)) == 4


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y", None])), max_size=40), st.integers(1, 5))
def test_everything_comes_out_once_and_in_its_callers_order_within_a_key(asked, most):
    queue = Queue(100)
    for number, (caller, key) in enumerate(asked):
        queue.put(job(caller, key, number))
    found = drained(queue, most)
    assert Counter(one.work for batch in found for one in batch) == Counter(range(len(asked)))
    for batch in found:
        assert len(batch) <= most and len({one.key for one in batch}) == 1
        assert batch[0].key is not ALONE or len(batch) == 1
    for caller in "abc":
        for key in ("x", "y", None):
            mine = [one.work for batch in found for one in batch if (one.caller, one.key) == (caller, key)]
            assert mine == sorted(mine)


def test_what_nobody_waits_for_makes_room():
    queue = Queue(3)
    left = [job("gone", work=number) for number in range(3)]
    for one in left:
        queue.put(one)
    with pytest.raises(BusyError):
        queue.put(job("a"))
    left[0].gone.set()
    left[2].until = 0.0
    queue.put(job("a", work="mine"))
    queue.put(job("a", work="too"))
    with pytest.raises(BusyError):
        queue.put(job("a"))
    assert {one.work for batch in drained(queue, 1) for one in batch} == {1, "mine", "too"}


def test_a_full_queue_and_a_closed_one_refuse():
    queue = Queue(2)
    queue.put(job("a"))
    queue.put(job("b"))
    with pytest.raises(BusyError, match="2 requests are waiting") as caught:
        queue.put(job("c"))
    assert caught.value.after > 0
    queue.close()
    with pytest.raises(StoppedError):
        queue.put(job("c"))
    assert len(drained(queue, 1)) == 2, "what waits is still given out"


@pytest.fixture
def engine():
    made = []

    def of(run, most=16, limit=100):
        found = Engine(run, Queue(limit), most)
        made.append(found)
        return found

    yield of
    for one in made:
        one.stop(5)


def doubled(jobs):
    return [Outcome((("answer", 2 * one.work),)) for one in jobs]


def asked(engine, caller, work, key="k", until=NEVER):
    waiting = Waiting()
    one = Job(caller, key, work, waiting, until)
    engine.queue.put(one)
    return waiting, one


def test_jobs_are_answered_each_with_its_own(engine):
    made = engine(doubled)
    waiting = [asked(made, f"c{number % 5}", number) for number in range(50)]
    made.start()
    for number, (one, _) in enumerate(waiting):
        assert one.result() == [("answer", 2 * number), (DONE, None)]
    assert made.jobs == 50 and made.batches < 10


def test_one_bad_request_fails_alone(engine):
    def run(jobs):
        if any(one.work == "bad" for one in jobs):
            raise ValueError("inside the model")
        return doubled(jobs)

    made = engine(run)
    waiting = [asked(made, f"c{number}", work)[0] for number, work in enumerate([1, 2, "bad", 3])]
    made.start()
    assert [one.result()[0][0] for one in waiting] == ["answer", "answer", ERROR, "answer"]
    assert str(waiting[2].parts[0][1]) == "inside the model" and len(waiting[2].parts) == 1
    again, _ = asked(made, "c2", 4)
    assert again.result()[0] == ("answer", 8)


def test_memory_that_runs_out_for_a_batch_suffices_for_each(engine):
    def run(jobs):
        if len(jobs) > 1:
            raise MemoryError
        return doubled(jobs)

    made = engine(run)
    waiting = [asked(made, "c", number)[0] for number in range(4)]
    made.start()
    assert [one.result()[0] for one in waiting] == [("answer", 2 * number) for number in range(4)]


def test_a_job_of_several_parts_goes_on_after_others_and_tells_each_part_once(engine):
    order = []

    def run(jobs):
        order.append([one.work for one in jobs])
        return [
            Outcome((("answer", one.work),), ("second", "controls"))
            if one.work == "real"
            else Outcome((("part", one.work),))
            for one in jobs
        ]

    made = engine(run)
    long, _ = asked(made, "a", "real", key="first")
    short, _ = asked(made, "b", "plain", key=ALONE)
    made.start()
    assert long.result() == [("answer", "real"), ("part", "controls"), (DONE, None)]
    assert short.result() == [("part", "plain"), (DONE, None)]
    assert order == [["real"], ["plain"], ["controls"]], "the other caller's turn came between"


def test_who_has_gone_and_what_is_late_costs_no_run(engine):
    seen = []

    def run(jobs):
        seen.extend(one.work for one in jobs)
        return doubled(jobs)

    made = engine(run)
    gone, one = asked(made, "a", 1)
    one.gone.set()
    late, _ = asked(made, "a", 2, until=time.monotonic() - 1)
    fine, _ = asked(made, "a", 3)
    made.start()
    assert fine.result()[0] == ("answer", 6) and seen == [3]
    assert isinstance(gone.result()[0][1], StoppedError) and isinstance(late.result()[0][1], LateError)


def test_a_waiting_side_that_breaks_harms_no_other(engine):
    made = engine(doubled)

    def broken(what, value):
        raise RuntimeError("the client vanished")

    made.queue.put(Job("a", "k", 1, broken, NEVER))
    fine, _ = asked(made, "b", 2)
    made.start()
    assert fine.result()[0] == ("answer", 4)


def test_stopping_finishes_what_there_is_time_for_and_tells_the_rest():
    held = threading.Event()

    def run(jobs):
        held.wait(0.5)
        return doubled(jobs)

    made = Engine(run, Queue(100), most=1)
    waiting = [asked(made, "a", number)[0] for number in range(50)]
    made.start()
    began = time.monotonic()
    made.stop(1.2)
    assert time.monotonic() - began < 3
    ends = [one.result(2)[-1][0] for one in waiting]
    assert ends[0] == DONE and ends[-1] == ERROR and isinstance(waiting[-1].parts[-1][1], StoppedError)
    with pytest.raises(StoppedError):
        asked(made, "a", 1)
    held.set()


def test_stopping_with_little_to_do_does_it_all():
    made = Engine(doubled, Queue(10))
    waiting = [asked(made, "a", number)[0] for number in range(5)]
    made.start()
    made.stop(10)
    assert all(one.result()[-1] == (DONE, None) for one in waiting)
