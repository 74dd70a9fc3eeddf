"""Golden cases: what the public reference implementation gave on a tiny model, run again through our own path.

Source of the cases: `adamkarvonen/activation_oracles` (MIT); the folder's form is described in docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from augury.activations import capture_vectors
from augury.contract import Injection
from augury.errors import FormatError, NotFoundError
from augury.lm import LanguageModel, Sampling, load_model
from augury.lm.adapters import adapters_on, load_adapter
from augury.lm.batch import columns_of, left_pad
from augury.lm.generate import decode
from augury.oracle.inject import injecting

CAPTURE_BOUND, LOGITS_BOUND = 1e-5, 1e-4
ADAPTER = "golden"
AGAIN = "make the case again"


class Case(BaseModel):
    """`case.json`: the inputs. What else stands there tells people how the case was made."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    contexts: list[list[int]]
    context_layers: list[int]
    context_positions: list[list[int]]
    injected_layer_source: int
    prompts: list[list[int]]
    placeholder_id: int
    injection_layer: int
    operation: Literal["add", "replace"]
    coefficients: list[float]
    max_new_tokens: int
    pad_id: int = 0


@dataclass(frozen=True)
class CaseResult:
    """How far our results are from the reference's.

    Attributes:
        capture_max_abs: Largest difference of a captured activation, or of an injected vector.
        logits_max_abs: Largest difference of a last-position logit, with any coefficient and without injection.
        greedy_equal: Whether all greedy tokens are equal.
        details: The same for each tensor of the case.
    """

    capture_max_abs: float
    logits_max_abs: float
    greedy_equal: bool
    details: dict[str, float]

    def broken(self) -> list[str]:
        """The bounds that are not kept. A figure that is not a number is within none."""
        kept = {
            f"capture_max_abs is above {CAPTURE_BOUND:g}": self.capture_max_abs <= CAPTURE_BOUND,
            f"logits_max_abs is above {LOGITS_BOUND:g}": self.logits_max_abs <= LOGITS_BOUND,
            "greedy tokens differ": self.greedy_equal,
        }
        return [name for name, holds in kept.items() if not holds]

    @property
    def passed(self) -> bool:
        return not self.broken()


def run_case(folder: Path) -> CaseResult:
    """Run one golden case.

    Args:
        folder: Holds `model/`, `adapter/`, `case.json` and `expected.safetensors`.

    Raises:
        NotFoundError: One of these is missing.
        FormatError: The case names inputs that cannot be used.
    """
    case, expected = _read(folder)
    lm = load_model(folder / "model", dtype=torch.float32, device_map="cpu", attn_implementation="eager")
    load_adapter(lm, folder / "adapter", ADAPTER)
    details = _captures(lm, case, expected)
    capture = max(details.values())
    logits, greedy = _answers(lm, case, expected)
    return CaseResult(capture, max(logits.values()), all(greedy.values()), {**details, **logits, **_floats(greedy)})


