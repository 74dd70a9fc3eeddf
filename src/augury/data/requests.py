"""What an OpenAI-compatible endpoint is asked and how: its settings, requests, replies, and what they cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from augury.data.sources.base import Settings
from augury.lm.chat import Message

HOW = frozenset(("url", "key_env", "concurrency", "retries", "timeout_s", "prices", "replies", "length_field"))
"""The settings that say how is asked, not what: no part of what a data set is made from."""


class Prices(Settings):
    """What a million tokens cost, in any currency."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class EndpointSettings(Settings):
    """An OpenAI-compatible endpoint.

    Attributes:
        url: Its base, such as `http://localhost:8000/v1`.
        model: The model's name there.
        key_env: The environment variable that holds the key; an endpoint that needs none gets none.
        temperature: 0 is greedy.
        max_tokens: Tokens of a reply, at most.
        length_field: What the endpoint calls `max_tokens`; newer OpenAI models take `max_completion_tokens` only.
        concurrency: Requests at a time.
        retries: Further tries after 429, 5xx, timeouts, broken connections and replies that are none.
        timeout_s: Seconds that one try may take.
        prices: To tell what it costs.
        replies: The file that keeps the replies; None: one beside what is made from them.
    """

    url: str
    model: str = Field(min_length=1)
    key_env: str | None = "OPENAI_API_KEY"
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=512, gt=0)
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    concurrency: int = Field(default=8, gt=0)
    retries: int = Field(default=5, ge=0)
    timeout_s: float = Field(default=120.0, gt=0)
    prices: Prices | None = None
    replies: Path | None = None

    @field_validator("url")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it begins with http:// or https:// and names a host")
        if parts.username or parts.password or parts.query:
            raise ValueError("a key does not belong into it: name the environment variable that holds it in key_env")
        return value


class TargetSettings(EndpointSettings):
    """An endpoint that serves the target itself; length and temperature are the rollouts' own.

    Attributes:
        tokens: What the endpoint is asked for beside the text, so that the sampled tokens are known: `token_ids`
            (vLLM's `return_token_ids`), `logprobs` (with each token's text), or nothing. Where it gives neither, the
            text is encoded again, which is not always what was sampled.
    """

    tokens: Literal["token_ids", "logprobs", "none"] = "logprobs"


@dataclass(frozen=True)
class Request:
    """What is asked; where `temperature` or `max_tokens` are None, the settings' hold.

    Attributes:
        messages: The conversation.
        temperature: 0 is greedy.
        max_tokens: Tokens of the reply, at most.
        top_p: Nucleus sampling.
        seed: Of the sampling.
        extra: Further fields of the request's body.
    """

    messages: tuple[Message, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(self, settings: EndpointSettings) -> dict[str, Any]:
        """All that is sent."""
        found: dict[str, Any] = {
            "model": settings.model,
            "messages": [{"role": message.role, "content": message.content} for message in self.messages],
            "temperature": settings.temperature if self.temperature is None else self.temperature,
            settings.length_field: self.max_tokens or settings.max_tokens,
        }
        chosen = {"top_p": self.top_p, "seed": self.seed}
        return {**found, **{name: value for name, value in chosen.items() if value is not None}, **self.extra}


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        text: What the model said.
        finish: Why it ended: `stop`, `length` or what the endpoint says.
        prompt_tokens: Tokens that it read; None where the endpoint does not say.
        completion_tokens: Tokens that it wrote.
        choice: The raw choice, with the tokens where they were asked for.
        raw: All of it.
    """

    text: str
    finish: str
    prompt_tokens: int | None
    completion_tokens: int | None
    choice: dict[str, Any]
    raw: dict[str, Any]


@dataclass(frozen=True)
class Usage:
    """What an endpoint was used for.

    Attributes:
        calls: Requests that it answered now.
        kept: Requests whose replies were kept from before.
        prompt_tokens: Read in these calls.
        completion_tokens: Written in these calls.
        cost: Of these calls; None where no prices are given.
    """

    calls: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None


def parsed(raw: Any) -> Reply:
    """The reply in a raw chat completion; ValueError where it is none."""
    try:
        choice, usage = raw["choices"][0], raw.get("usage") or {}
        text = choice["message"].get("content") or ""
        if not isinstance(text, str):
            raise TypeError("the content is no text")
        counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
        return Reply(text, str(choice.get("finish_reason")), *counts, choice, raw)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no chat completion: {json.dumps(raw)[:200]}") from error
