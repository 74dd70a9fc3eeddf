"""Whatever is sent is refused in three parts or answered as the service's page says; and nobody learns a secret."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx2
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from augury.errors import AccessError
from augury.server.auth import Callers, read_tokens
from augury.server.events import EVENTS
from augury.server.limits import Limits
from augury.server.service import Service
from tests.unit.server.test_app import ANA, BEN, TEXT, bearer, plain, serving

REFUSAL = {"code", "what", "why", "instead"}
SMALL = Limits(per_minute=1e6, burst=100_000, at_once=100, context_tokens=64, questions=8, samples=2, new_tokens=4)
EXAMPLES, LEAST = 50, 500
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
ASKING = ("/v1/ask", "/v1/score", "/v1/scan")


@pytest.fixture(scope="module")
def service(oracle) -> Service:
    return Service({"base": oracle.base}, {"o": oracle}, SMALL)


@pytest.fixture(scope="module")
def expected(oracle) -> str:
    """Before the service has the model."""
    return oracle.ask(TEXT, "What?", max_new_tokens=4).text


@pytest.fixture(scope="module")
def url(service, expected):
    with serving(service) as found:
        yield found


def readable(case: Any, handle: str, how: str) -> None:
    """Put something that can be read into a question, so that what stands beside it is looked at."""
    if how == "as it is" or not isinstance(case.body, dict):
        return
    if how == "tame":
        for name in ("oracle", "target", "samples", "coefficient", "layers", "positions"):
            case.body.pop(name, None)
        if case.operation.path in ("/v1/ask", "/v1/generate"):
            case.body["max_new_tokens"] = 2
    if case.operation.path in ASKING:
        case.body["reading"] = {"handle": handle} if how == "handle" else {"context": {"text": TEXT}}
    elif "context" in case.body:
        case.body["context"] = {"text": TEXT}
    elif case.operation.path == "/v1/diff":
        case.body.update(finetuned=handle, base=handle)


def streamed(text: str, page: dict[str, Any]) -> None:
    """Every event is of the form that the page gives to its name, and the last one ends the stream."""
    names = []
    for event in text.strip().split("\n\n"):
        name, data = (line.partition(": ")[2] for line in event.split("\n"))
        schema = {"$ref": f"#/components/schemas/{EVENTS[name].__name__}", "components": page["components"]}
        jsonschema_rs.validate(schema, json.loads(data))
        names.append(name)
    assert names[-1] in ("done", "error"), names
    assert not {"done", "error"} & set(names[:-1])


def test_every_request_of_the_page_is_answered_as_it_says(url, service, expected):
    page = httpx2.get(f"{url}/v1/openapi.json").json()
    schema = schemathesis.openapi.from_url(f"{url}/v1/openapi.json")
    schema.config.max_stream_events = 100_000  # by itself it leaves a stream after some
    kept = httpx2.post(f"{url}/v1/capture", json={"context": {"text": TEXT}, "positions": "last 3"}).json()["handle"]
    before, handles, seen = len(service.store), 0, Counter()

    def check(case: Any) -> None:
        nonlocal handles
        response = case.call()
        seen[case.operation.path, response.status_code < 400] += 1
        if response.status_code == 200 and response.headers["content-type"][0].startswith("text/event-stream"):
            streamed(response.text, page)
            return
        case.validate_response(response, checks=CHECKS)
        if response.status_code >= 400:
            assert set(response.json()) == REFUSAL, response.text
        elif response.status_code == 200 and "handle" in response.json():
            handles += 1

    for operation in (found.ok() for found in schema.get_all_operations()):
        spoilt = operation.body and operation.path != "/v1/activations"  # any bytes are a body there
        for mode in GenerationMode if spoilt else (GenerationMode.POSITIVE,):
            run(operation.as_strategy(generation_mode=mode), kept, check)
    assert sum(seen.values()) >= LEAST, seen
    assert {path for path, good in seen if good} >= {*ASKING, "/v1/capture", "/v1/tokenize", "/v1/generate"}, seen
    assert len(service.store) == before + handles
    assert httpx2.post(f"{url}/v1/ask", json=plain(max_new_tokens=4)).json()["answers"][0]["text"] == expected


def run(cases: st.SearchStrategy[Any], handle: str, check: Any) -> None:
    """Some of these cases, the same at every run."""
    deaf = settings(
        max_examples=EXAMPLES, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip

    @deaf
    @given(cases, st.sampled_from(["as it is", "handle", "context", "tame"]))
    def each(case: Any, how: str) -> None:
        readable(case, handle, how)
        check(case)

    each()


@pytest.fixture
def known(tmp_path) -> Callers:
    path = tmp_path / "tokens"
    path.write_text(f"ana: {ANA}\nben: {BEN}\n")
    path.chmod(0o600)
    return read_tokens(path)


def same(found: list[httpx2.Response]) -> httpx2.Response:
    """One of them, where they are told alike: status, body, and headers but for the date."""
    told = {
        (one.status_code, one.content, tuple(row for row in one.headers.items() if row[0] != "date")) for one in found
    }
    assert len(told) == 1, told
    return found[0]


def test_handles_that_are_not_ones_own_are_told_alike(oracle, known):
    """Another caller's, one that never was, and one that has ended."""
    service = Service({"base": oracle.base}, {"o": oracle}, replace(SMALL, new_tokens=512))
    now = [0.0]
    service.store.clock = lambda: now[0]
    with serving(service, known, None) as url, httpx2.Client(base_url=url, headers=bearer(BEN)) as client:
        ended = client.post("/v1/capture", json={"context": {"text": TEXT}}).json()["handle"]
        now[0] = SMALL.kept_seconds + 1
        anas = client.post("/v1/capture", json={"context": {"text": TEXT}}, headers=bearer(ANA)).json()["handle"]
        names = (ended, anas, "x" * len(anas))
        for verb in ASKING:
            bodies = [{**plain(), "reading": {"handle": name}} for name in names]
            assert same([client.post(verb, json=body) for body in bodies]).status_code == 404
        assert same([client.post("/v1/diff", json={"finetuned": n, "base": "y"}) for n in names]).status_code == 404
        assert same([client.delete(f"/v1/activations/{name}") for name in names]).status_code == 404
        assert client.delete(f"/v1/activations/{anas}", headers=bearer(ANA)).status_code == 204