def _read(folder: Path) -> tuple[Case, dict[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    wanted = ("case.json", "expected.safetensors", "model", "adapter")
    missing = [name for name in wanted if not (folder / name).exists()]
    if missing:
        raise NotFoundError(
            f"{folder} is no golden case.", f"{', '.join(missing)} missing", "name a folder such as tests/golden/llama"
        )
    try:
        case = Case.model_validate_json((folder / "case.json").read_text(encoding="utf-8"))
        return case, load_file(folder / "expected.safetensors")
    except ValidationError as error:
        why = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'all'}: {e['msg']}" for e in error.errors())
        raise FormatError(f"{folder}/case.json cannot be used.", why, AGAIN) from error
    except (ValueError, SafetensorError) as error:
        raise FormatError(f"{folder} is a broken golden case.", str(error), AGAIN) from error


def _captures(lm: LanguageModel, case: Case, expected: dict[str, Tensor]) -> dict[str, float]:
    """Whole contexts at every layer, then the rows that are injected."""
    layers, contexts = case.context_layers, case.contexts
    found = {}
    whole = capture_vectors(lm, contexts, layers, [range(len(context)) for context in contexts])
    for i, vectors in enumerate(whole):
        for layer, rows in zip(layers, vectors, strict=True):
            name = f"acts_l{layer}_ctx{i}"
            found[name] = _distance(rows, _wanted(expected, name))
    for i, vectors in enumerate(vectors_of(lm, case)):
        found[f"vectors_{i}"] = _distance(vectors, _wanted(expected, f"vectors_{i}"))
    return found


def vectors_of(lm: LanguageModel, case: Case) -> list[Tensor]:
    """The vectors that each prompt receives: `[slots, d_model]`."""
    source = case.injected_layer_source
    return [v[0] for v in capture_vectors(lm, case.contexts, [source], case.context_positions)]


def _answers(
    lm: LanguageModel, case: Case, expected: dict[str, Tensor], injection: Injection | None = None
) -> tuple[dict[str, float], dict[str, bool]]:
    site = injection or Injection(block=case.injection_layer, operation=case.operation)
    prompts, vectors = case.prompts, vectors_of(lm, case)
    batch = left_pad(prompts, case.pad_id, lm.device)
    fillers = {case.pad_id, lm.pad_id, *lm.end_ids}
    slots = [
        columns_of(offset, [i for i, token in enumerate(prompt) if token == case.placeholder_id])
        for offset, prompt in zip(batch.offsets, prompts, strict=True)
    ]

    def inputs() -> dict[str, Tensor]:
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "position_ids": batch.position_ids,
        }

    def filled(coefficient: float) -> AbstractContextManager[None]:
        return injecting(lm, site, slots, vectors, coefficient)

    logits: dict[str, float] = {}
    greedy: dict[str, bool] = {}
    with torch.no_grad(), adapters_on(lm.model, [ADAPTER]):
        plain = lm.logits(1, **inputs())[:, -1]
        logits["logits_no_injection"] = _distance(plain, _wanted(expected, "logits_no_injection"))
        for coefficient in case.coefficients:
            with filled(coefficient):
                last = lm.logits(1, **inputs())[:, -1]
            logits[f"logits_coef{coefficient}"] = _distance(last, expected[_key(expected, "logits_coef", coefficient)])
            tokens = decode(lm, batch, Sampling(case.max_new_tokens), prefill=lambda c=coefficient: filled(c))
            want = expected[_key(expected, "greedy_coef", coefficient)]
            found = [row[0] for row in tokens]
            greedy[f"greedy_coef{coefficient}"] = equal_tokens(found, want.tolist(), fillers)
    return logits, greedy


def _wanted(expected: dict[str, Tensor], name: str) -> Tensor:
    if name not in expected:
        raise FormatError("The golden case is incomplete.", f"it has no {name}", AGAIN)
    return expected[name]


def _key(expected: dict[str, Tensor], stem: str, coefficient: float) -> str:
    """The file's own spelling of a coefficient (`1`, `1.0`)."""
    for name in expected:
        if name.startswith(stem) and float(name.removeprefix(stem)) == coefficient:
            return name
    raise FormatError("The golden case is incomplete.", f"it has no {stem}{coefficient}", AGAIN)


def equal_tokens(found: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]], fillers: Set[int]) -> bool:
    """Equal up to where ours ended; from there on the reference has nothing but `fillers`, padding and end tokens."""
    pairs = [(list(a), list(b)) for a, b in zip(found, wanted, strict=True)]
    return all(a == b[: len(a)] and set(b[len(a) :]) <= fillers for a, b in pairs)


def _distance(found: Tensor, wanted: Tensor) -> float:
    """The largest difference; infinite where the shapes differ or a value is not a number, which `max` would hide."""
    if found.shape != wanted.shape:
        return float("inf")
    return float((found.float().cpu() - wanted.float()).abs().nan_to_num(nan=float("inf")).max())


def _floats(greedy: dict[str, bool]) -> dict[str, float]:
    return {name: float(equal) for name, equal in greedy.items()}
