"""Load any Hugging Face causal LM, and know what it is."""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from augury.contract import ModelIdentity
from augury.errors import AuguryError, FormatError, InputError, ModelError, NetworkError, NotFoundError
from augury.lm import bundled
from augury.lm.blocks import Decoder, find_decoder, text_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

ALIASES = {"smollm2": bundled.NAME}
HUB_TIMEOUT_S = 8


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

    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(HUB_TIMEOUT_S))
    with _hub_errors(source):
        config = AutoConfig.from_pretrained(source, revision=revision)
        gpu = torch.cuda.is_available() and (device_map is None or device_map != "cpu")
        chosen = _dtype(dtype) or (torch.bfloat16 if gpu else torch.float32)
        options: dict[str, Any] = {"device_map": device_map if device_map is not None else ("cuda" if gpu else None)}
        if attn:
            options["attn_implementation"] = attn
        model = _auto_class(config).from_pretrained(
            source, revision=revision, dtype=chosen, use_safetensors=True, **options
        )
        tokenizer = _tokenizer(source, revision)
    return model.eval(), tokenizer


def _auto_class(config: Any) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForCausalLM if type(config) in AutoModelForCausalLM._model_mapping else AutoModelForImageTextToText


def _tokenizer(source: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    folder = Path(source)
    if folder.is_dir() and not any(folder.glob("tokenizer*")) and not any(folder.glob("*.model")):
        return None  # the golden folders: read by token ids only
    return AutoTokenizer.from_pretrained(source, revision=revision)


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise InputError(f"'{dtype}' is no dtype.", "torch does not know it", "use float32, bfloat16 or float16")
    return found


class _hub_errors:
    """Turn what transformers and the hub raise into refusals that say what to do."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if (
            error is None
            or isinstance(error, AuguryError)
            or not isinstance(error, (OSError, ValueError, RuntimeError))
        ):
            return
        raise self.translate(error) from error

    def translate(self, error: BaseException) -> AuguryError:
        chain, text = error, f"{type(error).__name__}: {error}"
        while chain := (chain.__cause__ or chain.__context__):  # type: ignore[assignment]
            text += f" | {type(chain).__name__}: {chain}"
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        if ("safetensors" in text and "pytorch_model" in text) or "no file named model.safetensors" in text:
            return FormatError(
                f"{self.source} has no safetensors weights.",
                "pickled weights can run code when they are read, so they never are",
                "convert it: `model.save_pretrained(folder)` writes safetensors",
            )
        if any(word in text for word in ("RepositoryNotFound", "is not a valid model identifier", "404", "401")):
            return NotFoundError(
                f"There is no model '{self.source}'.",
                "it is no folder here, and the hub does not know it or wants an account",
                "check the spelling, log in with `hf auth login`, or use the bundled `smollm2`",
            )
        if any(word in text for word in ("Connect", "offline", "Timeout", "resolve", "couldn't connect", "Proxy")):
            return NetworkError(
                f"The model hub could not be reached for '{self.source}'.",
                f"{reason} (tried again several times)",
                "check the network and run it again, name a local folder, or use the bundled `smollm2`",
            )
        return ModelError(
            f"'{self.source}' could not be loaded.", reason, "see the reason; try a folder or another model"
        )


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
