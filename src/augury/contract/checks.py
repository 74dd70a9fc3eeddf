"""What a contract refuses and what it warns of.

The oracle *runs on* one model, its base; what it *reads* may be a fine-tune with the same coordinates.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from augury.contract.contract import Contract
from augury.errors import ContractError

logger = logging.getLogger(__name__)


class ModelIdentity(BaseModel):
    """Which model this is, as far as it could be found out (None: it could not).

    Attributes:
        name: Name on the hub, or path.
        revision: Revision of the weights.
        d_model: Width of the residual stream.
        n_layers: Number of decoder blocks.
        vocab_size: Number of token ids.
        tokenizer_hash: As in `Contract`.
        weights_fingerprint: As in `Contract`.
        chat_template_hash: As in `Contract`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    revision: str | None = None
    d_model: int
    n_layers: int
    vocab_size: int | None = None
    tokenizer_hash: str | None = None
    weights_fingerprint: str | None = None
    chat_template_hash: str | None = None


class _Refusal(NamedTuple):
    why: str
    instead: str


def check_runs_on(contract: Contract, identity: ModelIdentity, off_contract: bool = False) -> list[str]:
    """Check that the oracle may run on this model: it must be the contract's base.

    Args:
        contract: The oracle's contract.
        identity: The model to run on.
        off_contract: Turn refusals into loud warnings.

    Returns:
        Warnings, one line each, and one line that names the checks that could not be made.

    Raises:
        ContractError: Other width, depth, tokenizer or weights.
    """
    instead = f"load the oracle's base, {_base(contract)} (--model), or take an oracle trained for {identity.name}"
    refusals = [_Refusal(why, instead) for why in _coordinates(contract, identity)]
    refused, warned = _weights(contract, identity)
    refusals += [_Refusal(why, instead) for why in refused]
    notes = [*warned, *_template(contract, identity)]
    fields = ("d_model", "n_layers", "tokenizer_hash", "weights_fingerprint", "chat_template_hash")
    notes += _unchecked(contract, identity, fields)
    what = f"this oracle does not run on {identity.name}"
    return _settle(what, refusals, notes, off_contract)


def check_reads(
    contract: Contract,
    target: ModelIdentity | None,
    layers: Sequence[int],
    n_slots: int,
    *,
    pattern: str | None = None,
    off_contract: bool = False,
) -> list[str]:
    """Check that the oracle may read these activations.

    Args:
        contract: The oracle's contract.
        target: The model the activations come from; None where nobody knows (a bare tensor).
        layers: The layers that were read, in the order of the slots.
        n_slots: The number of activations, over all layers.
        pattern: How the positions were chosen, in the words of `Positions.pattern`; None skips the comparison.
        off_contract: Turn refusals into loud warnings.

    Returns:
        Warnings, one line each, and one line that names the checks that could not be made.

    Raises:
        ContractError: Other width, depth or vocabulary, or layers that the oracle was not trained on.
    """
    refusals: list[_Refusal] = []
    notes: list[str] = []
    if target is not None:
        instead = f"capture from {_base(contract)} or a fine-tune of it"
        refusals += [_Refusal(why, instead) for why in _coordinates(contract, target)]
        notes += _template(contract, target)
        notes += _unchecked(contract, target, ("d_model", "n_layers", "tokenizer_hash", "chat_template_hash"))
    else:
        notes.append("not checked: which model the activations come from (they do not say)")
    refusals += _untrained(contract, layers)
    notes += _positions(contract, n_slots, pattern)
    if contract.layers is None:
        notes.append("not checked: the layers (the contract does not state which were trained)")
    source = f" of {target.name}" if target else ""
    what = f"this oracle does not read layers {list(layers)}{source}"
    return _settle(what, refusals, notes, off_contract)


