"""`oracle.json` and its neighbours, written and read: property tests, damaged files, unknown fields."""

from __future__ import annotations

import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augury.contract import (
    Contract,
    Injection,
    ao_config_from_contract,
    contract_from_ao_config,
    contract_from_dict,
    read_contract,
    write_contract,
)
from augury.errors import AuguryError, ContractError, FormatError, NotFoundError, StorageError
from tests.contracts import AO, CONTRACTS, JSON, LORA, ODD_BLOCKS, ODD_INLINE, contract

# --- written and read again


@given(written=CONTRACTS)
def test_write_then_read(tmp_path_factory: pytest.TempPathFactory, written: Contract) -> None:
    folder = tmp_path_factory.mktemp("oracle")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # our own files hold nothing unknown
        write_contract(written, folder, LORA)
        assert read_contract(folder) == written
    assert {path.name for path in folder.iterdir()} <= {"oracle.json", "ao_config.json"}


@given(written=CONTRACTS)
def test_other_tools_get_the_same_or_nothing(tmp_path_factory: pytest.TempPathFactory, written: Contract) -> None:
    """ao_config.json cannot say replace, embedding or a rescaled sum: its readers would silently add."""
    folder = tmp_path_factory.mktemp("oracle")
    write_contract(written, folder, LORA)
    (folder / "oracle.json").unlink()
    injection = written.injection
    if injection.operation == "replace" or injection.rescale_to is not None:
        assert not (folder / "ao_config.json").exists()
        return
    config = json.loads((folder / "ao_config.json").read_bytes())
    read = contract_from_ao_config({**config, "created_at_utc": "2026-01-01"})
    assert (read.base_model, read.layers, read.injection) == (written.base_model, written.layers, injection)
    assert (read.prompt.layout, read.prompt.slot_token) == (written.prompt.layout, written.prompt.slot_token)
    assert read.generation == written.generation


@given(st.integers(1, 200), st.data())
def test_percentages_lead_back_to_the_layers(n_layers: int, data: st.DataObject) -> None:
    """Also by the other formula in use, `int(n * (percent / 100))`, for models of up to 100 blocks."""
    layer = data.draw(st.integers(0, n_layers - 1))
    made = Contract(base_model="m", n_layers=n_layers, layers=((layer,),), injection=Injection(block=0))
    ((percent,),) = ao_config_from_contract(made, LORA)["layer_combinations"]
    assert int(n_layers * percent / 100) == layer
    if n_layers <= 100:
        assert percent == int(percent)


def test_percentages_of_other_layers_are_not_handed_on() -> None:
    read = contract_from_ao_config({**AO, "layer_combinations": [[25.5], [50], [75]]}, n_layers=36)
    assert ao_config_from_contract(read, LORA)["layer_combinations"] == [[25.5], [50], [75]]
    changed = read.model_copy(update={"layers": ((10,), (18,), (27,))})
    assert ao_config_from_contract(changed, LORA)["layer_combinations"] == [[28], [50], [75]]
    for broken in ([[25], [50]], [["x"], [50], [75]], [25, 50, 75], "25", None, [[100], [50], [75]]):
        changed = read.model_copy(update={"foreign": {"layer_combinations": broken}})
        assert ao_config_from_contract(changed, LORA)["layer_combinations"] == [[25], [50], [75]]


def test_lora_fields_by_either_name() -> None:
    made = ao_config_from_contract(contract(), LORA)
    assert (made["lora_r"], made["lora_alpha"], made["lora_target_modules"]) == (32, 64, ["k_proj", "q_proj"])
    assert ao_config_from_contract(contract(), {"lora_r": 8})["lora_r"] == 8


def test_ao_config_is_the_odd_text_itself() -> None:
    assert ao_config_from_contract(contract(), {})["prefix_template"] == ODD_BLOCKS
    assert ao_config_from_contract(contract(prompt={"layout": "inline"}), {})["prefix_template"] == ODD_INLINE


