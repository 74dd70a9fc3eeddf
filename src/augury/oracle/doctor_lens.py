"""Whether an oracle reads activations at all: its lens loss with real, shuffled and no activations, on twenty texts.

Teacher-forced, so no answer has to be generated: the loss on the tokens that really stood before the read window, and
on those that really came after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch
import yaml
from torch import Tensor

from augury.activations import capture_vectors
from augury.contract import Contract
from augury.lm import LanguageModel, Message, Transcript, render_chat, transcript_of
from augury.lm.adapters import adapters_on
from augury.lm.logprobs import continuation_logprobs
from augury.oracle.passes import Row, Runner
from augury.oracle.prompt import build_prompt

# Training asks in the same words: an oracle is read under the questions that it knows.
LENS_WORDINGS = {
    "past": "Can you predict the previous {k} tokens that came before this?",
    "future": "Can you predict the next {k} tokens that come after this?",
}
K = 5  # tokens to be named
WINDOW = 4  # activations to be read
SURE = 2.0  # standard errors


@dataclass(frozen=True)
class Losses:
    """Nats per answer token, the mean over texts, under each condition.

    Attributes:
        error: The standard error of what the real activations save against the better control, over texts.
    """

    real: float
    shuffled: float
    none: float
    error: float = 0.0

    @classmethod
    def of(cls, by_text: Sequence[Tensor]) -> Losses:
        """From the losses `[texts]` under the three conditions."""
        real, shuffled, none = by_text
        better = shuffled if shuffled.mean() < none.mean() else none
        error = float((better - real).std() / len(real) ** 0.5)
        return cls(float(real.mean()), float(shuffled.mean()), float(none.mean()), error)

    @property
    def reference(self) -> float:
        return min(self.shuffled, self.none)

    @property
    def reads(self) -> bool:
        """Whether the real activations help more than another text's and more than none, and not by luck."""
        return self.reference - self.real > SURE * self.error

    def to_dict(self) -> dict[str, float]:
        return {"real": self.real, "shuffled": self.shuffled, "none": self.none, "error": self.error}


@dataclass(frozen=True)
class LensLosses:
    """Both directions of one contract, over `texts` texts."""

    past: Losses
    future: Losses
    texts: int

    @property
    def real(self) -> float:
        return (self.past.real + self.future.real) / 2

    @property
    def gap(self) -> float:
        """How much the real activations save, nats per token, the mean of both directions."""
        return (self.past.reference - self.past.real + self.future.reference - self.future.real) / 2

    @property
    def reads(self) -> bool:
        return self.past.reads and self.future.reads


@dataclass(frozen=True, eq=False)
class LensText:
    """One text: where it is read, what stands before that and after it."""

    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    answers: dict[str, tuple[int, ...]]


def lens_texts(lm: LanguageModel, contract: Contract | None = None) -> list[LensText]:
    """The built-in texts as this model reads them: an assistant's turn, or plain text where it has no chat template."""
    entries = yaml.safe_load((files("augury.oracle") / "lens_texts.yaml").read_text(encoding="utf-8"))
    kwargs = (contract.chat_template_kwargs if contract is not None else None) or {}
    return [_lens_text(*_rendered(lm, entry, kwargs)) for entry in entries]


def _rendered(lm: LanguageModel, entry: dict[str, str], kwargs: dict[str, Any]) -> tuple[Transcript, int, int]:
    """The transcript, and where its text starts and stops."""
    if not lm.identity.chat_template_hash:
        found = transcript_of(lm, entry["text"])
        return found, 0, len(found)
    found = render_chat(lm, [Message("user", entry["ask"]), Message("assistant", entry["text"])], "closed", kwargs)
    span = next((span for span in reversed(found.spans) if span.role == "assistant"), None)
    return (found, span.start, span.stop) if span is not None else (found, 0, len(found))


def _lens_text(transcript: Transcript, start: int, stop: int) -> LensText:
    """Read a window in the middle of the text: there is as much to name before it as after it."""
    begin = max(start + K, (start + stop - WINDOW) // 2)
    end, ids = begin + WINDOW, transcript.token_ids
    return LensText(ids, tuple(range(begin, end)), {"past": ids[begin - K : begin], "future": ids[end : end + K]})


def text_vectors(lm: LanguageModel, texts: Sequence[LensText], layers: Sequence[int]) -> list[Tensor]:
    """The activations of every text, `[layers, WINDOW, d_model]` each."""
    return capture_vectors(lm, [text.token_ids for text in texts], layers, [text.positions for text in texts])


def lens_losses(
    lm: LanguageModel,
    contract: Contract,
    adapter: str,
    layers: Sequence[int],
    texts: Sequence[LensText],
    vectors: Sequence[Tensor],
    none: Sequence[Tensor] | None = None,
) -> tuple[LensLosses, list[Tensor]]:
    """The lens loss of one contract in both directions.

    Args:
        lm: The model the oracle runs on, its adapter loaded.
        contract: How it is asked.
        adapter: The adapter's name.
        layers: The layers that are read.
        texts: At least two.
        vectors: `[layers, WINDOW, d_model]` of each text.
        none: The losses without activations by text, past and future, where they are known already.

    Returns:
        The losses, and those without activations by text.
    """
    runner = Runner(lm, contract, (adapter,), contract.injection.coefficient)
    shifted = [*vectors[1:], vectors[0]]  # a fixed derangement
    without = [_losses(runner, layers, d, texts, None) for d in LENS_WORDINGS] if none is None else list(none)
    found = []
    for direction, nothing in zip(LENS_WORDINGS, without, strict=True):
        real, shuffled = (_losses(runner, layers, direction, texts, given) for given in (vectors, shifted))
        found.append(Losses.of((real, shuffled, nothing)))
    return LensLosses(*found, texts=len(texts)), without


def _losses(
    runner: Runner, layers: Sequence[int], direction: str, texts: Sequence[LensText], vectors: Sequence[Tensor] | None
) -> Tensor:
    """Nats per answer token of each text, `[texts]`."""
    prompt = build_prompt(runner.lm, runner.contract, layers, WINDOW, LENS_WORDINGS[direction].format(k=K))
    flat = [None] * len(texts) if vectors is None else [vector.flatten(0, 1) for vector in vectors]
    rows = [Row(prompt, vector) for vector in flat]

    def around(group: Sequence[int], offsets: Sequence[int]) -> Any:
        return runner.injection([rows[i] for i in group], offsets)

    with adapters_on(runner.lm.model, runner.adapters):
        found = continuation_logprobs(
            runner.lm,
            [prompt.token_ids] * len(texts),
            [text.answers[direction] for text in texts],
            batch_size=runner.batch_size,
            around=around,
        )
    return torch.stack([-tokens.mean() for tokens in found])
