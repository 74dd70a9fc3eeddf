"""Yes/no and open questions on held-out topics, prompts and wordings, each beside its controls."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from augury.contract import Contract
from augury.data import bank
from augury.data.example import Example
from augury.data.rollouts import Rollout
from augury.data.sources.questions import Place, open_question, pick_read, speaker, yes_no_pair
from augury.lm import LanguageModel, Sampling
from augury.lm.chat import needs_tokenizer
from augury.oracle.choices import YES_NO, spell
from augury.oracle.consensus import normalise_answer
from augury.oracle.controls import reader_text
from augury.oracle.passes import Row, Runner, decode_rows, next_logprobs
from augury.oracle.prompt import Prompt, plain_prompt
from augury.oracle.reading import default_layers
from augury.stats import Interval, auc_interval, bootstrap_interval, probe_auc
from augury.train.batching import Item, prepare
from augury.train.lens_report import shuffled_items
from augury.train.reads import Reads
from augury.train.topic_probe import TopicProbe

BOOTSTRAP = 1000
PROBE_READS = 300
BINARY = {"sentiment": "positive", "person": "first", "tense": "past", "speaker": "the assistant"}


@dataclass(frozen=True)
class YesNoResult:
    """AUC of one kind of question at one window length, balanced within each wording, beside its controls."""

    kind: str
    window: int
    questions: int
    rollouts: int
    auc: dict[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def yes_no_examples(
    rollouts: Sequence[Rollout],
    counts: dict[str, int],
    window: int,
    decode: Callable[[Sequence[int]], str],
    place: Place = "request_end",
    seed: int = 0,
) -> list[Example]:
    """Held-out pairs, `counts[kind]` of each kind (fewer where the rollouts have no more), all reads of one length."""
    found: list[Example] = []
    for kind, count in counts.items():
        rng = random.Random(f"{seed}:{kind}:{window}")
        pairs: list[tuple[Example, ...]] = []
        for _ in range(6):  # a rollout may be asked several times, at other places and in other words
            for rollout in rng.sample(list(rollouts), len(rollouts)):
                read = pick_read(rollout, kind, window, place, rng)
                pair = yes_no_pair(read, kind, "heldout", rng, decode) if read else ()
                if pair and len(pairs) < count:
                    pairs.append(pair)
        found.extend(example for pair in pairs for example in pair)
    return found


def yes_no_report(
    lm: LanguageModel,
    contract: Contract,
    adapter: str,
    examples: Sequence[Example],
    rollouts: Sequence[Rollout],
    reads: Reads,
    *,
    controls: Sequence[str] = ("shuffled", "none", "untrained", "text-window", "text-all"),
    topic_probe: TopicProbe | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> list[YesNoResult]:
    """AUCs over all examples ("all") and over each kind; kinds with fewer than two rollouts are left out.

    `probe` stands beside the kinds whose own label is binary (`binary_probe`) and, given one, beside the topic's.
    """
    examples = _measurable(examples)
    layers = default_layers(contract)
    items = [prepare(lm, contract, layers, reads, example) for example in examples]
    margins = {"oracle": _margins(lm, contract, (adapter,), _rows(items))}
    for name in controls:
        if progress is not None:
            progress(name, len(items))
        adapters = (adapter,) if name in ("shuffled", "none") else ()
        margins[name] = _margins(lm, contract, adapters, _control_rows(lm, contract, name, items, rollouts, reads))
    kinds = list(dict.fromkeys(example.kind for example in examples))
    found = [_yes_no(kind, examples, margins) for kind in ("all", *kinds)]
    return [_with_probe(result, lm, layers, examples, rollouts, reads, topic_probe) for result in found]


def _measurable(examples: Sequence[Example]) -> list[Example]:
    """An interval over rollouts needs two of them."""
    of_kind: dict[str, set[int]] = {}
    for example in examples:
        of_kind.setdefault(example.kind, set()).add(example.rollout)
    return [example for example in examples if len(of_kind[example.kind]) > 1]


def _with_probe(
    result: YesNoResult,
    lm: LanguageModel,
    layers: Sequence[int],
    examples: Sequence[Example],
    rollouts: Sequence[Rollout],
    reads: Reads,
    topic_probe: TopicProbe | None,
) -> YesNoResult:
    if result.kind in ("topic", "near_topic") and topic_probe is not None:
        asked = [example for example in examples if example.kind == result.kind]
        scores = topic_probe.scores(asked, reads)
        groups, wordings = [e.rollout for e in asked], [e.wording for e in asked]
        probe = auc_interval(scores, [e.yes for e in asked], groups, within=wordings, n=BOOTSTRAP)
    elif result.kind in BINARY:
        probe = binary_probe(lm, layers, rollouts, reads, result.kind, result.window)
    else:
        probe = None
    return result if probe is None else replace(result, auc={**result.auc, "probe": probe})


def _yes_no(kind: str, examples: Sequence[Example], margins: dict[str, np.ndarray]) -> YesNoResult:
    places = [i for i, example in enumerate(examples) if kind in ("all", example.kind)]
    labels = [examples[i].yes for i in places]
    groups = [examples[i].rollout for i in places]
    wordings = [examples[i].wording for i in places]
    auc = {
        name: auc_interval(values[places], labels, groups, within=wordings, n=BOOTSTRAP)
        for name, values in margins.items()
    }
    return YesNoResult(kind, len(examples[places[0]].positions), len(places), len(set(groups)), auc)


def _rows(items: Sequence[Item], vectors: bool = True) -> list[Row]:
    return [
        Row(
            Prompt(i.labelled.token_ids[: i.labelled.answer_start], i.labelled.slots, i.labelled.slots[-1] + 1),
            i.vectors if vectors else None,
        )
        for i in items
    ]


def _control_rows(
    lm: LanguageModel,
    contract: Contract,
    name: str,
    items: Sequence[Item],
    rollouts: Sequence[Rollout],
    reads: Reads,
) -> list[Row]:
    layers = default_layers(contract)
    if name == "shuffled":
        return _rows(shuffled_items(items, rollouts, reads, layers))
    if name in ("none", "untrained"):
        return _rows(items, vectors=name == "untrained")
    by_id = {rollout.id: rollout for rollout in rollouts}
    return [_text_row(lm, contract, name, item.example, by_id[item.example.rollout]) for item in items]


def _text_row(lm: LanguageModel, contract: Contract, name: str, example: Example, rollout: Rollout) -> Row:
    """The plain base reads the decoded text instead, and nothing right of the last position."""
    start = example.positions[0] if name == "text-window" else rollout.user[0]
    text = needs_tokenizer(lm).decode(
        list(rollout.token_ids[start : example.positions[-1] + 1]), skip_special_tokens=True
    )
    asked = reader_text(text, contract.prompt.yes_no_prefix + example.question)
    return Row(plain_prompt(lm, contract, asked), None)


def _margins(lm: LanguageModel, contract: Contract, adapters: tuple[str, ...], rows: Sequence[Row]) -> np.ndarray:
    spellings = spell(lm, contract, YES_NO).ids
    ids = [token for choice in spellings for token in choice]
    runner = Runner(lm, contract, adapters, contract.injection.coefficient, batch_size=24)
    found: Tensor = next_logprobs(runner, rows, ids)
    yes = found[:, : len(spellings[0])].logsumexp(-1)
    no = found[:, len(spellings[0]) :].logsumexp(-1)
    return (yes - no).numpy()


def binary_probe(
    lm: LanguageModel, layers: Sequence[int], rollouts: Sequence[Rollout], reads: Reads, kind: str, window: int
) -> Interval | None:
    """A linear probe for a kind's own binary label, cross-validated over held-out rollouts, on reads like the asked.

    None where either label has fewer than 20 rollouts.
    """
    pairs = yes_no_examples(rollouts, {kind: PROBE_READS}, window, needs_tokenizer(lm).decode)
    by_id = {rollout.id: rollout for rollout in rollouts}
    used = [example for example in pairs if example.yes]
    labels = [
        speaker(by_id[e.rollout], e.positions[-1]) if kind == "speaker" else by_id[e.rollout].labels[kind] for e in used
    ]
    y = [label == BINARY[kind] for label in labels]
    rollouts_of = {
        label: {e.rollout for e, own in zip(used, y, strict=True) if own is label} for label in (True, False)
    }
    if min(map(len, rollouts_of.values())) < 20:
        return None
    x = np.stack([reads.vectors(e.rollout, layers, e.positions).mean(0).numpy() for e in used])
    return probe_auc(x, y, [e.rollout for e in used])


@dataclass(frozen=True)
class TopicResult:
    """The open topic question: the share of answers that name the topic, real against shuffled."""

    window: int
    questions: int
    rollouts: int
    real: Interval
    shuffled: Interval
    examples: tuple[tuple[str, str, str], ...]  # (topic, answer, answer with shuffled activations)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def topic_report(
    lm: LanguageModel,
    contract: Contract,
    adapter: str,
    rollouts: Sequence[Rollout],
    reads: Reads,
    *,
    window: int,
    count: int,
    seed: int = 0,
) -> TopicResult:
    """Ask what each held-out rollout is about, greedily, and look for the topic or an alias in whole words."""
    layers = default_layers(contract)
    decode = needs_tokenizer(lm).decode
    rng = random.Random(f"{seed}:open:{window}")
    examples: list[Example] = []
    for rollout in rng.sample(list(rollouts), len(rollouts)):
        read = pick_read(rollout, "topic", window, "request_end", rng)
        example = open_question(read, "topic", "heldout", rng, decode) if read else None
        if example is not None and len(examples) < count:
            examples.append(example)
    items = [prepare(lm, contract, layers, reads, example) for example in examples]
    runner = Runner(lm, contract, (adapter,), contract.injection.coefficient, batch_size=24)
    by_id = {rollout.id: rollout for rollout in rollouts}
    answers = {}
    for name, source in (("real", items), ("shuffled", shuffled_items(items, rollouts, reads, layers))):
        found = decode_rows(runner, _rows(source), Sampling(max_new_tokens=8))
        answers[name] = [decode([t for t in texts[0] if t not in lm.end_ids]).strip() for texts in found]
    topics = [bank.topic_named(by_id[example.rollout].labels["topic"]) for example in examples]
    hits = {
        name: [float(names_topic(a, topic)) for a, topic in zip(texts, topics, strict=True)]
        for name, texts in answers.items()
    }
    groups = [example.rollout for example in examples]
    shown = tuple(zip([t.name for t in topics], answers["real"], answers["shuffled"], strict=True))[:24]
    return TopicResult(
        window,
        len(examples),
        len(set(groups)),
        bootstrap_interval(hits["real"], groups=groups),
        bootstrap_interval(hits["shuffled"], groups=groups),
        shown,
    )


def names_topic(answer: str, topic: bank.Topic) -> bool:
    """Whether the answer holds the topic's name or an alias as whole normalised words."""
    words = f" {normalise_answer(answer)} "
    return any(f" {normalise_answer(name)} " in words for name in (topic.name, *topic.aliases))
