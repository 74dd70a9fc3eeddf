"""Single answers for those who look: the context with what was read, the truth, and what everyone answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from augury.bench.asks import Ask
from augury.bench.engine import Result
from augury.bench.scorers import likeliest
from augury.bench.task import Task

MOST = 60  # items of a task that are shown; all stand in the answers' own file
TOKENS = 240  # of a context, up to the last that is read


def shown(
    task: Task,
    asks: Sequence[Ask],
    results: Mapping[str, Sequence[Result | None]],
    decode: Callable[[Sequence[int]], str],
) -> list[dict[str, Any]]:
    """A task's first items at its own window, in every wording, JSON-ready."""
    found = []
    items: dict[str, None] = {}
    for i, ask in enumerate(asks):
        items.setdefault(ask.item.id)
        if ask.window != task.window or len(items) > MOST:
            continue
        answers = {rater: _answer(task, ask, rows[i], decode) for rater, rows in results.items()}
        found.append(
            {
                "item": ask.item.id,
                "problem": ask.item.problem,
                "question": ask.question,
                "truth": _truth(task, ask, decode),
                "state": _state(ask),
                **_context(ask, decode),
                "answers": answers,
            }
        )
    return found


def _context(ask: Ask, decode: Callable[[Sequence[int]], str]) -> dict[str, Any]:
    """The tokens up to the last that is read, as text, and which are read."""
    last = ask.positions[-1] + 1
    first = max(0, last - TOKENS)
    read = set(ask.positions)
    return {
        "tokens": [decode([token]) for token in ask.item.token_ids[first:last]],
        "read": [place - first for place in range(first, last) if place in read],
        "cut": first > 0,
    }


def _state(ask: Ask) -> str:
    state = ask.item.state
    if state.planted:
        return f"{state.planted} planted at {state.strength:g} of the norm"
    return f"read by the organism {state.organism}" if state.organism else ""


def _truth(task: Task, ask: Ask, decode: Callable[[Sequence[int]], str]) -> str:
    facts = ask.item.facts
    if task.kind == "tokens":
        return decode([int(token) for token in facts["tokens"].split()])
    if "model_answer" in facts:
        return f"{facts['model_answer']} by the model, {facts['true_answer']} in truth"
    return facts.get(task.truth, "")


def _answer(task: Task, ask: Ask, result: Result | None, decode: Callable[[Sequence[int]], str]) -> str:
    """In words: a text, the likeliest choice with its probability, or the loss of the tokens."""
    if result is None:
        return "not available"
    if "text" in result:
        return result["text"]
    if task.kind == "tokens":
        right = sum(result["likeliest"])
        loss = -sum(result["log_probs"]) / len(result["log_probs"])
        return f"{right} of {len(result['likeliest'])} tokens, {loss:.2f} nats each"
    values = result["log_probs"]
    choice = task.choices_of(ask.item)[likeliest(values)]
    return f"{choice} (margin {values[0] - values[1]:+.2f})" if len(values) == 2 else choice
