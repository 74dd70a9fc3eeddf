"""Kept activations, limits and tokens: bounded, each caller's own, refused alike."""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from augury.activations import Activations, Provenance
from augury.errors import AccessError, FormatError, NotFoundError
from augury.server.auth import LOCAL, Callers, is_loopback, read_tokens
from augury.server.limits import Gate, Limits
from augury.server.refused import BusyError
from augury.server.store import OVERHEAD, Store, bytes_of


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


SIZE = 64 + OVERHEAD


def acts(positions: int = 2, width: int = 8) -> Activations:
    return Activations(torch.randn(1, positions, width), (3,), tuple(range(positions)), None, Provenance(None))


def small(**changed) -> Limits:
    return Limits(**{"caller_bytes": 4 * SIZE, "store_bytes": 9 * SIZE + 100, "kept_seconds": 10.0, **changed})


def test_each_caller_gets_back_its_own_and_no_other_does():
    store, one = Store(Limits()), acts()
    handle = store.put("a", one)
    assert store.get("a", handle) is one and len(handle) >= 32
    told = []
    for owner, name in (("b", handle), ("a", handle + "x"), ("a", ""), ("ax", handle[1:]), ("", f"a{handle}")):
        with pytest.raises(NotFoundError) as caught:
            store.get(owner, name)
        told.append(str(caught.value))
        with pytest.raises(NotFoundError):
            store.drop(owner, name)
    assert len(set(told)) == 1, "nothing tells a handle of another's from one that never was"
    store.drop("a", handle)
    with pytest.raises(NotFoundError):
        store.get("a", handle)
    assert len({store.put("a", acts()) for _ in range(50)}) == 50


def test_what_was_used_lives_on_and_the_rest_ends():
    clock = Clock()
    store = Store(small(), clock)
    used, left = store.put("a", acts()), store.put("a", acts())
    clock.now += 9
    store.get("a", used)
    clock.now += 2
    store.get("a", used)
    with pytest.raises(NotFoundError):
        store.get("a", left)
    assert len(store) == 1
    clock.now += 11
    assert store.size == 0 and len(store) == 0


def test_a_full_store_refuses_and_forgets_nothing():
    clock = Clock()
    store = Store(small(), clock)
    size = bytes_of(acts())
    assert size == SIZE
    handles = [store.put("a", acts()) for _ in range(4)]
    clock.now += 3
    with pytest.raises(BusyError, match="your") as caught:
        store.put("a", acts())
    assert caught.value.after == pytest.approx(7)
    others = [store.put(f"c{i}", acts()) for i in range(5)]
    with pytest.raises(BusyError, match="the service's"):
        store.put("last", acts())
    with pytest.raises(BusyError, match="too many to keep"):
        store.put("new", acts(positions=600))
    assert all(store.get("a", handle) is not None for handle in handles) and len(others) == 5
    store.drop("a", handles[0])
    store.put("a", acts())


def test_requests_come_in_at_the_rate_that_is_allowed():
    clock = Clock()
    gate = Gate(Limits(per_minute=60, burst=3, at_once=2), clock)
    with gate.through("a"), gate.through("a"):
        with pytest.raises(BusyError, match="2 of your requests"), gate.through("a"):
            pass
        with gate.through("b"):
            pass
    with gate.through("a"):
        pass
    with pytest.raises(BusyError, match="60 a minute") as caught, gate.through("a"):
        pass
    assert caught.value.after == pytest.approx(1)
    clock.now += 1
    with gate.through("a"):
        pass
    clock.now += 1000
    for _ in range(3):
        with gate.through("a"):
            pass
    with pytest.raises(BusyError), gate.through("a"):
        pass


def test_a_request_that_fails_is_over_too():
    gate = Gate(Limits(at_once=1))
    for _ in range(3):
        with pytest.raises(ValueError, match="inside"), gate.through("a"):
            raise ValueError("inside")


@pytest.fixture
def tokens(tmp_path):
    def of(text: str, mode: int = 0o600):
        path = tmp_path / "tokens"
        path.write_text(text)
        path.chmod(mode)
        return path

    return of


FIRST, SECOND = "first-token-of-two", "second-token-of-two"


def test_tokens_of_a_file(tokens):
    callers = read_tokens(tokens(f"# who may\n\nana: {FIRST}\nben.2:{SECOND}\n"))
    assert callers.who(f"Bearer {FIRST}") == "ana" and callers.who(f"bearer {SECOND} ") == "ben.2"
    assert FIRST not in repr(callers)
    told = set()
    for header in (
        None,
        "",
        "Bearer ",
        f"Bearer {FIRST}x",
        FIRST,
        f"Basic {FIRST}",
        f"Bearer ana: {FIRST}",
        "Bearer é",
    ):
        with pytest.raises(AccessError) as caught:
            callers.who(header)
        told.add(str(caught.value))
    assert len(told) == 1, "all refusals are alike"
    assert Callers().who(None) == LOCAL


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no line"),
        (FIRST, "not `name: token`"),
        ("ana: short", "fewer than 16"),
        (f"a b: {FIRST}", "not `name: token`"),
        (f"ana: {FIRST}\nana: {SECOND}", "above already"),
        (f"ana: {FIRST}\nben: {FIRST}", "above already"),
        ("ana: sixteen characters and spaces", "a space"),
    ],
)
def test_a_file_of_no_tokens_is_refused_without_telling_them(tokens, text, told):
    with pytest.raises(FormatError, match=told) as caught:
        read_tokens(tokens(text))
    assert FIRST not in str(caught.value) and SECOND not in str(caught.value)


def test_a_file_that_others_may_read_is_refused(tokens, tmp_path):
    with pytest.raises(AccessError, match="chmod 600"):
        read_tokens(tokens(f"ana: {FIRST}", 0o644))
    with pytest.raises(NotFoundError):
        read_tokens(tmp_path / "none")


def test_a_wrong_token_takes_as_long_as_a_nearly_right_one():
    """Every known token's digest is compared whole: where a wrong one differs cannot be timed."""
    callers = Callers(tuple((f"c{i}", bytes([i]) * 32) for i in range(200)))

    def spent(token: str) -> float:
        began = time.perf_counter()
        for _ in range(20):
            with pytest.raises(AccessError):
                callers.who(f"Bearer {token}")
        return time.perf_counter() - began

    rows = [(spent(f"{FIRST}x"), spent("!" * len(f"{FIRST}x"))) for _ in range(15)]
    near, far = (statistics.median(row[i] for row in rows) for i in (0, 1))
    assert 0.5 < near / far < 2


@given(st.text(max_size=40))
def test_no_text_is_a_token_but_the_token(text):
    callers = Callers((("ana", b"\0" * 32),))
    with pytest.raises(AccessError):
        callers.who(text)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("[::1]", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("192.168.1.2", False), ("example.org", False), ("localhost.example.org", False), ("", False)],
)  # fmt: skip
def test_which_addresses_only_this_machine_reaches(host, expected):
    assert is_loopback(host) is expected
