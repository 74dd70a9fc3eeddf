"""What an oracle runs on and what it reads: refusals, warnings, and what is skipped."""

from __future__ import annotations

from typing import Any

import pytest

from augury.contract import Contract, Injection, check_reads, check_runs_on
from augury.errors import ContractError
from tests.contracts import contract, identity


def test_the_base_itself_passes() -> None:
    assert check_runs_on(contract(), identity()) == []
    assert check_reads(contract(), identity(), (9, 18, 27), 12, pattern="contiguous") == []


COORDINATES = [
    ({"d_model": 65}, "width is 65"),
    ({"n_layers": 31}, "depth is 31"),
    ({"tokenizer_hash": "other"}, "vocabulary"),
]
OTHER_WEIGHTS = [
    ({"weights_fingerprint": "other"}, "weights"),
    ({"weights_fingerprint": "other", "name": "org/fine-tune", "revision": None}, "weights"),
]


@pytest.mark.parametrize(("changes", "why"), [*COORDINATES, *OTHER_WEIGHTS])
def test_runs_on_refuses(changes: dict[str, Any], why: str) -> None:
    other = identity(**changes)
    with pytest.raises(ContractError, match=why) as caught:
        check_runs_on(contract(), other)
    assert "org/base at revision r1" in caught.value.instead
    with pytest.warns(UserWarning, match=why):
        assert why in check_runs_on(contract(), other, off_contract=True)[0]


@pytest.mark.parametrize("revision", ["r2", None])
def test_another_revision_of_the_base_is_a_warning(revision: str | None) -> None:
    """The bundled weights and the hub's are two revisions of one model."""
    notes = check_runs_on(contract(), identity(revision=revision, weights_fingerprint="other", name="Org/Base"))
    assert len(notes) == 1 and "other weights" in notes[0]


def test_another_name_with_the_same_weights_passes() -> None:
    assert check_runs_on(contract(), identity(name="/models/copy", revision=None)) == []


def test_another_name_with_unknown_weights_is_told() -> None:
    notes = check_runs_on(contract(), identity(name="org/other", weights_fingerprint=None))
    assert any("org/other" in note for note in notes)


def test_another_chat_template_is_a_warning() -> None:
    other = identity(chat_template_hash="other")
    for notes in (check_runs_on(contract(), other), check_reads(contract(), other, (18,), 1)):
        assert len(notes) == 1 and "chat template" in notes[0]


def test_what_is_not_stated_is_skipped_in_one_line() -> None:
    bare = Contract(injection=Injection())
    (note,) = check_runs_on(bare, identity())
    for field in ("d_model", "n_layers", "tokenizer_hash", "weights_fingerprint"):
        assert field in note


@pytest.mark.parametrize(("changes", "why"), COORDINATES)
def test_reads_refuses_other_coordinates(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ContractError, match=why):
        check_reads(contract(), identity(**changes), (18,), 1)


def test_reads_a_fine_tune() -> None:
    tuned = identity(name="org/fine-tune", revision=None, weights_fingerprint="tuned")
    assert check_reads(contract(), tuned, (18,), 1) == []


@pytest.mark.parametrize("layers", [(17,), (9, 18), (27, 18, 9)])
def test_reads_refuses_untrained_layers(layers: tuple[int, ...]) -> None:
    with pytest.raises(ContractError) as caught:
        check_reads(contract(), identity(), layers, 1)
    assert str(list(layers)) in caught.value.why
    assert "[18], [9, 18, 27]" in caught.value.instead
    with pytest.warns(UserWarning, match="not trained on layers"):
        assert check_reads(contract(), identity(), layers, 1, off_contract=True)


def test_all_refusals_at_once() -> None:
    with pytest.raises(ContractError) as caught:
        check_reads(contract(), identity(d_model=1, n_layers=2), (3,), 1)
    assert all(why in caught.value.why for why in ("width", "depth", "layers [3]"))


def test_more_slots_or_another_pattern_is_a_warning() -> None:
    assert check_reads(contract(), identity(), (18,), 16) == []
    assert "17 slots" in check_reads(contract(), identity(), (18,), 17)[0]
    assert "scattered" in check_reads(contract(), identity(), (18,), 1, pattern="scattered")[0]


def test_a_bare_tensor_and_a_bare_contract() -> None:
    notes = check_reads(contract(layers=None, positions=None), None, (3,), 500)
    assert len(notes) == 3 and all(note.startswith("not checked") for note in notes)
