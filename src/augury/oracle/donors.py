"""The donor bank: activations of neutral contexts, taken once per model and kept on disk.

Donors stand in for what was read. Whatever an oracle says about them, the question alone has brought about.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import yaml
from torch import Tensor

from augury.activations import capture_vectors
from augury.errors import StorageError
from augury.files import replacing
from augury.lm import LanguageModel, transcript_of
from augury.lm.bundled import cache_root

log = logging.getLogger(__name__)

DONORS_FILE = Path(__file__).with_name("donors.yaml")
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, eq=False)
class DonorBank:
    """Activations of every token of every donor context.

    Attributes:
        layers: The layers, in the order of the first dimension.
        contexts: One tensor `[layers, tokens, d_model]` per context.
    """

    layers: tuple[int, ...]
    contexts: tuple[Tensor, ...]

    @property
    def longest(self) -> int:
        """The most positions that any donor has."""
        return max(context.shape[1] for context in self.contexts)

    def take(self, count: int, n_positions: int) -> list[Tensor]:
        """Vectors of `n_positions` consecutive tokens of up to `count` donors, each `[layers * n_positions, d_model]`.

        Windows end in another part of each context, so that donors are not all the end of a sentence. Donors that are
        too short are left out.
        """
        long_enough = [context for context in self.contexts if context.shape[1] >= n_positions]
        found = []
        for i, context in enumerate(long_enough[:count]):
            start = int((i + 1) * _GOLDEN % 1 * (context.shape[1] - n_positions + 1))
            found.append(context[:, start : start + n_positions].reshape(-1, context.shape[-1]))
        return found


@cache
def donor_texts() -> tuple[str, ...]:
    """The neutral contexts that the package ships."""
    return tuple(yaml.safe_load(DONORS_FILE.read_text(encoding="utf-8")))


def donor_bank(base: LanguageModel, layers: Sequence[int]) -> DonorBank:
    """The donors' activations at these layers, from the cache or captured now.

    Args:
        base: The model the oracle runs on, without adapters of a target.
        layers: The layer tuple.
    """
    layers = tuple(layers)
    sequences = [transcript_of(base, text).token_ids for text in donor_texts()]
    lengths = [len(ids) - _special(base, ids) for ids in sequences]
    path = cache_file(base, layers)
    cached = _read(path, (len(layers), sum(lengths), base.d_model))
    if cached is None:
        rows = [range(len(ids) - length, len(ids)) for ids, length in zip(sequences, lengths, strict=True)]
        log.info("capturing %d donor contexts at layers %s, once for this model", len(sequences), list(layers))
        cached = torch.cat(capture_vectors(base, sequences, layers, rows), 1)
        _write(path, cached)
    return DonorBank(layers, cached.split(lengths, dim=1))


def _special(base: LanguageModel, ids: Sequence[int]) -> int:
    """How many of the first tokens are a BOS, whose activations are like no other's."""
    special = set() if base.tokenizer is None else set(base.tokenizer.all_special_ids)
    return next((i for i, token in enumerate(ids) if token not in special), 0)


def cache_file(base: LanguageModel, layers: Sequence[int]) -> Path:
    """Where the bank of this model at these layers is kept: named by everything that it depends on."""
    known = base.identity
    parts = (
        known.weights_fingerprint,
        known.tokenizer_hash,
        str(base.dtype),
        ",".join(map(str, layers)),
        str(len(donor_texts())),
        *donor_texts(),
    )
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()
    return cache_root() / "donors" / f"{digest[:32]}.safetensors"


def _read(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """The cached tensor, or None where there is none or it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        return None
    try:
        found = load_file(path)["vectors"]
    except (SafetensorError, KeyError, OSError) as error:
        log.warning("the donor bank %s is damaged and is made again: %s", path.name, error)
        return None
    if tuple(found.shape) != shape or not bool(torch.isfinite(found).all()):
        log.warning("the donor bank %s does not fit and is made again", path.name)
        return None
    return found


def _write(path: Path, vectors: Tensor) -> None:
    """A cache that cannot be written costs time, not the answer."""
    from safetensors.torch import save_file

    try:
        with replacing(path) as partial:
            save_file({"vectors": vectors.contiguous()}, partial)
    except StorageError as error:
        log.warning("the donor bank could not be kept in %s: %s", path.parent, error.why)
