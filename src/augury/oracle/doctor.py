"""What a model must do before anything that is read from it can be believed: tried on the model itself, in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from augury.contract import Contract, Injection, PromptFormat
from augury.errors import AuguryError
from augury.lm import LanguageModel, render_chat
from augury.lm.adapters import active_adapters, adapters_on
from augury.lm.hooks import on_output
from augury.oracle.doctor_model import (
    Verdict,
    id_tensor,
    own_hidden_states,
    sample_ids,
    try_blocks,
    try_cache,
    try_capture,
    try_injection,
    try_padding,
)
from augury.oracle.prompt import slot_id


@dataclass(frozen=True)
class Check:
    """One thing that was tried.

    Attributes:
        name: What was tried.
        ok: Whether it holds.
        detail: The figures, in one line.
        seconds: How long it took.
    """

    name: str
    ok: bool
    detail: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "ok": self.ok, "detail": self.detail, "seconds": round(self.seconds, 3)}


def check_model(lm: LanguageModel, progress: Callable[[str], None] | None = None) -> list[Check]:
    """Try everything that reading a model rests on; nothing of the model is changed for good.

    Args:
        lm: The model, with or without a tokenizer.
        progress: Called with the name of each check before it is made.
    """
    trials: list[tuple[str, Callable[[LanguageModel], Verdict]]] = [
        ("blocks", try_blocks),
        ("capture", try_capture),
        ("injection", try_injection),
        ("padding", try_padding),
        ("cache", try_cache),
    ]
    _warm_up(lm)
    before = _state(lm)
    found = []
    for name, trial in trials:
        if progress is not None:
            progress(name)
        found.append(timed(name, lambda trial=trial: trial(lm)))
    found.append(timed("restored", lambda: _restored(lm, before)))
    return [*found, *_tokenizer_checks(lm)]


def timed(name: str, trial: Callable[[], Verdict]) -> Check:
    """Make one check. What it raises is its finding: a doctor reports, whatever the patient does."""
    start = time.perf_counter()
    try:
        ok, detail = trial()
    except AuguryError as error:
        ok, detail = False, error.brief()
    except Exception as error:  # a stranger's model may raise anything
        ok, detail = False, f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return Check(name, ok, detail, time.perf_counter() - start)


def _warm_up(lm: LanguageModel) -> None:
    """Transformers puts hooks of its own on a model when hidden states are first asked for, and leaves them there."""
    try:
        own_hidden_states(lm, sample_ids(lm, 2))
    except Exception:  # reported by the check itself
        return


@dataclass(frozen=True)
class _State:
    hooks: int
    adapters: tuple[str, ...]
    training: tuple[bool, ...]
    trainable: int
    grad: bool


def _state(lm: LanguageModel) -> _State:
    modules = list(lm.model.modules())
    return _State(
        hooks=sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules),
        adapters=active_adapters(lm.model),
        training=tuple(m.training for m in modules),
        trainable=sum(p.requires_grad for p in lm.model.parameters()),
        grad=torch.is_grad_enabled(),
    )


def _restored(lm: LanguageModel, before: _State) -> Verdict:
    """Everything is as it was, also after an exception in the middle of a capture."""

    def fail(hidden: Tensor) -> None:
        raise KeyboardInterrupt

    try:
        with torch.no_grad(), adapters_on(lm.model, ()), on_output(lm.blocks[0], fail):
            lm.logits(keep=1, input_ids=id_tensor(lm, sample_ids(lm, 4)))
    except KeyboardInterrupt:
        pass
    after = _state(lm)
    if after == before:
        return True, f"{before.hooks} hooks, adapters on: {', '.join(before.adapters) or 'none'}; modes as before"
    fields = before.__dataclass_fields__
    return False, f"changed: {', '.join(name for name in fields if before.__dict__[name] != after.__dict__[name])}"


def _tokenizer_checks(lm: LanguageModel) -> list[Check]:
    if lm.tokenizer is None:
        return [Check("tokenizer", True, "there is none: only token ids can be read", 0.0)]
    return [
        timed("chat template", lambda: _chat_template(lm)),
        timed("one BOS", lambda: _one_bos(lm)),
        timed("slot token", lambda: _slot_token(lm)),
    ]


def _chat_template(lm: LanguageModel) -> Verdict:
    if not lm.identity.chat_template_hash:
        return False, "the tokenizer has none: an oracle needs a contract with a fallback_template"
    rendered = render_chat(lm, [{"role": "user", "content": "What is this about?"}], "generation")
    if not rendered.spans:
        return False, "the template rewrites the user's turn, so slots cannot be placed in it"
    return True, f"a question renders to {len(rendered)} tokens"


def _one_bos(lm: LanguageModel) -> Verdict:
    """At most one BOS, and exactly one where the tokenizer or the template puts it."""
    tokenizer: Any = lm.tokenizer
    bos = tokenizer.bos_token_id
    if bos is None:
        return True, "this model has no BOS token"
    texts = [list(tokenizer("What is this?", add_special_tokens=True)["input_ids"])]
    if lm.identity.chat_template_hash:
        texts.append(list(render_chat(lm, [{"role": "user", "content": "What is this?"}], "generation").token_ids))
    leading = [next((i for i, token in enumerate(ids) if token != bos), len(ids)) for ids in texts]
    counts = ", ".join(map(str, leading))
    return max(leading) <= 1, f"{tokenizer.bos_token!r} at the start of text and of chat: {counts}"


def _slot_token(lm: LanguageModel) -> Verdict:
    prompt = PromptFormat()
    return True, f"{prompt.slot_token!r} is one token, {slot_id(lm, Contract(injection=Injection(), prompt=prompt))}"
