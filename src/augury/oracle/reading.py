"""What an oracle is given, checked: activations, a context to capture from, or a bare tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from augury.activations import Activations, capture, resolve, resolve_layers
from augury.activations.capture import is_batch
from augury.contract import Contract, check_reads
from augury.errors import InputError
from augury.lm import LanguageModel, transcript_of
from augury.oracle.inject import check_vectors


@dataclass(frozen=True, eq=False)
class Read:
    """Activations that may be asked about, with what the checks had to say."""

    acts: Activations
    notes: tuple[str, ...]


def as_activations(
    base: LanguageModel,
    contract: Contract,
    sources: Sequence[Any],
    layers: Any,
    positions: Any,
    default: str = "last 8",
) -> list[Activations]:
    """Activations from activations, contexts or tensors; contexts are captured together, and equal ones once.

    Args:
        base: The model the oracle runs on, without a target's adapters; contexts are captured from it.
        contract: Names the layers where the caller does not.
        sources: Each is `Activations`; text, messages, token ids or a `Transcript`; or a tensor `[n, d_model]`.
        layers: Layers to read; of `Activations`, a selection among theirs.
        positions: A selector; of `Activations`, a selection among theirs by token position.
        default: The selector for contexts where none was passed; `Activations` are then read whole.

    Raises:
        InputError: Nothing to read, several contexts in one place, a tensor without a layer, or positions that were
            not captured.
    """
    found: dict[int, Activations] = {}
    contexts: dict[Any, Any] = {}
    for i, source in enumerate(sources):
        if isinstance(source, Activations):
            chosen = source if layers is None else source.at_layers(resolve_layers(base.n_layers, layers))
            found[i] = at_positions(base, chosen, positions)
        elif isinstance(source, Tensor):
            found[i] = at_positions(base, _from_tensor(base, source, layers), positions)
        else:
            contexts[_key(source)] = source
    wanted = default if positions is None else positions
    captured = _capture(base, contract, contexts, layers, wanted) if contexts else {}
    return [found[i] if i in found else captured[_key(source)] for i, source in enumerate(sources)]


def _key(source: Any) -> Any:
    return source if isinstance(source, str) else id(source)


def _capture(
    base: LanguageModel, contract: Contract, contexts: dict[Any, Any], layers: Any, positions: Any
) -> dict[Any, Activations]:
    if any(is_batch(source) for source in contexts.values()):
        raise InputError(
            "Several contexts were passed at once.", "one question is asked about one", "use ask_batch or score_batch"
        )
    wanted = default_layers(contract) if layers is None else resolve_layers(base.n_layers, layers)
    transcripts = [transcript_of(base, source) for source in contexts.values()]
    return dict(zip(contexts, capture(base, transcripts, wanted, positions), strict=True))


def _from_tensor(base: LanguageModel, source: Tensor, layers: Any) -> Activations:
    if layers is None:
        why = "a bare tensor does not say where it was taken"
        raise InputError("The layer of these activations is not known.", why, "pass layers=, for example layers=18")
    return Activations.from_tensor(source, resolve_layers(base.n_layers, layers))


def at_positions(base: LanguageModel, acts: Activations, positions: Any) -> Activations:
    """The activations at the tokens that a selector names in their context."""
    if positions is None or (isinstance(positions, str) and positions.strip() == "all"):
        return acts
    if acts.transcript is None:
        why = "a bare tensor does not say which tokens its rows were"
        raise InputError("positions= cannot select here.", why, "slice the tensor itself, and leave positions= out")
    wanted = resolve(base, acts.transcript, positions)
    places = dict(zip(reversed(acts.positions), reversed(range(len(acts))), strict=True))  # of equal ones the first
    missing = [position for position in wanted if position not in places]
    if missing:
        raise InputError(
            f"The positions {positions!s} were not all captured.",
            f"{missing[:8]} are not among the {len(acts)} from {min(acts.positions)} to {max(acts.positions)}",
            "capture them, or select by place among what there is, such as acts[-1]",
        )
    return acts[[places[position] for position in wanted]]


def default_layers(contract: Contract) -> tuple[int, ...]:
    """The first trained layer tuple.

    Raises:
        InputError: The contract does not state which layers were trained.
    """
    if contract.layers is None:
        why = "the contract does not state which layers were trained"
        raise InputError("No layer was named.", why, "pass layers=, or activations captured at the right ones")
    return contract.layers[0]


def check(
    base: LanguageModel, contract: Contract, acts: Activations, off_contract: bool, window: int | None = None
) -> Read:
    """Refuse activations that the oracle cannot read.

    Args:
        base: The model the oracle runs on.
        contract: The oracle's contract.
        acts: The activations.
        off_contract: Warn where the contract would refuse.
        window: In a scan, how many positions go into one prompt. Positions where a difference is noise are then left
            out instead of refused.

    Raises:
        InputError: Wrong width, a zero or non-finite vector, or a difference that is only noise.
        ContractError: Another model, or layers that were not trained.
    """
    known = acts.provenance.model
    n_slots = len(acts.layers) * (len(acts) if window is None else min(window, len(acts)))
    pattern = _pattern(acts) if window != 1 else None
    notes = check_reads(contract, known, acts.layers, n_slots, pattern=pattern, off_contract=off_contract)
    # First: where two models agree to the bit their difference is zero, which is noise and no broken vector.
    kept, dropped = _above_noise(acts, window is not None)
    check_vectors(kept.flat, base.d_model, len(kept.flat))
    return Read(kept, (*notes, *dropped))


def _pattern(acts: Activations) -> str | None:
    """Contiguous windows are what all oracles know; only other patterns are compared with the contract's."""
    steps = {b - a for a, b in zip(acts.positions, acts.positions[1:], strict=False)}
    return None if steps <= {1} else "scattered"


