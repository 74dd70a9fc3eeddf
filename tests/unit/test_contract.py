"""The contract: what it says, what it refuses, and that it survives being written and read by anyone's tools."""

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
from pydantic import ValidationError

from augury.contract import (
    Contract,
    Injection,
    ModelIdentity,
    Positions,
    PromptFormat,
    TrainedOn,
    ao_config_from_contract,
    check_reads,
    check_runs_on,
    contract_from_ao_config,
    contract_from_dict,
    percent_to_layer,
    preset,
    read_contract,
    repository_of,
    write_contract,
)
from augury.contract.presets import _COT_ORACLES
from augury.errors import AuguryError, ContractError, FormatError, InputError, NotFoundError, StorageError

LORA = {"r": 32, "lora_alpha": 64, "lora_dropout": 0.0, "target_modules": {"q_proj", "k_proj"}, "use_rslora": False}
# As they stand in real files: a backslash and an n, and a pseudo-expression.
ODD_BLOCKS = r"Layer: {layer}\n{special_token} * {num_positions} \n"
ODD_INLINE = r"L{layer}:{special_token} * {num_positions}.\n"
AO: dict[str, Any] = {
    "schema_version": 1,
    "model_name": "Qwen/Qwen3-8B",
    "hook_onto_layer": 1,
    "special_token": " ?",
    "prefix_template": ODD_BLOCKS,
    "steering_coefficient": 1.0,
    "layer_combinations": [[25], [50], [75]],
    "act_layer_combinations": [[9], [18], [27]],
    "generation_kwargs": {"do_sample": False, "max_new_tokens": 20},
    "lora_r": 64,
    "created_at_utc": "2026-02-01T10:00:00+00:00",
    "git_commit": "abc",
}


def contract(**changes: Any) -> Contract:
    fields: dict[str, Any] = {
        "base_model": "org/base",
        "revision": "r1",
        "d_model": 64,
        "n_layers": 30,
        "tokenizer_hash": "tok",
        "weights_fingerprint": "weights",
        "chat_template_hash": "chat",
        "layers": ((18,), (9, 18, 27)),
        "injection": Injection(),
        "positions": Positions(pattern="contiguous", max_slots=16),
    }
    return Contract.model_validate({**fields, **changes})


def identity(**changes: Any) -> ModelIdentity:
    fields: dict[str, Any] = {
        "name": "org/base",
        "revision": "r1",
        "d_model": 64,
        "n_layers": 30,
        "vocab_size": 100,
        "tokenizer_hash": "tok",
        "weights_fingerprint": "weights",
        "chat_template_hash": "chat",
    }
    return ModelIdentity.model_validate({**fields, **changes})


# --- the text with the slots


def test_blocks_layout() -> None:
    assert contract().prefix((18,), 3) == "Layer: 18\n ? ? ? \n"
    assert contract().prefix((9, 18), 2) == "Layer: 9\n ? ? \nLayer: 18\n ? ? \n"


def test_inline_layout() -> None:
    inline = contract(prompt={"layout": "inline"})
    assert inline.prefix((21, 22), 2) == "L21: ? ? L22: ? ?.\n"
    assert inline.prefix((18,), 1) == "L18: ?.\n"


def test_slot_token_is_the_contracts() -> None:
    assert contract(prompt={"slot_token": " ¶"}).prefix((1,), 2) == "Layer: 1\n ¶ ¶ \n"


@given(st.lists(st.integers(0, 99), min_size=1, max_size=6), st.integers(1, 40), st.sampled_from(["blocks", "inline"]))
def test_one_slot_per_layer_and_position(layers: list[int], n: int, layout: str) -> None:
    text = contract(prompt={"layout": layout}).prefix(layers, n)
    assert text.count(" ?") == len(layers) * n
    assert "{" not in text and "*" not in text


@pytest.mark.parametrize(("layers", "n"), [((), 3), ((18,), 0), ((18,), -1)])
def test_no_slots_is_refused(layers: tuple[int, ...], n: int) -> None:
    with pytest.raises(InputError, match="at least one activation"):
        contract().prefix(layers, n)


# --- the model itself