def test_oracle_json_comes_first(tmp_path: Path) -> None:
    write_contract(contract(base_model="org/ours"), tmp_path, LORA)
    (tmp_path / "ao_config.json").write_text(json.dumps(AO))
    assert read_contract(tmp_path).base_model == "org/ours"


def test_a_stale_ao_config_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_contract(contract(), tmp_path, LORA)
    assert (tmp_path / "ao_config.json").exists()
    with caplog.at_level(logging.WARNING):
        write_contract(contract(injection={"rescale_to": 2.0}), tmp_path, LORA)
    assert not (tmp_path / "ao_config.json").exists()
    assert "ao_config.json is not written" in caplog.text


# --- the strict writer


@pytest.mark.parametrize("field", ["base_model", "layers"])
def test_writer_wants_what_makes_an_oracle_usable(tmp_path: Path, field: str) -> None:
    with pytest.raises(ContractError, match=field):
        write_contract(contract(**{field: None}), tmp_path, LORA)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes",
    [
        {"n_layers": 5},
        {"d_model": "wide"},
        {"evaluation": {"auc": float("nan")}},
        {"generation": {"stop": {1, 2}}},
        {"foreign": {"text": "\ud800"}},
    ],
)
def test_writer_checks_again(tmp_path: Path, changes: dict[str, Any]) -> None:
    """`model_copy` checks nothing, so what it made is checked before it is written."""
    with pytest.raises(FormatError):
        write_contract(contract().model_copy(update=changes), tmp_path, LORA)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_contract(contract(), tmp_path, LORA)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_contract(contract(base_model="org/another"), tmp_path, LORA)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "oracle").write_text("")
    with pytest.raises(StorageError):
        write_contract(contract(), tmp_path / "oracle", LORA)


# --- reading oracle.json


def as_json(**changes: Any) -> dict[str, Any]:
    return {**json.loads(contract().model_dump_json()), **changes}


def test_unknown_fields_are_kept_and_told() -> None:
    data = as_json(colour="blue", foreign={"old": 1})
    data["injection"]["angle"] = 90
    with pytest.warns(UserWarning, match=r"colour, injection\.angle"):
        read = contract_from_dict(data)
    assert read.foreign == {"old": 1, "colour": "blue", "injection.angle": 90}
    assert read.model_copy(update={"foreign": {}}) == contract()


@pytest.mark.parametrize("version", [2, 17])
def test_a_higher_version_is_refused_by_name(version: int) -> None:
    with pytest.raises(FormatError, match=f"schema_version is {version}"):
        contract_from_dict(as_json(schema_version=version, injection="of a kind unknown today"))


@pytest.mark.parametrize("version", [None, 0, "1", 1.0, True])
def test_no_version_is_refused(version: Any) -> None:
    with pytest.raises(FormatError, match="schema_version"):
        contract_from_dict(as_json(schema_version=version))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"injection": None}, "injection"),
        ({"injection": {"block": -2}}, "injection.block"),
        ({"layers": [["a"]]}, "layers.0.0"),
        ({"prompt": {"layout": []}}, "prompt.layout"),
        ({"foreign": [1], "more": 2}, "foreign"),
    ],
)
def test_unusable_fields_are_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(FormatError, match=named):
        contract_from_dict(as_json(**changes))


FIELDS = st.sampled_from([*Contract.model_fields, *AO, "unknown"])


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.dictionaries(FIELDS, JSON | st.dictionaries(st.sampled_from(["layout", "site", "block"]), JSON), max_size=4))
def test_any_json_gives_a_contract_or_a_refusal(changes: dict[str, Any]) -> None:
    for read in (lambda: contract_from_dict(as_json(**changes)), lambda: contract_from_ao_config({**AO, **changes})):
        try:
            assert isinstance(read(), Contract)
        except AuguryError as error:
            assert error.what and error.why and error.instead


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"a": ' * 100_000])
@pytest.mark.parametrize("name", ["oracle.json", "ao_config.json", "adapter_config.json"])
def test_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=name):
        read_contract(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_contract(tmp_path / "missing")