def _above_noise(acts: Activations, drop: bool) -> tuple[Activations, tuple[str, ...]]:
    if acts.provenance.kind != "difference":
        return acts, ()
    relative, floor = acts.relative_norms, acts.noise_floor
    if relative is None or floor is None:
        why = "it carries no norms of the base and no noise floor, so it may be nothing but noise"
        raise InputError("This difference cannot be asked about.", why, "make it with augury.diff(finetuned, base)")
    finite = torch.isfinite(acts.vectors).all(dim=-1)  # what is not finite is broken, and refused as that
    noisy = (finite & ~(relative > floor)).any(dim=0)
    quiet = torch.nonzero(noisy).flatten().tolist()
    if not quiet:
        return acts, ()
    kept = torch.nonzero(~noisy).flatten().tolist()
    where = [acts.positions[i] for i in quiet[:8]]
    if not drop or not kept:
        raise InputError(
            "This difference is not above the noise.",
            f"at {len(quiet)} of {len(acts)} positions (such as {where}) its relative norm is not above {floor:.1e}, "
            "which equal models reach too; norm matching would blow the noise up to full strength",
            f"ask where the models differ: acts[{kept[:8]}]" if kept else "compare models that differ at these tokens",
        )
    return acts[kept], (f"{len(quiet)} positions left out: the difference there is not above the noise",)


def read_text(base: LanguageModel, acts: Activations) -> str | None:
    """The read tokens as text; None for a bare tensor. Gaps between them are written `...`."""
    if acts.transcript is None or base.tokenizer is None:
        return None
    runs = [acts.transcript.token_ids[start:stop] for start, stop in _runs(acts.positions)]
    return " ... ".join(decoded(base, run, special=True) for run in runs)


def window_text(base: LanguageModel, acts: Activations) -> str:
    """Only the read tokens, as text without special tokens: what `text-window` shows."""
    return text_at(base, acts.transcript.token_ids if acts.transcript else (), acts.positions)


def whole_text(base: LanguageModel, acts: Activations) -> str:
    """Everything up to the last read token and nothing right of it: what `text-all` shows."""
    return text_until(base, acts.transcript.token_ids if acts.transcript else (), acts.positions)


def text_at(base: LanguageModel, token_ids: Sequence[int], positions: Sequence[int]) -> str:
    """The tokens at some positions, as text without special tokens; gaps between them are written `...`."""
    return " ... ".join(filter(None, (decoded(base, token_ids[a:b]).strip() for a, b in _runs(positions))))


def text_until(base: LanguageModel, token_ids: Sequence[int], positions: Sequence[int]) -> str:
    """The tokens up to the last of some positions, as text without special tokens."""
    return decoded(base, token_ids[: max(positions) + 1]).strip()


def decoded(base: LanguageModel, ids: Sequence[int], special: bool = False) -> str:
    """Token ids as text."""
    if base.tokenizer is None:
        return ""
    text = base.tokenizer.decode(list(ids), skip_special_tokens=not special)
    return text if isinstance(text, str) else "".join(text)


def _runs(positions: Sequence[int]) -> list[tuple[int, int]]:
    """Consecutive stretches `[start, stop)` of positions, in reading order."""
    runs: list[tuple[int, int]] = []
    for position in sorted(positions):
        if runs and position == runs[-1][1]:
            runs[-1] = (runs[-1][0], position + 1)
        else:
            runs.append((position, position + 1))
    return runs


def without_target(lm: LanguageModel) -> LanguageModel:
    """The same model as a plain base: no adapter on when it is captured from."""
    return replace(lm, target_adapters=(), name=lm.base_name, plain_name=None) if lm.target_adapters else lm
