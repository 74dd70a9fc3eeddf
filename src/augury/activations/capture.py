"""Take activations from a model: only the layers and rows asked for, and no block above the deepest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from augury.activations.positions import resolve, resolve_layers
from augury.activations.types import Activations, Provenance
from augury.errors import InputError, ModelError
from augury.lm import LanguageModel, Message, Transcript, transcript_of
from augury.lm.adapters import adapters_on
from augury.lm.batch import Padded, columns_of, left_pad
from augury.lm.chat import End
from augury.lm.hooks import StopForward, on_output, stopping
from augury.lm.load import needs_model
from augury.lm.locks import alone

log = logging.getLogger(__name__)

Around = Callable[[Sequence[int], Sequence[int]], AbstractContextManager[Any]]


def capture(
    model: LanguageModel,
    source: Any,
    layers: Any = "62%",
    positions: Any = "last 8",
    *,
    end: End | None = None,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """Capture activations of the target: its own adapter on, every oracle adapter off.

    Args:
        model: The target.
        source: Text, chat messages, token ids or a `Transcript`; or a list of these.
        layers: Layer indices, percents of depth such as `"62%"`, or a sequence of either. Layer `k` is the residual
            stream at the output of block `k`.
        positions: A selector (see `augury.activations.positions.resolve`), the same for every context.
        end: How a conversation ends: `closed`, `generation`, `open` or `thinking`. For messages only.
        batch_size: Contexts per forward pass.
        progress: Called with (contexts done, contexts in all).

    Returns:
        `Activations` for one context, or a list of them for a list of contexts.

    Raises:
        InputError: Nothing to read, too long, an unknown layer, a selector without a match, or `end` for something
            that is not made of messages.
    """
    needs_model(model)
    many = is_batch(source)
    contexts = list(source) if many else [source]
    with alone(model.model):  # the tokenizer too is one thread's at a time
        found = _captured(model, contexts, layers, positions, end, batch_size, progress)
    return found if many else found[0]


def _captured(
    model: LanguageModel,
    contexts: Sequence[Any],
    layers: Any,
    positions: Any,
    end: End | None,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> list[Activations]:
    transcripts = [transcript_of(model, item, end) for item in contexts]
    wanted = resolve_layers(model.n_layers, layers)
    rows = [resolve(model, transcript, positions) for transcript in transcripts]
    log.info("capturing %.2f MB", sum(capture_bytes(model, len(wanted), len(r)) for r in rows) / 1e6)
    vectors = capture_vectors(model, [t.token_ids for t in transcripts], wanted, rows, batch_size, progress)
    provenance = Provenance.of(model)
    return [
        Activations(vector, wanted, row, transcript, provenance)
        for vector, row, transcript in zip(vectors, rows, transcripts, strict=True)
    ]


def is_batch(source: Any) -> bool:
    """Whether `source` is a list of contexts rather than one context."""
    if not isinstance(source, Sequence) or isinstance(source, (str, Transcript)) or not source:
        return False
    first = source[0]
    return not isinstance(first, (Integral, Message)) and not (isinstance(first, dict) and "role" in first)


def capture_bytes(model: LanguageModel, n_layers: int, n_positions: int) -> int:
    """Bytes that a capture writes: one vector per layer and position, in the model's dtype."""
    return n_layers * n_positions * model.d_model * model.dtype.itemsize


def capture_vectors(
    model: LanguageModel,
    sequences: Sequence[Sequence[int]],
    layers: Sequence[int],
    rows: Sequence[Sequence[int]],
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
    around: Around | None = None,
    tokens: int | None = None,
) -> list[Float[Tensor, "layers _ d"]]:
    """Capture `rows[i]` of `sequences[i]` at each layer: a tensor `[layers, n, d_model]` per sequence, on the CPU.

    Nothing right of a sequence's last wanted row is run: a causal model cannot see it from there. `around(places,
    offsets)` gives a context for one batch's forward pass (what changes the target's state goes there). A batch of
    several sequences has at most `tokens`, padding counted.
    """
    if not layers:
        raise InputError("No layer was named.", "the list of layers is empty", "name at least one")
    cut = [list(sequence[: max(row) + 1]) for sequence, row in zip(sequences, rows, strict=True)]
    found: list[Tensor] = [torch.empty(0)] * len(cut)
    done = 0
    for group in model.groups([len(sequence) for sequence in cut], batch_size, tokens):
        batch = left_pad([cut[i] for i in group], model.pad_id, model.device)
        with around(group, batch.offsets) if around is not None else nullcontext():
            taken = _capture_batch(model, batch, layers, [rows[i] for i in group])
        for i, vectors in zip(group, taken, strict=True):
            found[i] = vectors
        done += len(group)
        if progress is not None:
            progress(done, len(cut))
    return found


def _capture_batch(
    model: LanguageModel, batch: Padded, layers: Sequence[int], rows: Sequence[Sequence[int]]
) -> list[Tensor]:
    taken: dict[int, list[Tensor]] = {}
    columns = [columns_of(offset, row) for offset, row in zip(batch.offsets, rows, strict=True)]
    with torch.no_grad(), adapters_on(model.model, model.target_adapters), recording(model, layers, columns, taken):
        model.decoder.trunk(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        )
    return [_finite(model, torch.stack([taken[layer][i] for layer in layers]), layers) for i in range(len(rows))]


def _finite(model: LanguageModel, vectors: Tensor, layers: Sequence[int]) -> Tensor:
    """The captured vectors `[layers, n, d_model]` themselves, or a refusal where one is NaN or infinite."""
    whole = torch.isfinite(vectors).flatten(1).all(1).tolist()
    broken = [layer for layer, fine in zip(layers, whole, strict=True) if not fine]
    if broken:
        raise ModelError(
            "The activations are not finite.",
            f"at layers {broken} {model.name} gave NaN or infinity in {str(model.dtype).removeprefix('torch.')}",
            "load the model with dtype='float32' (or bfloat16 in place of float16), or check its weights",
        )
    return vectors


@contextmanager
def recording(
    model: LanguageModel, layers: Sequence[int], columns: Sequence[Sequence[int]], taken: dict[int, list[Tensor]]
) -> Iterator[None]:
    """Copy the wanted columns inside the hook, and stop the pass after the deepest layer."""
    deepest = max(layers)

    def keep(layer: int) -> Callable[[Tensor], None]:
        def copy(hidden: Tensor) -> None:
            taken[layer] = [hidden[i, wanted].detach().cpu() for i, wanted in enumerate(columns)]
            if layer == deepest:
                raise StopForward

        return copy

    with ExitStack() as stack:
        stack.enter_context(stopping())
        for layer in layers:
            stack.enter_context(on_output(model.blocks[layer], keep(layer)))
        yield