def _settle(what: str, refusals: list[_Refusal], notes: list[str], off_contract: bool) -> list[str]:
    """Raise the refusals as one error, or say them loudly."""
    if refusals and not off_contract:
        instead = [*(refusal.instead for refusal in refusals), "off_contract (--off-contract) goes ahead regardless"]
        raise ContractError(what, "; ".join(refusal.why for refusal in refusals), _join(instead))
    loud = [f"off contract: {refusal.why}" for refusal in refusals]
    for line in loud:
        warnings.warn(f"{line}. Answers may mean nothing.", stacklevel=3)
    for note in notes:
        logger.info(note)
    return loud + notes


def _join(parts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(parts))


def _base(contract: Contract) -> str:
    name = contract.base_model or "the model it was trained on (the contract does not name it)"
    return f"{name} at revision {contract.revision}" if contract.revision else name


def _coordinates(contract: Contract, model: ModelIdentity) -> list[str]:
    """Width, depth and token ids: without them vectors and prompts mean something else."""
    pairs = (("width", contract.d_model, model.d_model), ("depth", contract.n_layers, model.n_layers))
    found = [
        f"its {word} is {have}, the contract's base has {want}"
        for word, want, have in pairs
        if want is not None and want != have
    ]
    if _differ(contract.tokenizer_hash, model.tokenizer_hash):
        size = f" ({model.vocab_size} ids)" if model.vocab_size else ""
        found.append(f"its vocabulary{size} is not that of the contract's base: token ids mean something else")
    return found


def _differ(want: str | None, have: str | None) -> bool:
    return want is not None and have is not None and want != have


def _weights(contract: Contract, model: ModelIdentity) -> tuple[list[str], list[str]]:
    """Refusals and warnings about other weights than the contract's.

    The base at another revision (or an unnamed one) is close enough to warn; another model is not the base, and one
    revision that has two sets of weights is damaged.
    """
    same_name = contract.base_model is None or contract.base_model.casefold() == model.name.casefold()
    if not _differ(contract.weights_fingerprint, model.weights_fingerprint):
        unknown = contract.weights_fingerprint is None or model.weights_fingerprint is None
        named = f"running on {model.name}, trained on {_base(contract)}: whether the weights agree is not known"
        return [], [named] if unknown and not same_name else []
    if same_name and (contract.revision is None or contract.revision != model.revision):
        there, here = contract.revision or "not named", model.revision or "not named"
        return [], [f"other weights than in training: revision {here}, the contract's is {there}"]
    return ["its weights are not those of the contract's base"], []


def _template(contract: Contract, model: ModelIdentity) -> list[str]:
    if not _differ(contract.chat_template_hash, model.chat_template_hash):
        return []
    return [f"the chat template of {model.name} is not the one of training"]


def _unchecked(contract: Contract, model: ModelIdentity, fields: Iterable[str]) -> list[str]:
    """One line that names the checks for which a side is missing."""
    ours, theirs = contract.model_dump(), model.model_dump()
    missing = [field for field in fields if ours[field] is None or theirs[field] is None]
    return [f"not checked, because it is not stated: {', '.join(missing)}"] if missing else []


def _untrained(contract: Contract, layers: Sequence[int]) -> list[_Refusal]:
    if contract.trained_layers(layers):
        return []
    trained = ", ".join(str(list(known)) for known in contract.layers or ())
    why = f"it was not trained on layers {list(layers)} (together, in this order)"
    return [_Refusal(why, f"capture one of the trained layer tuples: {trained}")]


def _positions(contract: Contract, n_slots: int, pattern: str | None) -> list[str]:
    trained = contract.positions
    if trained is None:
        return ["not checked: the positions (the contract does not state them)"]
    found = []
    if trained.max_slots is not None and n_slots > trained.max_slots:
        found.append(f"{n_slots} slots, trained on at most {trained.max_slots}")
    if pattern is not None and pattern != trained.pattern:
        found.append(f"positions chosen as {pattern!r}, trained on {trained.pattern!r}")
    return found
