"""Load any Hugging Face causal LM, and know what it is."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from augury.contract import ModelIdentity
from augury.errors import InputError, NotFoundError
from augury.files import expanded
from augury.lm import bundled
from augury.lm.adapters import active_adapters, load_target_adapter, plain_model
from augury.lm.batch import length_groups
from augury.lm.blocks import Decoder, find_decoder, text_config
from augury.lm.fingerprint import chat_template_hash, tokenizer_hash, weights_fingerprint
from augury.lm.hub import loading
from augury.lm.pretrained import Found, Options, from_pretrained, parse_dtype, read_weights
from augury.lm.probe import padding_leak

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
        plain_name: What the base was loaded as, where `name` says more than that (`base+adapter`).
        fingerprint: The weights' fingerprint, where they were cast so that it cannot be taken from them any more.
        memo: Rendered prompt parts, kept so that one question costs one rendering.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    name: str
    revision: str | None
    decoder: Decoder
    target_adapters: tuple[str, ...] = ()
    plain_name: str | None = None
    fingerprint: str | None = None
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def base_name(self) -> str:
        """The name of the model without its target adapters."""
        return self.plain_name or self.name

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
            weights_fingerprint=self.fingerprint or weights_fingerprint(self.decoder),
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
        leak = padding_leak(self)
        if (leak > 1e-3 and self.dtype == torch.float32) or leak > 0.2:
            log.warning("padding leaks into the state of %s (%.1e): batches are made of equal lengths", self.name, leak)
            return False
        return True

    def groups(self, lengths: Sequence[int], batch_size: int, tokens: int | None = None) -> list[list[int]]:
        """Batches of items of similar length, or of one length where padding would leak into the model's state.

        Whether it does is only tried where it matters.
        """
        uneven = batch_size > 1 and len(set(lengths)) > 1
        return length_groups(lengths, batch_size, equal=uneven and not self.pads_cleanly, tokens=tokens)

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
        dtype: A torch dtype or its name. Default: float32 on a CPU, bfloat16 on a GPU. A model that is already loaded
            is never cast.
        device_map: As in transformers. Default: the first GPU, else the CPU.
        adapter: A PEFT adapter that makes this model the target: it stays on while activations are captured.
        revision: The hub revision; the model's `revision` is the commit that it stands for. Of a folder it is what
            the caller knows it to be.
        tokenizer: For a Hugging Face model that is already loaded, or instead of the one that lies with the weights.
        blocks: The dotted name of the decoder block list, where it cannot be found by structure.
        attn_implementation: As in transformers.

    Raises:
        InputError: An option that cannot be applied to a model that is already loaded, or to the bundled one.
        NotFoundError: Neither a folder nor a model that the hub knows.
        NetworkError: The hub cannot be reached.
        FormatError: The weights are pickles; only safetensors are read.
        ModelError: The decoder blocks cannot be found.
    """
    late = {"device_map": device_map, "attn_implementation": attn_implementation}
    if isinstance(source, LanguageModel):
        _refuse_late(source.dtype, dtype, {**late, "revision": revision, "tokenizer": tokenizer, "blocks": blocks})
        lm = source
    elif isinstance(source, nn.Module):
        lm = _wrap(source, tokenizer, revision, blocks)
        _refuse_late(lm.dtype, dtype, late)
    elif not isinstance(source, (str, Path)):
        why = f"a {type(source).__name__} is neither a name nor a model"
        raise InputError("No model was named.", why, "pass an alias, a hub id, a folder or a loaded model")
    else:
        lm = _load(
            str(source), revision, Options(parse_dtype(dtype), device_map, attn_implementation), tokenizer, blocks
        )
    if adapter is not None:
        lm = load_target_adapter(lm, expanded(adapter))
    return lm


def needs_model(model: Any) -> LanguageModel:
    """The model, or a refusal of what `load_model` has not returned: a Hugging Face model by itself, or a name."""
    if not isinstance(model, LanguageModel):
        raise InputError(
            "This is no loaded model.",
            f"it is a {type(model).__name__}",
            "pass what augury.load_model(...) returns; it also takes a Hugging Face model with tokenizer=",
        )
    return model


def _refuse_late(has: torch.dtype, dtype: torch.dtype | str | None, options: dict[str, Any]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if parse_dtype(dtype) not in (None, has):
        given.append(f"dtype ({dtype}, the model is {str(has).removeprefix('torch.')})")
    if given:
        raise InputError(
            f"A model that is already loaded cannot be given another {' or '.join(given)}.",
            "these are fixed when a model is loaded, and a caller's model is never changed for good",
            "load it by its name with these options, or change the model before it is passed",
        )


def _load(source: str, revision: str | None, options: Options, tokenizer: Any, blocks: str | None) -> LanguageModel:
    name, folder, revision = _resolve(source, revision)
    found = from_pretrained(folder, revision if folder == name else None, options)
    return LanguageModel(
        found.model,
        tokenizer if tokenizer is not None else found.tokenizer,
        name,
        found.commit or revision,
        find_decoder(found.model, blocks),
        fingerprint=_uncast_fingerprint(folder, found, blocks),
    )


def _wrap(model: nn.Module, tokenizer: Any, revision: str | None, blocks: str | None) -> LanguageModel:
    name = str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
    plain: Any = plain_model(model)
    return LanguageModel(plain, tokenizer, name, revision, find_decoder(plain, blocks), active_adapters(plain))


def _resolve(source: str, revision: str | None) -> tuple[str, str, str | None]:
    """The name, what transformers is given, and the revision."""
    if not source.strip():
        raise InputError("No model was named.", "the name is empty", "name an alias, a hub id or a folder")
    if source in ALIASES:
        _check_bundled(source, revision)
        return ALIASES[source], str(bundled.ensure_smollm2()), bundled.REVISION
    path = expanded(source)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise NotFoundError(f"{path} is no model folder.", "it has no config.json", "name the folder that has it")
        return str(path), str(path), revision
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise NotFoundError(f"There is no folder {path}.", "a path was given and nothing lies there", "check the path")
    return source, source, revision


def _check_bundled(alias: str, revision: str | None) -> None:
    if revision not in (None, bundled.REVISION):
        raise InputError(
            f"There is no revision {revision} of {alias}.",
            f"the bundled model has one revision, {bundled.REVISION}",
            f"leave revision= out, or load {ALIASES[alias]} from the hub",
        )


def _uncast_fingerprint(source: str, found: Found, blocks: str | None) -> str | None:
    """The fingerprint of weights that were cast on reading, from the same files read again.

    float32 and bfloat16 give one fingerprint. float16 has neither the range nor the rounding of bfloat16, so what was
    cast to it cannot give that fingerprint any more.
    """
    weights = found.model.get_input_embeddings().weight
    if weights.dtype in (torch.float32, torch.bfloat16):
        return None
    with loading(source):
        where = {**found.where, "local_files_only": True}
        again = read_weights(source, found.model.config, where, dtype=torch.bfloat16, device_map="cpu")
        return weights_fingerprint(find_decoder(again, blocks))
