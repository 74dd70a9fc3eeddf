"""The client of endpoints: every fault is retried or told, every reply kept, and nothing asked twice."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

import augury.data.endpoint as endpoint_module
from augury.data.endpoint import open_endpoint
from augury.data.requests import EndpointSettings, Prices, Request
from augury.errors import FormatError, InputError, NetworkError, NotFoundError, StorageError
from augury.lm.chat import Message
from tests.scripted import Fault, completion, scripted

KEY = "sk-secret-123"


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    """The library waits half a second and more between tries."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(endpoint_module, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("AUGURY_TEST_KEY", KEY)


@pytest.fixture
def server():
    with scripted(lambda body: completion(f"re: {body['messages'][-1]['content']}")) as found:
        yield found


def settings(server, **changes) -> EndpointSettings:
    found = {"url": server.url, "model": "m", "key_env": "AUGURY_TEST_KEY", "retries": 2, "timeout_s": 5}
    return EndpointSettings.model_validate({**found, **changes})


def say(text: str, **changes) -> Request:
    return Request((Message("user", text),), **changes)


def ask(server, path, *texts, **changes) -> list[str]:
    with open_endpoint(settings(server, **changes), path) as endpoint:
        return [reply.text for reply in endpoint.ask_all(map(say, texts))]


def test_what_is_sent(server, tmp_path):
    with open_endpoint(settings(server, max_tokens=7), tmp_path / "r.jsonl") as endpoint:
        endpoint.ask(say("a"))
        endpoint.ask(say("b", temperature=0.5, max_tokens=9, top_p=0.9, seed=3, extra={"logprobs": True}))
    message = [{"role": "user", "content": "a"}]
    assert server.bodies[0] == {"model": "m", "messages": message, "temperature": 0.0, "max_tokens": 7}
    rest = {key: value for key, value in server.bodies[1].items() if key not in ("model", "messages")}
    assert rest == {"temperature": 0.5, "max_tokens": 9, "top_p": 0.9, "seed": 3, "logprobs": True}
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_replies_are_kept_raw_under_the_hash_of_the_request_and_without_the_key(server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    ask(server, tmp_path / "r.jsonl", "a", "b", concurrency=1)
    written = (tmp_path / "r.jsonl").read_text()
    for line, body in zip(map(json.loads, written.splitlines()), server.bodies, strict=True):
        digest = hashlib.sha256(json.dumps(line["request"], sort_keys=True, ensure_ascii=False).encode()).hexdigest()
        assert (line["key"], line["request"]) == (digest, body)
        assert line["reply"]["choices"][0]["message"]["content"] == f"re: {body['messages'][0]['content']}"
    assert KEY not in written and KEY not in caplog.text


def test_nothing_is_asked_twice(server, tmp_path):
    first = ask(server, tmp_path / "r.jsonl", "a", "b", "a")
    assert ask(server, tmp_path / "r.jsonl", "b", "c") == ["re: b", "re: c"]
    assert first == ["re: a", "re: b", "re: a"]
    assert sorted(body["messages"][0]["content"] for body in server.bodies) == ["a", "b", "c"]


@pytest.mark.parametrize("other", [{"model": "n"}, {"temperature": 1.0}, {"max_tokens": 8}])
def test_another_request_is_another_key(server, tmp_path, other):
    ask(server, tmp_path / "r.jsonl", "a")
    ask(server, tmp_path / "r.jsonl", "a", **other)
    assert len(server.bodies) == 2


def test_equal_requests_at_once_are_one(server, tmp_path):
    server.answer = lambda body: time.sleep(0.2) or completion("slow")
    with open_endpoint(settings(server), tmp_path / "r.jsonl") as endpoint, ThreadPoolExecutor(8) as pool:
        assert {reply.text for reply in pool.map(endpoint.ask, [say("a")] * 8)} == {"slow"}
    assert len(server.bodies) == 1


def test_calls_tokens_and_cost_are_counted(server, tmp_path):
    prices = Prices(prompt=2, completion=30)
    ask(server, tmp_path / "r.jsonl", "old")
    with open_endpoint(settings(server, prices=prices), tmp_path / "r.jsonl") as endpoint:
        list(endpoint.ask_all(map(say, ["old", "one", "two"])))
        usage = endpoint.usage
    assert (usage.calls, usage.kept, usage.prompt_tokens, usage.completion_tokens) == (2, 1, 20, 4)
    assert usage.cost == pytest.approx((20 * 2 + 4 * 30) / 1e6)


def test_no_more_at_once_than_allowed_and_in_order(server, tmp_path):
    server.answer = lambda body: time.sleep(0.03) or completion(body["messages"][0]["content"])
    texts = [str(i) for i in range(24)]
    assert ask(server, tmp_path / "r.jsonl", *texts, concurrency=3) == texts
    assert server.most_at_once == 3


def test_items_are_streamed(server, tmp_path):
    """An endless list of requests can be asked a few at a time."""
    with open_endpoint(settings(server, concurrency=2), tmp_path / "r.jsonl") as endpoint:
        taken = []
        endless = (taken.append(i) or say(str(i)) for i in range(10**9))
        replies = endpoint.ask_all(endless)
        assert [next(replies).text for _ in range(3)] == ["re: 0", "re: 1", "re: 2"]
        replies.close()
    assert len(taken) <= 2 * 2 + 3 and len(server.bodies) <= len(taken)


FAULTS = {
    "429": Fault(429, headers={"Retry-After": "1"}),
    "500": Fault(500),
    "503": Fault(503),
    "garbage": Fault(body="<html>proxy</html>"),
    "no completion": Fault(body='{"choices": []}'),
    "dropped": Fault(body='{"choices"', drop=True),
    "slow": Fault(wait_s=0.8),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_retried(server, tmp_path, name):
    server.faults.append(FAULTS[name])
    timeout = 0.4 if name == "slow" else 5
    assert ask(server, tmp_path / "r.jsonl", "a", timeout_s=timeout) == ["re: a"]
    assert len(server.bodies) == 2
    waited = server.times[1] - server.times[0]
    assert waited >= 1 if name == "429" else waited < 0.9


@pytest.mark.parametrize(
    ("fault", "error", "what", "calls"),
    [
        (Fault(429), NetworkError, "gives no reply", 3),
        (Fault(500), NetworkError, "gives no reply", 3),
        (Fault(body="garbage"), NetworkError, "replies that are none", 3),
        (Fault(body='{"choices"', drop=True), NetworkError, "cannot be reached", 3),
        (Fault(401, '{"error": {"message": "no such key: sk-secret-123"}}'), NetworkError, "refuses the key", 1),
        (Fault(404, '{"error": {"message": "unknown model"}}'), NotFoundError, "has no m", 1),
        (Fault(400, '{"error": {"message": "max_tokens"}}'), InputError, "does not take the request", 1),
        (Fault(422, '{"detail": "max_tokens"}'), InputError, "does not take the request", 1),
    ],
)
def test_what_stays_is_told_with_what_is_kept(server, tmp_path, fault, error, what, calls):
    ask(server, tmp_path / "r.jsonl", "a", "b")
    server.faults.extend([fault] * 9)
    with pytest.raises(error) as caught:
        ask(server, tmp_path / "r.jsonl", "a", "c")
    said = str(caught.value)
    assert what in said and server.url in said and KEY not in said
    assert f"2 replies are kept in {tmp_path / 'r.jsonl'}" in caught.value.instead
    assert len(server.bodies) == 2 + calls
    server.faults.clear()
    assert ask(server, tmp_path / "r.jsonl", "a", "c") == ["re: a", "re: c"]


def test_a_server_that_is_not_there(tmp_path):
    with scripted() as gone:
        pass
    with pytest.raises(NetworkError, match=r"(?s)cannot be reached.*after 1 retries.*instead: start it"):
        ask(gone, tmp_path / "r.jsonl", "a", retries=1)


def test_a_missing_key_is_named(server, tmp_path, monkeypatch):
    monkeypatch.delenv("AUGURY_TEST_KEY")
    assert ask(server, tmp_path / "r.jsonl", "a") == ["re: a"]
    server.faults.append(Fault(401))
    with pytest.raises(NetworkError, match="AUGURY_TEST_KEY is not set"):
        ask(server, tmp_path / "r.jsonl", "b")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://me:pw@host/v1", "http://host/v1?key=1"])
def test_urls_that_are_none_or_hold_a_secret(url):
    with pytest.raises(ValidationError, match=r"http://|key_env"):
        EndpointSettings(url=url, model="m")


def test_without_the_library(server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(InputError, match=r"pip install 'augury.train.'"):
        ask(server, tmp_path / "r.jsonl", "a")


@pytest.mark.parametrize("torn", ['{"key": "ab', "\x00\x00", '{"key": 1}'])
def test_a_torn_last_line_is_asked_again(server, tmp_path, torn):
    ask(server, tmp_path / "r.jsonl", "a")
    path = tmp_path / "r.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + torn.encode())
    assert ask(server, path, "a", "b") == ["re: a", "re: b"]
    assert len(server.bodies) == 2
    assert path.read_bytes().startswith(whole) and len(path.read_bytes().splitlines()) == 2
    assert ask(server, path, "a", "b") == ["re: a", "re: b"] and len(server.bodies) == 2


@pytest.mark.parametrize("bad", ["{", '{"key": "a", "request": {}, "reply": {}}', "[]", '{"key": 1}'])
def test_a_bad_line_is_told(server, tmp_path, bad):
    path = tmp_path / "r.jsonl"
    ask(server, path, "a")
    path.write_text(f"{bad}\n{path.read_text()}")
    with pytest.raises(FormatError, match=r"Line 1 of .*r.jsonl"):
        ask(server, path, "a")


def test_a_full_disk_leaves_whole_lines(server, tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    with open_endpoint(settings(server), path) as endpoint:
        endpoint.ask(say("a"))
        out = endpoint._replies._out

        class Full:
            truncate = out.truncate

            def write(self, line):
                return out.write(line[:9])

        monkeypatch.setattr(endpoint._replies, "_out", Full())
        with pytest.raises(StorageError, match=r"r.jsonl could not be written"):
            endpoint.ask(say("b"))
        monkeypatch.setattr(endpoint._replies, "_out", out)
        endpoint.ask(say("c"))
    assert [json.loads(line)["request"]["messages"][0]["content"] for line in path.read_text().splitlines()] == [
        "a",
        "c",
    ]


KILLED = """
import sys
from augury.data.endpoint import open_endpoint
from augury.data.requests import EndpointSettings, Request
from augury.lm.chat import Message
from pathlib import Path
with open_endpoint(EndpointSettings(url=sys.argv[1], model="m", concurrency=2), Path(sys.argv[2])) as endpoint:
    for reply in endpoint.ask_all(Request((Message("user", str(i)),)) for i in range(40)):
        pass
"""


def test_a_killed_run_goes_on_without_asking_again(server, tmp_path):
    server.answer = lambda body: time.sleep(0.02) or completion(body["messages"][0]["content"])
    path = tmp_path / "r.jsonl"
    running = subprocess.Popen([sys.executable, "-c", KILLED, server.url, str(path)])
    while not path.exists() or path.read_bytes().count(b"\n") < 9:
        assert running.poll() is None
        time.sleep(0.005)
    running.kill()
    running.wait()
    time.sleep(0.1)
    kept = {json.loads(line)["request"]["messages"][0]["content"] for line in path.read_bytes().splitlines(True)[:-1]}
    before = len(server.bodies)
    ask(server, path, *map(str, range(40)), key_env=None, max_tokens=512)
    again = [body["messages"][0]["content"] for body in server.bodies[before:]]
    assert len(kept) >= 8 and not kept & set(again) and 40 - len(kept) - 1 <= len(again) == len(set(again)) < 40
