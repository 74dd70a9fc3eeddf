"""Read a model, its weights and its tokenizer from a folder or the hub, whole or not at all."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from augury.errors import FormatError, InputError
from augury.lm.hub import HubAnswer, ask_hub, cached_commit, loading

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How weights are read; None leaves it to the machine."""

    dtype: torch.dtype | None
    device_map: Any
    attention: str | None


@dataclass(frozen=True)
class Found:
    """A model as transformers read it; `where` is how its files were found, `commit` which of the hub's they are."""

    model: Any
    tokenizer: Any
    where: dict[str, Any]
    commit: str | None


def from_pretrained(source: str, revision: str | None, options: Options) -> Found:
    """Read what lies in the folder `source` or under this name on the hub."""
    from transformers import AutoConfig

    on_hub = not Path(source).is_dir()
    answer = ask_hub(source, revision) if on_hub else HubAnswer()
    # A model's own code is never run; saying so keeps transformers from asking in the terminal.
    where: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    if answer.unreachable:
        log.warning("the hub does not answer (%s); looking in the cache for %s", answer.unreachable, source)
        where["local_files_only"] = True
    with loading(source, answer.unreachable):
        config = AutoConfig.from_pretrained(source, **where)
        gpu = torch.cuda.is_available() and options.device_map != "cpu"
        chosen = options.dtype or (torch.bfloat16 if gpu else torch.float32)
        device_map = options.device_map if options.device_map is not None else ("cuda" if gpu else None)
        extra = {"attn_implementation": options.attention} if options.attention else {}
        model = read_weights(source, config, where, dtype=chosen, device_map=device_map, **extra)
        tokenizer = tokenizer_of(source, where)
    # What lies in the cache now was read; the branch may have moved since the hub answered.
    commit = (cached_commit(source, revision) or answer.commit) if on_hub else None
    return Found(model.eval(), tokenizer, where, commit)


def read_weights(source: str, config: Any, where: dict[str, Any], **options: Any) -> Any:
    """The model, every weight of it from a file."""
    model, report = _auto_class(config).from_pretrained(
        source, use_safetensors=True, output_loading_info=True, **where, **options
    )
    _check_filled(model, source, set(report["missing_keys"]))
    return model


def _check_filled(model: nn.Module, source: str, missing: set[str]) -> None:
    """Refuse weights that the files lack: transformers draws them at random and only warns."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)  # a tied weight is filled under any of its names
    empty = [shared[0] for shared in names.values() if missing.issuperset(shared)]
    if empty:
        raise FormatError(
            f"{source} lacks weights of its model.",
            f"{len(empty)} of {len(names)} parameters are in no file, such as {empty[0]}, and would be random",
            "fetch or save the model again, whole",
        )


def _auto_class(config: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForCausalLM if type(config) in AutoModelForCausalLM._model_mapping else AutoModelForImageTextToText


def tokenizer_of(source: str, where: dict[str, Any]) -> Any:
    """The tokenizer that lies with the weights; None in a folder without one."""
    from transformers import AutoTokenizer

    folder = Path(source)
    if folder.is_dir() and not any(folder.glob("tokenizer*")) and not any(folder.glob("*.model")):
        return None  # the golden folders: read by token ids only
    return AutoTokenizer.from_pretrained(source, **where)


def parse_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A floating-point dtype by its name.

    Raises:
        InputError: There is none of this name.
    """
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, str(dtype).removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        why = "torch has no floating-point type of this name"
        raise InputError(f"'{dtype}' is no dtype.", why, "use float32, bfloat16 or float16")
    return found
