"""Contracts of public oracles that carry none, by repository name.

Only what is publicly stated stands here; what is not known is None. Where a guess would be needed, the oracle is
refused with the way to find out.
"""

from __future__ import annotations

import re

from augury.contract.contract import Contract, Injection, LayerTuple, PromptFormat
from augury.errors import ContractError

_COT_ORACLE_OWNER = "ceselder"
# Layers from the published training configuration of the same name. For the last two none is published.
_COT_ORACLES: dict[str, tuple[LayerTuple, ...] | None] = {
    "cot-oracle-paper-ablation-adam-recipe-1layer": ((18,),),
    "cot-oracle-paper-ablation-ours-1layer": ((18,),),
    "cot-oracle-paper-ablation-ours-3layers": ((9, 18, 27),),
    "cot-oracle-paper-ablation-ours-3layers-onpolicy-lens-only": ((9, 18, 27),),
    "cot-oracle-qwen3-8b-final-sprint-checkpoint-no-DPO": None,
    "cot-oracle-grpo-step-500": None,
}
# Trained for the sum rescaled to a multiple of the slot's norm, which ao_config.json has no field for.
_RESCALED = {"qwen3-8b-ao-v3-best-steering2p0": 2.0}
# One family, two operations: until 2025-10-26 activations replaced the slot's row, since then they are added.
_AMBIGUOUS = re.compile(r"(adamkarvonen/)?checkpoints_.+", re.IGNORECASE)


def preset(repository: str) -> Contract | None:
    """The contract of a public oracle without a sidecar.

    Args:
        repository: `owner/name`, or the name alone.

    Returns:
        The contract, or None for a repository that nothing is known of.

    Raises:
        ContractError: The repository is known, but not how its oracle was trained.
    """
    if _AMBIGUOUS.fullmatch(repository):
        raise ContractError(
            f"{repository} has no contract",
            "checkpoints of this family from before 2025-10-26 replace the slot's row, later ones add to it, "
            "and nothing in this one says which",
            "run `augury doctor MODEL --oracle ORACLE`: it tries each and offers the best; or fetch a newer snapshot, "
            "which may carry ao_config.json",
        )
    name = _own_name(repository)
    if name not in _COT_ORACLES:
        return None
    return Contract(
        base_model="Qwen/Qwen3-8B",
        d_model=4096,
        n_layers=36,
        layers=_COT_ORACLES[name],
        injection=Injection(block=1, operation="add", coefficient=1.0),
        prompt=PromptFormat(layout="inline"),
    )


def rescaled(repository: str) -> float | None:
    """The `rescale_to` of a public oracle whose own sidecar cannot state it; None for all others."""
    return _RESCALED.get(_own_name(repository))


def _own_name(repository: str) -> str:
    """The name without its owner, empty where the owner is somebody else."""
    owner, _, name = repository.rpartition("/")
    return name if owner in ("", _COT_ORACLE_OWNER) else ""
