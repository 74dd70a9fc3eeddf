"""Which PEFT configurations may be put on a model: those that leave the base's own weights as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from augury.errors import ContractError, FormatError

if TYPE_CHECKING:
    from peft import PeftConfig

# Each of these is loaded, switched and removed in a test that compares it with peft's own loading. Not among them is
# BOFT: peft compiles code for it when it is first used.
KINDS = (
    "LORA",
    "ADALORA",
    "C3A",
    "FOURIERFT",
    "HRA",
    "IA3",
    "LN_TUNING",
    "LOHA",
    "LOKR",
    "MISS",
    "OFT",
    "ROAD",
    "WAVEFT",
)
_LARGEST = 1e12
_REWRITING = ("pissa", "corda", "olora", "lora_ga", "loftq")  # `pissa_niter_4` and the like as well
_START_ONLY = ("eva_config", "corda_config", "loftq_config", "lora_ga_config")
_REFUSED = {
    "alora_invocation_tokens": "it is on only behind an invocation string that each forward pass must point out",
    "arrow_config": "it routes between other adapters",
    "kasa_config": "KaSA cuts singular values out of the base's weights for good",
    "layer_replication": "it copies the base's blocks, so layers would no longer be those of the base",
    "trainable_token_indices": "it replaces single rows of the embedding",
}


def peft_config(config: Mapping[str, Any]) -> PeftConfig:
    """The configuration that peft is given; keys that this peft release does not know are left out.

    Raises:
        ContractError: A kind or an option under which the base would not stay as it is.
        FormatError: peft does not accept the values.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = PEFT_TYPE_TO_CONFIG_MAPPING.get(_kind(config))  # pyright: ignore[reportArgumentType, reportCallIssue]
    if kind is None or _kind(config) not in KINDS:
        raise ContractError(
            f"Adapters of the kind {config.get('peft_type')!r} are not loaded.",
            f"only kinds known to leave the base as it is are: {', '.join(KINDS)}",
            "train a LoRA, or merge the adapter into its base and load that as a model",
        )
    _check_options(config)
    _check_start(config)
    known = {key: value for key, value in config.items() if key in kind.__dataclass_fields__ and key != "peft_type"}
    _check_numbers(known)
    try:
        return kind(**{**known, "inference_mode": False})
    except Exception as error:  # peft checks some values itself and trips over others
        why = f"peft says: {str(error)[:300]}"
        raise FormatError("The adapter's configuration is not valid.", why, "mend adapter_config.json") from error


def _kind(config: Mapping[str, Any]) -> str:
    return str(config.get("peft_type") or "LORA").upper()


def _check_options(config: Mapping[str, Any]) -> None:
    reasons = [f"{option} is set: {why}" for option, why in _REFUSED.items() if config.get(option)]
    if config.get("bias") not in (None, "none"):
        reasons.append(f"bias is {config['bias']!r}: it trained biases of the base itself")
    if reasons:
        raise ContractError(
            "This adapter cannot be switched on and off.",
            "; ".join(reasons),
            "train it without this, or merge it into its base and load that as a model",
        )


def _check_numbers(config: Mapping[str, Any]) -> None:
    """Python's JSON takes NaN and Infinity, and with them, or a scale beyond all sense, every answer is nonsense."""
    wrong = [f"{name} is {value}" for name, value in _floats(config) if not abs(value) <= _LARGEST]
    if wrong:
        raise FormatError(
            "The adapter's configuration is not valid.",
            "; ".join(wrong[:3]),
            f"mend adapter_config.json: numbers are finite and at most {_LARGEST:g}",
        )


def _floats(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """All floating-point numbers in a configuration, each with its path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _floats(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, float):
        yield name, value


def _check_start(config: Mapping[str, Any]) -> None:
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_REWRITING):
        raise ContractError(
            f"The adapter belongs to a base that its initialisation '{start}' rewrote.",
            "this way of starting moves part of the base's weights into the adapter: on the base as it is the adapter "
            "is wrong, and rewriting the base would change it for all others on it",
            "convert it where it was trained, `save_pretrained(..., path_initial_model_for_weight_conversion=...)` "
            "writes a plain LoRA; or load the rewritten base and set init_lora_weights to true in adapter_config.json",
        )


def plain_start(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of an adapter whose tensors come from a file: how peft would start it must not be run.

    Raises:
        ContractError: The start rewrote the base, so that the tensors are wrong on any other.
    """
    _check_start(config)
    left_out = ("base_model_name_or_path", "init_lora_weights", *_START_ONLY)
    return {key: value for key, value in config.items() if key not in left_out}


def lora_config(
    rank: int, alpha: float, dropout: float, rslora: bool, target_modules: str | Sequence[str]
) -> dict[str, Any]:
    """The PEFT configuration of a fresh LoRA, as `add_adapter` and a PEFT folder take it.

    Args:
        rank: Of each pair of matrices.
        alpha: The scale's numerator.
        dropout: Share of the LoRA's inputs that is dropped in training.
        rslora: Divide the scale by the root of the rank instead of the rank.
        target_modules: Names of modules, or `"all-linear"`.
    """
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "use_rslora": rslora,
        "target_modules": target_modules if isinstance(target_modules, str) else list(target_modules),
        "bias": "none",
        "inference_mode": True,
    }
