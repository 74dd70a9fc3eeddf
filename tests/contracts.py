"""A contract and a model that it fits, as the tests change them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from augury.contract import Contract, Injection, ModelIdentity, Positions, PromptFormat, TrainedOn

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
