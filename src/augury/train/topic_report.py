"""The open topic question on held-out rollouts: how often the topic is named, real against shuffled."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from augury.contract import Contract
from augury.data import bank
from augury.data.example import Context, Example
from augury.data.sources.questions import open_question, pick_read, topic_of
from augury.lm import LanguageModel, Sampling
from augury.lm.chat import needs_tokenizer
from augury.oracle.passes import Runner, decode_rows
from augury.oracle.reading import decoded, default_layers
from augury.stats import Interval, wilson
from augury.train.batching import Item, prepare_all
from augury.train.lens_report import shuffled_items
from augury.train.question_report import item_rows, names_topic, window_texts
from augury.train.ranks import ALONE, Ranks
from augury.train.reads import Reads


@dataclass(frozen=True)
class TopicResult:
    """The open topic question: the share of answers that name the topic, real against shuffled.

    `nameless` is the real share where the window's own text does not name the topic; None where it always does.
    """

    window: int
    questions: int
    real: Interval
    shuffled: Interval
    nameless: Interval | None
    examples: tuple[tuple[str, str, str], ...]  # (topic, answer, answer with shuffled activations)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def topic_report(
    lm: LanguageModel,
    contract: Contract,
    adapter: str,
    rollouts: Sequence[Context],
    reads: Reads,
    *,
    window: int,
    count: int,
    seed: int = 0,
    ranks: Ranks = ALONE,
) -> TopicResult:
    """Ask what each held-out rollout is about, greedily, and look for the topic or an alias in whole words."""
    asked = ask_topics(
        lm, contract, adapter, rollouts, reads, window=window, count=count, seed=seed, shuffled=True, ranks=ranks
    )
    hits, false_hits = asked.hits(asked.answers), asked.hits(asked.shuffled)
    texts = window_texts(lm, asked.examples, rollouts)
    named = [names_topic(text, topic) for text, topic in zip(texts, asked.topics, strict=True)]
    nameless = [hit for hit, there in zip(hits, named, strict=True) if not there]
    return TopicResult(
        window,
        len(hits),
        wilson(sum(hits), len(hits)),
        wilson(sum(false_hits), len(false_hits)),
        wilson(sum(nameless), len(nameless)) if nameless else None,
        tuple(zip([t.name for t in asked.topics], asked.answers, asked.shuffled, strict=True))[:24],
    )


@dataclass(frozen=True)
class AskedTopics:
    """The open topic question about held-out rollouts, one each, and what was answered."""

    examples: tuple[Example, ...]
    topics: tuple[bank.Topic, ...]
    answers: tuple[str, ...]
    shuffled: tuple[str, ...]

    def hits(self, answers: Sequence[str]) -> list[bool]:
        """Whether each answer names its topic."""
        return [names_topic(answer, topic) for answer, topic in zip(answers, self.topics, strict=True)]


def ask_topics(
    lm: LanguageModel,
    contract: Contract,
    adapter: str,
    rollouts: Sequence[Context],
    reads: Reads,
    *,
    window: int,
    count: int,
    seed: int = 0,
    shuffled: bool = False,
    ranks: Ranks = ALONE,
) -> AskedTopics:
    """Greedy answers with each rollout's own activations and, where wanted, with another's."""
    layers = default_layers(contract)
    examples = _open_examples(lm, rollouts, window, count, seed)
    asked = [replace(example, layers=layers) for example in examples]
    items = prepare_all(lm, contract, {example.contexts: reads for example in asked}, asked)
    by_id = {rollout.number: rollout for rollout in rollouts}
    donors = shuffled_items(items, rollouts, reads, layers) if shuffled else []
    return AskedTopics(
        tuple(examples),
        tuple(topic_of(by_id[example.context].labels) for example in examples),
        tuple(_answers(lm, contract, adapter, items, ranks)),
        tuple(_answers(lm, contract, adapter, donors, ranks)) if donors else (),
    )


def _open_examples(lm: LanguageModel, rollouts: Sequence[Context], window: int, count: int, seed: int) -> list[Example]:
    """One question for each rollout that has a topic, `count` at most."""
    decode = needs_tokenizer(lm).decode
    rng = random.Random(f"{seed}:open:{window}")
    found: list[Example] = []
    for rollout in rng.sample(list(rollouts), len(rollouts)):
        read = pick_read(rollout, "topic", window, "request_end", rng)
        example = open_question(read, "topic", "heldout", rng, decode) if read else None
        if example is not None and len(found) < count:
            found.append(example)
    return found


def _answers(lm: LanguageModel, contract: Contract, adapter: str, items: Sequence[Item], ranks: Ranks) -> list[str]:
    runner = Runner(lm, contract, (adapter,), contract.injection.coefficient, batch_size=24)
    found = decode_rows(runner, ranks.share(item_rows(items)), Sampling(max_new_tokens=8))
    return ranks.merge([decoded(lm, [t for t in texts[0] if t not in lm.end_ids]).strip() for texts in found])