@pytest.mark.parametrize(
    "fields",
    [
        {"block": None},
        {"block": -1},
        {"site": "embedding", "block": 1},
        {"coefficient": float("nan")},
        {"coefficient": float("inf")},
        {"coefficient": 0.0},
        {"operation": "add", "scale": "fixed"},
        {"operation": "replace", "rescale_to": 2.0},
        {"rescale_to": 0.0},
        {"operation": "multiply"},
        {"blok": 1},
    ],
)
def test_impossible_injections(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Injection.model_validate(fields)


def test_room_for_verbalizers_and_read_adapters() -> None:
    read = Injection(site="embedding", operation="replace", scale="fixed", coefficient=150.0)
    assert read.block is None


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": ((30,),)},
        {"layers": ((18, 18),)},
        {"layers": ((),)},
        {"layers": ()},
        {"layers": ((-1,),)},
        {"injection": {"block": 30}},
        {"prompt": {"template": "something else"}},
        {"prompt": {"slot_token": ""}},
        {"schema_version": 2},
        {"d_modell": 3},
    ],
)
def test_impossible_contracts(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        contract(**changes)


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        contract().base_model = "another"  # type: ignore[misc]


def test_trained_layers_are_exact() -> None:
    trained = contract()
    assert trained.trained_layers([18]) and trained.trained_layers((9, 18, 27))
    assert not trained.trained_layers((9,)) and not trained.trained_layers((27, 18, 9))
    assert contract(layers=None).trained_layers((3,))


@pytest.mark.parametrize(
    ("n_layers", "percent", "layer"), [(36, 25, 9), (36, 50, 18), (36, 75, 27), (30, 62, 18), (30, 0, 0), (100, 29, 29)]
)
def test_percent_to_layer(n_layers: int, percent: float, layer: int) -> None:
    assert percent_to_layer(n_layers, percent) == layer


@pytest.mark.parametrize("percent", [-1, 100, 250])
def test_percent_outside(percent: float) -> None:
    with pytest.raises(InputError, match="percentage"):
        percent_to_layer(36, percent)


# --- written and read again

TEXT = st.text(max_size=12)
NAME = st.text(min_size=1, max_size=12)
OPTIONAL = st.none() | TEXT
COUNT = st.none() | st.integers(0, 10**12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
FACTOR = st.floats(0.001, 1e5)


def injections() -> st.SearchStrategy[Injection]:
    add = st.builds(Injection, block=st.integers(0, 29), coefficient=FACTOR, rescale_to=st.none() | FACTOR)
    replace = st.builds(Injection, block=st.integers(0, 29), operation=st.just("replace"), coefficient=FACTOR)
    fixed = st.builds(
        Injection,
        site=st.just("embedding"),
        block=st.none(),
        operation=st.just("replace"),
        scale=st.just("fixed"),
        coefficient=FACTOR,
    )
    return add | replace | fixed


def prompts() -> st.SearchStrategy[PromptFormat]:
    fields = {"layout": st.sampled_from(["blocks", "inline"]), "slot_token": NAME, "yes_no_prefix": TEXT}
    return st.fixed_dictionaries(fields).map(PromptFormat.model_validate)


LAYERS = st.lists(
    st.lists(st.integers(0, 29), min_size=1, max_size=5, unique=True).map(tuple), min_size=1, max_size=3
).map(tuple)
CONTRACTS = st.builds(
    Contract,
    base_model=NAME,
    revision=OPTIONAL,
    d_model=st.none() | st.integers(1, 9999),
    n_layers=st.none() | st.integers(30, 200),
    tokenizer_hash=OPTIONAL,
    weights_fingerprint=OPTIONAL,
    chat_template_hash=OPTIONAL,
    chat_template_kwargs=st.none() | OBJECT,
    fallback_template=OPTIONAL,
    layers=LAYERS,
    injection=injections(),
    prompt=prompts(),
    positions=st.none() | st.builds(Positions, pattern=TEXT, max_slots=st.none() | st.integers(1, 999)),
    generation=OBJECT,
    trained_on=st.none()
    | st.builds(TrainedOn, recipe=OPTIONAL, data_fingerprint=OPTIONAL, tokens=COUNT, examples=COUNT, steps=COUNT),
    versions=st.dictionaries(TEXT, TEXT, max_size=3),
    git_commit=OPTIONAL,
    created=OPTIONAL,
    evaluation=OBJECT,
    foreign=OBJECT,
)


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


# --- reading ao_config.json


def test_ao_config(tmp_path: Path) -> None:
    (tmp_path / "ao_config.json").write_text(json.dumps({**AO, "unknown_field": [1]}))
    read = read_contract(tmp_path)
    assert read.base_model == "Qwen/Qwen3-8B"
    assert read.injection == Injection(site="block", block=1, operation="add", scale="match", coefficient=1.0)
    assert read.layers == ((9,), (18,), (27,))
    assert read.prompt == PromptFormat(layout="blocks", slot_token=" ?")
    assert read.generation == {"do_sample": False, "max_new_tokens": 20}
    assert (read.created, read.git_commit) == ("2026-02-01T10:00:00+00:00", "abc")
    assert read.foreign == {"unknown_field": [1], "lora_r": 64, "layer_combinations": [[25], [50], [75]]}
    assert (read.d_model, read.tokenizer_hash, read.positions) == (None, None, None)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (ODD_BLOCKS, "Layer: 9\n ? \nLayer: 18\n ? \n"),
        (ODD_INLINE, "L9: ? L18: ?.\n"),
        (ODD_BLOCKS.replace(r"\n", "\n"), "Layer: 9\n ? \nLayer: 18\n ? \n"),
        (ODD_INLINE.replace(r"\n", "\n"), "L9: ? L18: ?.\n"),
    ],
)
def test_odd_templates(template: str, text: str) -> None:
    assert contract_from_ao_config({**AO, "prefix_template": template}).prefix((9, 18), 1) == text


