"""Load any Hugging Face causal LM, and know what it is."""

from __future__ import annotations

import hashlib
import inspect
import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from augury.contract import ModelIdentity
from augury.errors import FormatError, InputError, NotFoundError
from augury.lm import bundled
from augury.lm.blocks import Decoder, find_decoder, text_config
from augury.lm.hub import ask_hub, loading

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

ALIASES = {"smollm2": bundled.NAME}


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A loaded causal LM with its tokenizer and its decoder blocks.

    Attributes:
        model: The Hugging Face model. augury adds hooks and adapters to it only inside context managers, or until an
            oracle is unloaded.
        tokenizer: Its tokenizer, or None for a folder without one (then only token ids can be read).
        name: What it was loaded as; `revision` says which weights.
        target_adapters: The adapters that belong to this model as a *target* (never an oracle's).
        memo: Rendered prompt parts, kept so that one question costs one rendering.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    name: str
    revision: str | None
    decoder: Decoder
    target_adapters: tuple[str, ...] = ()
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        return self.decoder.blocks

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        return int(text_config(self.model).hidden_size)

    @property
    def vocab_size(self) -> int:
        return int(text_config(self.model).vocab_size)

    @property
    def max_positions(self) -> int | None:
        """The longest context in tokens, where the configuration names one."""
        return getattr(text_config(self.model), "max_position_embeddings", None)

    @property
    def device(self) -> torch.device:
        """Where token ids go: the device of the embedding."""
        return self.model.get_input_embeddings().weight.device  # pyright: ignore[reportReturnType]

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype  # pyright: ignore[reportReturnType]

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id if self.tokenizer is not None else text_config(self.model).pad_token_id
        return int(pad) if isinstance(pad, int) else 0

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The token ids at which an answer ends."""
        generation = getattr(self.model, "generation_config", None)
        ends = getattr(generation, "eos_token_id", None)
        ends = ends if ends is not None else text_config(self.model).eos_token_id
        found = list(ends) if isinstance(ends, (list, tuple)) else [] if ends is None else [ends]
        if self.tokenizer is not None and isinstance(self.tokenizer.eos_token_id, int):
            found.append(self.tokenizer.eos_token_id)
        return tuple(dict.fromkeys(int(end) for end in found))

    @cached_property
    def keeps_logits(self) -> bool:
        """Whether `forward` can be told to compute logits for the last positions only."""
        return "logits_to_keep" in inspect.signature(type(self.model).forward).parameters

    @cached_property
    def identity(self) -> ModelIdentity:
        """Width, depth, tokenizer and weights, as a contract names them."""
        return ModelIdentity(
            name=self.name,
            revision=self.revision,
            d_model=self.d_model,
            n_layers=self.n_layers,
            vocab_size=self.vocab_size,
            tokenizer_hash=tokenizer_hash(self.tokenizer) if self.tokenizer is not None else None,
            weights_fingerprint=weights_fingerprint(self.decoder),
            chat_template_hash=chat_template_hash(self.tokenizer),
        )

    def logits(self, keep: int = 0, **inputs: Any) -> Tensor:
        """A forward pass's logits `[batch, keep or seq, vocab]`, the LM head run on the last `keep` positions only."""
        if self.keeps_logits and keep:
            return self.model(**inputs, logits_to_keep=keep, use_cache=False).logits
        logits = self.model(**inputs, use_cache=False).logits
        return logits[:, -keep:] if keep else logits

    @cached_property
    def pads_cleanly(self) -> bool:
        """Whether left padding leaves the real positions unchanged (not so in some models with recurrent state).

        Found by trying: a short sequence with and without padding, compared at the last block's output.
        """
        from augury.lm.probe import padding_leak

        leak = padding_leak(self)
        if (leak > 1e-3 and self.dtype == torch.float32) or leak > 0.2:
            log.warning("padding leaks into the state of %s (%.1e): batches are made of equal lengths", self.name, leak)
            return False
        return True

    @cached_property
    def shares_prefixes(self) -> bool:
        """Whether rows of unequal length may continue one shared prefix, with padding between (found by trying)."""
        from augury.lm.shared import prefix_leak

        return self.pads_cleanly and prefix_leak(self) <= (1e-3 if self.dtype == torch.float32 else 0.2)

    @property
    def sliding_window(self) -> int | None:
        """The narrowest attention window in tokens, where some layers have one."""
        return getattr(text_config(self.model), "sliding_window", None)


def load_model(
    source: Any,
    *,
    dtype: torch.dtype | str | None = None,
    device_map: Any = None,
    adapter: str | Path | None = None,
    revision: str | None = None,
    tokenizer: Any = None,
    blocks: str | None = None,
    attn_implementation: str | None = None,
) -> LanguageModel:
    """Load the model to be read or to run an oracle on.

    Args:
        source: An alias (`"smollm2"`), a Hugging Face id, a folder, or a model already loaded.
        dtype: A torch dtype or its name. Default: float32 on a CPU, bfloat16 on a GPU.
        device_map: As in transformers. Default: the first GPU, else the CPU.
        adapter: A PEFT adapter that makes this model the target: it stays on while activations are captured.
        revision: The hub revision.
        tokenizer: For a model that is already loaded.
        blocks: The dotted name of the decoder block list, where it cannot be found by structure.
        attn_implementation: As in transformers.

    Raises:
        NotFoundError: Neither a folder nor a model that the hub knows.
        NetworkError: The hub cannot be reached.
        FormatError: The weights are pickles; only safetensors are read.
        ModelError: The decoder blocks cannot be found.
    """
    if isinstance(source, LanguageModel):
        return source
    if isinstance(source, nn.Module):
        lm = _wrap(source, tokenizer, revision, blocks)
    else:
        name, folder, revision = _resolve(str(source), revision)
        model, tok = _from_pretrained(
            folder, revision if folder == name else None, dtype, device_map, attn_implementation
        )
        lm = LanguageModel(model, tok, name, revision, find_decoder(model, blocks))
    if adapter is not None:
        from augury.lm.adapters import load_target_adapter

        lm = load_target_adapter(lm, Path(adapter))
    return lm


def _wrap(model: nn.Module, tokenizer: Any, revision: str | None, blocks: str | None) -> LanguageModel:
    from augury.lm.adapters import active_adapters, plain_model

    name = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
    plain: Any = plain_model(model)
    return LanguageModel(plain, tokenizer, name, revision, find_decoder(plain, blocks), active_adapters(plain))


def _resolve(source: str, revision: str | None) -> tuple[str, str, str | None]:
    """The name, what transformers is given, and the revision."""
    if not source.strip():
        raise InputError("No model was named.", "the name is empty", "name an alias, a hub id or a folder")
    if source in ALIASES:
        return ALIASES[source], str(bundled.ensure_smollm2()), bundled.REVISION
    path = Path(source).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise NotFoundError(f"{path} is no model folder.", "it has no config.json", "name the folder that has it")
        return str(path), str(path), revision
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise NotFoundError(f"There is no folder {path}.", "a path was given and nothing lies there", "check the path")
    return source, source, revision


def _from_pretrained(
    source: str, revision: str | None, dtype: torch.dtype | str | None, device_map: Any, attn: str | None
) -> tuple[Any, Any]:
    from transformers import AutoConfig

    chosen = _dtype(dtype)
    unreachable = None if Path(source).is_dir() else ask_hub(source, revision).unreachable
    # A model's own code is never run; saying so keeps transformers from asking in the terminal.
    where: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    if unreachable:
        log.warning("the hub does not answer (%s); looking in the cache for %s", unreachable, source)
        where["local_files_only"] = True
    with loading(source, unreachable):
        config = AutoConfig.from_pretrained(source, **where)
        gpu = torch.cuda.is_available() and (device_map is None or device_map != "cpu")
        chosen = chosen or (torch.bfloat16 if gpu else torch.float32)
        options: dict[str, Any] = {"device_map": device_map if device_map is not None else ("cuda" if gpu else None)}
        if attn:
            options["attn_implementation"] = attn
        model, report = _auto_class(config).from_pretrained(
            source, dtype=chosen, use_safetensors=True, output_loading_info=True, **where, **options
        )
        _check_filled(model, source, set(report["missing_keys"]))
        tokenizer = _tokenizer(source, where)
    return model.eval(), tokenizer


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


def _tokenizer(source: str, where: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    folder = Path(source)
    if folder.is_dir() and not any(folder.glob("tokenizer*")) and not any(folder.glob("*.model")):
        return None  # the golden folders: read by token ids only
    return AutoTokenizer.from_pretrained(source, **where)


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, str(dtype).removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        why = "torch has no floating-point type of this name"
        raise InputError(f"'{dtype}' is no dtype.", why, "use float32, bfloat16 or float16")
    return found


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 over the sorted (token, id) pairs and the special ids: equal for equal tokenizers, whatever the file."""
    digest = hashlib.sha256()
    for token, i in sorted(tokenizer.get_vocab().items()):
        digest.update(f"{token}\0{i}\n".encode())
    digest.update(str(sorted(set(tokenizer.all_special_ids))).encode())
    return digest.hexdigest()


def chat_template_hash(tokenizer: Any) -> str | None:
    """SHA-256 of the chat template's text, or None where there is none."""
    template = getattr(tokenizer, "chat_template", None)
    return hashlib.sha256(str(template).encode()).hexdigest() if template else None


def weights_fingerprint(decoder: Decoder, samples: int = 64) -> str:
    """SHA-256 over sampled base weights of every block, rounded to bfloat16 so that the load dtype does not matter.

    Adapter tensors are left out: the fingerprint names the base whatever hangs on it.
    """
    digest = hashlib.sha256()
    for index, block in enumerate(decoder.blocks):
        for name, parameter in sorted(block.named_parameters(), key=lambda pair: pair[0].replace(".base_layer", "")):
            if "lora_" in name or parameter.is_meta:
                continue
            flat = parameter.detach().reshape(-1)
            values = flat[:: max(1, flat.numel() // samples)][:samples].to("cpu", torch.bfloat16)
            digest.update(f"{index}.{name.replace('.base_layer', '')}{tuple(parameter.shape)}".encode())
            digest.update(values.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()
