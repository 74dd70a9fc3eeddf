"""Faults over real sockets: after each the next request is right, and the model is as it was."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import httpx2
import pytest
import torch
import uvicorn
from peft.tuners.tuners_utils import BaseTunerLayer

from augury.oracle import Oracle, load_oracle
from augury.server.app import READ, make_app
from augury.server.auth import Callers
from augury.server.engine import Engine
from augury.server.limits import Limits
from augury.server.queue import Job, Queue
from augury.server.run import Server
from augury.server.service import Service
from tests.cli.conftest import tiny
from tests.unit.server.test_app import TEXT, events, plain

__all__ = ["tiny"]
OTHERS = ("A baker gets up early.", "The moon is far.", "Iron rusts in rain.")
LONG = " ".join(f"word{number}" for number in range(60))
REFUSAL = {"code", "what", "why", "instead"}


def state(lm) -> dict[str, object]:
    """What a fault must leave as it was: hooks, adapters, modes, and what is trained."""
    found: dict[str, object] = {}
    for name, module in lm.model.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        found[name] = (module.training, *(tuple(kind) for kind in hooks))
        if isinstance(module, BaseTunerLayer):
            found[f"{name} adapters"] = (module.disable_adapters, tuple(module.active_adapters), tuple(module.lora_A))
    return found | {f"{name} grad": one.requires_grad for name, one in lm.model.named_parameters()}


@dataclass
class At:
    """A service that runs, and where."""

    service: Service
    server: Server
    url: str

    def post(self, path: str, body: dict, **settings) -> httpx2.Response:
        return httpx2.post(f"{self.url}/v1/{path}", json=body, timeout=60, **settings)

    def capture(self, text: str = TEXT) -> httpx2.Response:
        return self.post("capture", {"context": {"text": text}, "positions": "last 8"})

    def text(self, context: str = TEXT) -> str:
        found = self.post("ask", asked(context))
        assert found.status_code == 200, found.text
        return found.json()["answers"][0]["text"]

    def idle(self, within: float = 20.0) -> None:
        """Until the engine has nothing under way."""
        until = time.monotonic() + within
        while self.service.engine._running or len(self.service.engine.queue):
            assert time.monotonic() < until, "the engine is still busy"
            time.sleep(0.02)


def asked(context: str = TEXT, **fields) -> dict:
    return {**plain(max_new_tokens=5, **fields), "reading": {"context": {"text": context}}}


@contextmanager
def listening(service: Service) -> Iterator[At]:
    """A server whose sockets hold little, so that what is not read is waited for."""
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    place.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{place.getsockname()[1]}"
    config = uvicorn.Config(make_app(service, Callers(), None), log_level="error", lifespan="on")
    server = Server(config, service)
    thread = threading.Thread(target=server.run, args=([place],), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield At(service, server, url)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def right(oracle: Oracle) -> dict[str, str]:
    """What the oracle answers here, before any service has its model."""
    return {text: oracle.ask(text, "What?", max_new_tokens=5).text for text in (TEXT, *OTHERS)}


@pytest.fixture
def whole(oracle: Oracle, right):
    """A service with these limits; after the block the next request is right, and the model is as before."""

    @contextmanager
    def of(**limits) -> Iterator[At]:
        before = state(oracle.lm)
        given = {"per_minute": 1e6, "burst": 1000, "at_once": 100, **limits}
        service = Service({"base": oracle.base}, {"o": oracle}, Limits(**given))
        with listening(service) as at:
            yield at
            at.idle()
            assert at.text() == right[TEXT]
        assert state(oracle.lm) == before

    return of


@contextmanager
def hooked(oracle: Oracle, does) -> Iterator[None]:
    """Something that happens in a block of the model at every pass."""
    handle = oracle.base.blocks[1].register_forward_pre_hook(lambda module, args: does())
    try:
        yield
    finally:
        handle.remove()


def once(error: BaseException):
    left = [error]

    def does() -> None:
        if left:
            raise left.pop()

    return does


def scanned(questions: int = 12, text: str = LONG) -> dict:
    found = {**plain(stream=True), "reading": {"context": {"text": text}}, "donors": 0}
    return {**found, "questions": [f"Is it {number}?" for number in range(questions)]}


def test_a_client_that_vanishes_in_mid_stream(whole, oracle):
    with whole() as at:
        with hooked(oracle, lambda: time.sleep(0.02)):
            with httpx2.Client(timeout=30) as client, client.stream("POST", f"{at.url}/v1/scan", json=scanned()) as got:
                assert next(line for line in got.iter_lines() if line == "event: scan")
            began = at.service.engine.batches
            at.idle(3)
        assert at.service.engine.batches - began <= 2, "nobody waited for the other questions"


def slow_reader(at: At, body: dict) -> socket.socket:
    """A client that takes what it is sent in drops."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    found.connect(("127.0.0.1", int(at.url.rpartition(":")[2])))
    text = json.dumps(body).encode()
    head = f"POST /v1/scan HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    found.sendall(head.encode() + text)
    return found