@pytest.mark.parametrize("template", ["", "Layer {layer}: {special_token}", ODD_BLOCKS + " ", 3, ODD_BLOCKS[:-4]])
def test_an_unknown_template_is_refused(template: Any) -> None:
    with pytest.raises(FormatError, match="template"):
        contract_from_ao_config({**AO, "prefix_template": template})


@pytest.mark.parametrize("field", ["hook_onto_layer", "special_token", "prefix_template", "steering_coefficient"])
def test_what_decides_the_numerics_is_not_guessed(field: str) -> None:
    with pytest.raises(FormatError, match=field):
        contract_from_ao_config({name: value for name, value in AO.items() if name != field})


@pytest.mark.parametrize("version", [2, "x"])
def test_ao_version(version: Any) -> None:
    with pytest.raises(FormatError, match=repr(version)):
        contract_from_ao_config({**AO, "schema_version": version})


def test_percentages_alone() -> None:
    percents = {**AO, "act_layer_combinations": [], "layer_combinations": [[25, 50, 75]]}
    without = contract_from_ao_config(percents)
    assert without.layers is None and without.foreign["layer_combinations"] == [[25, 50, 75]]
    assert contract_from_ao_config(percents, n_layers=36).layers == ((9, 18, 27),)
    with pytest.raises(FormatError, match="100%"):
        contract_from_ao_config({**percents, "layer_combinations": [[100]]}, n_layers=36)


def test_older_ones_replace() -> None:
    with pytest.warns(UserWarning, match="replace"):
        assert contract_from_ao_config({**AO, "created_at_utc": "2025-10-25T23:59:59"}).injection.operation == "replace"
    assert contract_from_ao_config({**AO, "created_at_utc": "2025-10-26T00:00:00"}).injection.operation == "add"


def test_fields_that_sound_like_numerics_are_told() -> None:
    with pytest.warns(UserWarning, match="injection_mode"):
        read = contract_from_ao_config({**AO, "injection_mode": "rotate"})
    assert read.foreign["injection_mode"] == "rotate"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        contract_from_ao_config({**AO, "max_grad_norm": 1.0, "max_target_tokens": 0})


def test_a_rescaled_sum(tmp_path: Path) -> None:
    assert contract_from_ao_config({**AO, "norm_scale": 2.0}).injection.rescale_to == 2.0
    (tmp_path / "ao_config.json").write_text(json.dumps(AO))
    assert read_contract(tmp_path, repository="ceselder/qwen3-8b-ao-v3-best-steering2p0").injection.rescale_to == 2.0
    assert read_contract(tmp_path, repository="ceselder/qwen3-8b-ao-v3-best").injection.rescale_to is None


def test_the_base_may_stand_in_the_adapters_config(tmp_path: Path) -> None:
    (tmp_path / "ao_config.json").write_text(json.dumps({**AO, "model_name": None}))
    assert read_contract(tmp_path).base_model is None
    assert read_contract(tmp_path, {"base_model_name_or_path": "org/base"}).base_model == "org/base"


# --- presets


@pytest.mark.parametrize("name", _COT_ORACLES)
def test_cot_oracles(tmp_path: Path, name: str) -> None:
    folder = tmp_path / f"models--ceselder--{name}" / "snapshots" / "0f3a"
    folder.mkdir(parents=True)
    read = read_contract(folder, {"base_model_name_or_path": "Qwen/Qwen3-8B"})
    assert read.prompt.layout == "inline" and read.base_model == "Qwen/Qwen3-8B"
    assert read.injection == Injection(block=1, operation="add", coefficient=1.0)
    for count in ("1layer", "3layers"):
        if count in name:
            assert read.layers is not None and len(read.layers[0]) == int(count[0])


def test_there_are_six() -> None:
    assert len(_COT_ORACLES) == 6


def test_a_preset_of_another_base_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cot-oracle-grpo-step-500"
    folder.mkdir()
    with pytest.raises(ContractError, match=r"Qwen3-1\.7B"):
        read_contract(folder, {"base_model_name_or_path": "Qwen/Qwen3-1.7B"})
    assert read_contract(folder, {"base_model_name_or_path": "/models/q"}).layers is None


def test_ambiguous_checkpoints_are_not_guessed() -> None:
    with pytest.raises(ContractError, match="augury doctor MODEL --oracle"):
        preset("adamkarvonen/checkpoints_all_single_and_multi_pretrain_Qwen3-8B")


@pytest.mark.parametrize("name", ["org/some-lora", "somebody/cot-oracle-grpo-step-500", "cot-oracle-v9"])
def test_a_bare_adapter_needs_a_stated_contract(tmp_path: Path, name: str) -> None:
    assert preset(name) is None
    with pytest.raises(ContractError, match="state the contract"):
        read_contract(tmp_path, {}, repository=name)


def test_repository_of(tmp_path: Path) -> None:
    assert repository_of(tmp_path / "models--a--b-c" / "snapshots" / "1") == "a/b-c"
    assert repository_of(tmp_path / "mine") == "mine"


# --- what it runs on, what it reads


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