def test_who_is_not_known_is_told_alike(service, url, known, expected):
    wrong = [
        {},
        bearer("a-wrong-token-here"),
        bearer(ANA + "x"),
        bearer(ANA[:-1]),
        {"authorization": ANA},
        {"authorization": "Bearer"},
    ]
    with serving(Service(service.targets, service.oracles, SMALL), known, None) as place:
        for method, path in (("GET", "/v1/info"), ("POST", "/v1/ask"), ("DELETE", "/v1/activations/x"), ("GET", "/no")):
            found = [httpx2.request(method, f"{place}{path}", headers=headers) for headers in wrong]
            found.append(httpx2.request(method, f"{place}{path}?token={ANA}&authorization=Bearer%20{ANA}"))
            assert same(found).status_code == 401 and set(found[0].json()) == REFUSAL
        assert httpx2.get(f"{place}/v1/info", headers=bearer(ANA)).status_code == 200


@pytest.mark.parametrize("token", [ANA, BEN, "a-wrong-token-here", ""])
def test_every_known_token_is_compared_whichever_is_right(known, monkeypatch, token):
    compared = []

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("augury.server.auth.hmac.compare_digest", counted)
    try:
        assert known.who(f"Bearer {token}") == {ANA: "ana", BEN: "ben"}[token]
    except AccessError:
        assert token not in (ANA, BEN)
    assert compared == [digest for _, digest in known.digests]


def test_refusing_takes_no_longer_for_a_token_that_is_nearly_right(known):
    """Medians, generously: what shortens a comparison would show in ten thousands of it."""

    def median(token: str) -> float:
        times = []
        for _ in range(2000):
            began = time.perf_counter()
            with suppress(AccessError):
                known.who(f"Bearer {token}")
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    far, near = "z" * len(ANA), ANA[:-1] + "z"
    ratios = sorted(median(near) / median(far) for _ in range(3))
    assert 0.5 < ratios[1] < 2, ratios
