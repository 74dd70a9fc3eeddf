"""System prompts: an instruction that is hidden from view, read in the turns behind it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from augury.bench.item import Item, ItemSet
from augury.bench.own_answers import written
from augury.bench.published_items import published
from augury.bench.task import REGISTRY, Build, Items, NotMeasurable, Task
from augury.bench.texts import texts
from augury.errors import InputError
from augury.lm import Sampling, Transcript, transcript_of

ANSWER = 48  # tokens
WINDOW, POSITIONS = 20, 50
PUBLISHED = "system_prompt_qa/hidden_instruction_eval_dataset.json"
PERSONAS = "system_prompt_qa/latentqa_eval_dataset.json"


def build(wanted: Build) -> Iterator[Item]:
    """Every instruction with some messages, one message a round, and the model's own answer."""
    found = texts("system_prompts")
    instructions, messages = found["instructions"], found["messages"]
    rounds = min(len(messages), -(-wanted.size // len(instructions)))
    rows = [
        (instruction, messages[(place + turn) % len(messages)])
        for turn, (place, instruction) in itertools.product(range(rounds), enumerate(instructions))
    ]
    turns = [_turns(instruction, message) for instruction, message in rows]
    try:
        first = transcript_of(wanted.lm, turns[0], "generation")
    except InputError as error:
        raise NotMeasurable(f"its chat template takes no system prompt ({error.why})") from error
    if "system" not in {span.role for span in first.spans}:
        raise NotMeasurable("its chat template does not hold a system prompt as it is")
    told = written(wanted.lm, turns, Sampling(ANSWER), wanted.told)
    for number, ((instruction, _), (transcript, _)) in enumerate(zip(rows, told, strict=True)):
        yield _item(f"{number}", instruction, instruction, transcript)


def _turns(instruction: str, message: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": instruction}, {"role": "user", "content": message}]


def _item(name: str, problem: str, reference: str, transcript: Transcript) -> Item:
    """Only the user's and the assistant's tokens are read."""
    spans = tuple((span.role, span.start, span.stop) for span in transcript.spans)
    read = [place for role, start, stop in spans if role in ("user", "assistant") for place in range(start, stop)]
    return Item(name, problem, transcript.token_ids, tuple(read[-POSITIONS:]), {"reference": reference}, spans=spans)


def load(wanted: Build, folder: Path) -> ItemSet:
    """The published hidden instructions, with what Qwen3-8B answered, and the personas of LatentQA beside them.

    Raises:
        FormatError: The file is not in the published form.
    """

    def read(row: dict) -> Iterator[Item]:
        turns = [*_turns(row["system_prompt"], row["user_prompt"])]
        turns.append({"role": "assistant", "content": row["assistant_response"]})
        yield _item(str(row["id"]), str(row["id"]), row["ground_truth"], transcript_of(wanted.lm, turns, "open"))

    found = published("system_prompts", folder, PUBLISHED, read)
    if not (folder / PERSONAS).is_file():
        return found
    return replace(found, items=(*found.items, *published("system_prompts", folder, PERSONAS, read).items))


REGISTRY.add(
    Items("system_prompts", "instructions of this package, answers of the target", "that of this package", build, load),
    Task(
        "system_prompt_qa",
        "the instruction or role that was given before the turns that are read",
        "system_prompts",
        "open",
        tuple(texts("system_prompts")["questions"]),
        window=WINDOW,
        new_tokens=48,
        rubric="instruction",
    ),
)