def test_a_slow_reader_holds_up_nobody_and_ends(whole, oracle, right):
    with whole(seconds=5.0) as at:
        began, held, answered = time.monotonic(), [], 0
        with slow_reader(at, scanned(32)) as reader:
            while time.monotonic() - began < 5 + READ + 1:
                assert len(reader.recv(1)) == 1
                if answered < 3:
                    assert at.text(OTHERS[0]) == right[OTHERS[0]]
                    answered += 1
                held += [one.transport.get_write_buffer_size() for one in at.server.server_state.connections]
                time.sleep(0.5)
            assert answered == 3 and 2**16 < max(held) < 2**18, "it waited until some of it was read"
            at.idle(1)
            assert not at.service.gate._callers["local"].running, "its place among its caller's requests is free"


@pytest.mark.parametrize("stream", [False, True])
def test_what_raises_inside_the_model_is_told(whole, oracle, stream):
    with whole() as at, hooked(oracle, once(RuntimeError("/a/secret"))):
        found = at.post("ask", asked(stream=stream))
        assert found.status_code == 500 and set(found.json()) == REFUSAL and "secret" not in found.text


def test_what_raises_for_a_batch_fails_for_nobody(whole, oracle, right):
    """The batch is run again one by one, and the fault was once."""
    with whole() as at:
        sizes = together(at, len(right))
        with hooked(oracle, once(RuntimeError("once"))), ThreadPoolExecutor(len(right)) as pool:
            assert dict(zip(right, pool.map(at.text, right), strict=True)) == right
        assert sizes[: len(right) + 1] == [len(right)] + [1] * len(right)


def together(at: At, number: int) -> list[int]:
    """Let the engine take nothing before so many wait; the sizes of its batches."""
    engine, sizes = at.service.engine, []
    take, plain_run = engine.queue.take, engine.run

    def taken(most, timeout=None):
        if not sizes and len(engine.queue) < number:
            time.sleep(0.01)
            return []
        return take(most, timeout)

    def run(jobs):
        sizes.append(len(jobs))
        return plain_run(jobs)

    engine.queue.take, engine.run = taken, run
    time.sleep(0.4)  # it may be taking already, as before
    return sizes


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_memory_that_runs_out_at_a_capture(whole, oracle, error):
    with whole() as at, hooked(oracle, once(error)):
        found = at.capture()
        assert found.status_code == 507 and set(found.json()) == REFUSAL
        assert len(at.service.store) == 0


def test_what_failed_holds_no_memory():
    """Neither while a batch is run again one by one, nor by the error that is told, which lives with its reply."""
    kept: list[weakref.ref] = []
    alive, told = [], []

    def run(jobs):
        alive.extend(one() is not None for one in kept)
        large = torch.zeros(1)
        kept.append(weakref.ref(large))
        raise MemoryError from RuntimeError("inside")

    engine = Engine(run, Queue(10))
    for caller in "ab":
        engine.queue.put(Job(caller, "k", None, lambda what, value: told.append(value), 1e18))
    engine.start()
    engine.stop(10)
    assert len(told) == 2 and len(alive) == 3 and not any(alive) and all(one() is None for one in kept)


def test_a_full_store_has_room_after_something_is_deleted(whole):
    with whole() as at:
        size = at.capture().json()["bytes"]
    with whole(caller_bytes=2 * size + size // 2) as at:
        first, _, third = (at.capture() for _ in range(3))
        assert third.status_code == 429 and set(third.json()) == REFUSAL and int(third.headers["retry-after"]) > 0
        handle = first.json()["handle"]
        assert httpx2.delete(f"{at.url}/v1/activations/{handle}").status_code == 204
        assert at.capture().status_code == 200
        assert at.capture().status_code == 429


def test_a_handle_that_ends_under_a_request(whole, oracle, right):
    with whole() as at:
        now = [0.0]
        at.service.store.clock = lambda: now[0]
        body = {**asked(), "reading": {"handle": at.capture().json()["handle"]}}
        entered, go_on = threading.Event(), threading.Event()

        def does() -> None:
            entered.set()
            go_on.wait(20)

        with hooked(oracle, does), ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(at.post, "ask", body)
            assert entered.wait(20)
            now[0] = 1e6
            assert len(at.service.store) == 0
            go_on.set()
            assert under_way.result().json()["answers"][0]["text"] == right[TEXT]
        found = at.post("ask", body)
        assert found.status_code == 404 and set(found.json()) == REFUSAL


def test_a_full_queue(whole, oracle, right):
    with whole(queued=2) as at:
        entered, go_on = threading.Event(), threading.Event()

        def does() -> None:
            entered.set()
            go_on.wait(20)

        with hooked(oracle, does), ThreadPoolExecutor(3) as pool:
            accepted = [pool.submit(at.text, OTHERS[0])]
            assert entered.wait(20)
            accepted += [pool.submit(at.text, text) for text in OTHERS[1:]]
            while len(at.service.engine.queue) < 2:
                time.sleep(0.01)
            found = at.post("ask", asked())
            assert found.status_code == 429 and set(found.json()) == REFUSAL and int(found.headers["retry-after"]) > 0
            go_on.set()
            assert [one.result() for one in accepted] == [right[text] for text in OTHERS]


def test_what_is_run_when_the_time_is_over_is_told(oracle, monkeypatch):
    """A pass that never ends is not waited for, and its caller is told."""
    monkeypatch.setattr("augury.server.run.GRACE", 0.5)
    service = Service({"base": oracle.base}, {"o": oracle})
    before, entered, go_on = state(oracle.lm), threading.Event(), threading.Event()

    def does() -> None:
        entered.set()
        go_on.wait(20)

    with ThreadPoolExecutor(3) as pool, hooked(oracle, does):
        with listening(service) as at:
            running = [pool.submit(at.post, "ask", asked(text)) for text in OTHERS]
            assert entered.wait(20)
            at.server.should_exit = True
            found = [one.result(10) for one in running]
        go_on.set()
        service.engine._thread.join(20)
    assert {(one.status_code, one.json()["code"]) for one in found} == {(503, "stopped")}
    assert all(set(one.json()) == REFUSAL for one in found) and state(oracle.lm) == before


@pytest.fixture
def process(tiny, tmp_path):
    """`augury serve` for some callers."""
    tokens = tmp_path / "tokens"
    tokens.write_text("".join(f"c{number}: {bearer(number).removeprefix('Bearer ')}\n" for number in range(CALLERS)))
    tokens.chmod(0o600)
    command = [sys.executable, "-m", "augury", "serve", *tiny.options, "--port", "0", "--json"]
    places = {"AUGURY_CACHE": str(tmp_path), "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(
        [*command, "--token-file", str(tokens)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **places},
    )  # fmt: skip
    try:
        yield SimpleNamespace(process=started, url=json.loads(started.stdout.readline())["url"])
    finally:
        started.kill()


CALLERS, REQUESTS, MOST = 5, 40, 300


def bearer(number: int) -> str:
    return f"Bearer a-token-of-caller-{number % CALLERS}"


def test_stopping_a_real_process_finishes_or_tells_everyone(process, tiny):
    """Forty requests of a second each: what ten seconds do not reach is told, whole and in streams."""
    lm = tiny.lm()
    with load_oracle(tiny.oracle, lm) as oracle:
        expected = oracle.ask(TEXT, "What?", max_new_tokens=MOST).token_ids

    def ask(number: int) -> str:
        """How it ended."""
        body = {**plain(max_new_tokens=MOST - number, stream=number % 2 == 1), "donors": 0}
        body["questions"] = ["What?"] * 32
        headers, address = {"authorization": bearer(number)}, f"{process.url}/v1/ask"
        with httpx2.stream("POST", address, json=body, headers=headers, timeout=60) as response:
            if response.status_code == 200 and number % 2:
                rows = events(response)
                if rows[-1][0] == "error":
                    return told(503, rows[-1][1])
                assert rows[-1][0] == "done"
                return ends([row["answer"] for name, row in rows if name == "answer"], number)
            response.read()
            found = response.json()
            return ends(found["answers"], number) if response.status_code == 200 else told(response.status_code, found)

    def told(status: int, row: dict) -> str:
        assert set(row) == REFUSAL and (status, row["code"]) == (503, "stopped"), row
        return "told"

    def ends(rows: list[dict], number: int) -> str:
        assert len(rows) == 32 and all(row["token_ids"] == list(expected[: MOST - number]) for row in rows)
        return "answered"

    with ThreadPoolExecutor(REQUESTS) as pool:
        under_way = [pool.submit(ask, number) for number in range(REQUESTS)]
        while httpx2.get(f"{process.url}/health").json()["waiting"] < REQUESTS - 2:
            time.sleep(0.05)
        process.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        time.sleep(0.5)
        late = httpx2.post(f"{process.url}/v1/ask", json=plain(), headers={"authorization": bearer(0)})
        assert late.status_code == 503 and late.json()["code"] == "stopped" and late.headers["connection"] == "close"
        found = [one.result(30) for one in under_way]
    _, errors = process.process.communicate(timeout=30)
    assert time.monotonic() - began < 12
    assert process.process.returncode in (0, -signal.SIGTERM) and "Traceback" not in errors, errors
    assert set(found) == {"answered", "told"}


def test_ctrl_c_ends_a_process_that_has_nothing_to_do(process):
    """A connection that is kept open, and one that never sends the rest of its request, do not hold it up."""
    host, _, port = process.url.removeprefix("http://").rpartition(":")
    with httpx2.Client(base_url=process.url) as client, socket.create_connection((host, int(port))) as half:
        assert client.get("/health").status_code == 200
        half.sendall(f"POST /v1/ask HTTP/1.1\r\nhost: x\r\nauthorization: {bearer(0)}\r\n".encode())
        half.sendall(b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        time.sleep(0.3)
        process.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, errors = process.process.communicate(timeout=30)
        assert time.monotonic() - began < 5
    assert process.process.returncode in (0, -signal.SIGINT) and "Traceback" not in errors, errors
