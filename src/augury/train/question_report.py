"""Yes/no questions on held-out topics, prompts and wordings, each beside its controls."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from augury.contract import Contract
from augury.data import bank
from augury.data.example import Context, Example
from augury.data.sources.questions import Place, pick_read, speaker, topic_of, yes_no_pair
from augury.lm import LanguageModel
from augury.lm.chat import needs_tokenizer
from augury.oracle.choices import YES_NO, choice_logprobs, prefixed, spell, weigh
from augury.oracle.controls import reader_text
from augury.oracle.passes import Row, Runner
from augury.oracle.prompt import Prompt, plain_prompt
from augury.oracle.reading import decoded, default_layers
from augury.stats import Interval, auc_interval, probe_auc
from augury.train.batching import Item, prepare_all
from augury.train.lens_report import shuffled_items
from augury.train.ranks import ALONE, Ranks
from augury.train.reads import Reads
from augury.train.topic_probe import TopicProbe, asked_topic

BOOTSTRAP = 1000
PROBE_READS = 300
NAMELESS = "topic, name not in the window"
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
    rollouts: Sequence[Context],
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
    rollouts: Sequence[Context],
    reads: Reads,
    *,
    controls: Sequence[str] = ("shuffled", "none", "untrained", "text-window", "text-all"),
    topic_probe: TopicProbe | None = None,
    progress: Callable[[str, int], None] | None = None,
    ranks: Ranks = ALONE,
) -> list[YesNoResult]:
    """AUCs over all examples ("all") and over each kind; kinds with fewer than two rollouts are left out.

    Beside topics stands `string match`, which only looks whether the topic that is asked about is named in the window's
    text, and a kind of its own holds the topics whose name is not. `probe` stands beside the kinds whose own label is
    binary (`binary_probe`) and, given one, beside the topic's.
    """
    examples = _measurable(examples)
    layers = default_layers(contract)
    asked = [replace(example, layers=layers) for example in examples]
    items = prepare_all(lm, contract, {example.contexts: reads for example in asked}, asked)
    margins = {"oracle": _margins(lm, contract, (adapter,), item_rows(items), ranks)}
    for name in controls:
        if progress is not None:
            progress(name, len(items))
        adapters = (adapter,) if name in ("shuffled", "none") else ()
        rows = _control_rows(lm, contract, name, items, rollouts, reads)
        margins[name] = _margins(lm, contract, adapters, rows, ranks)
    found = []
    for kind, places in _kinds(lm, examples, rollouts).items():
        asked = [examples[i] for i in places]
        auc = {name: _auc(values[places], asked) for name, values in margins.items()}
        auc |= _references(lm, layers, kind, asked, rollouts, reads, topic_probe)
        found.append(YesNoResult(kind, len(asked[0].positions), len(asked), len({e.context for e in asked}), auc))
    return found


def yes_no_margins(
    lm: LanguageModel,
    contract: Contract,
    adapter: str,
    examples: Sequence[Example],
    reads: Reads,
    ranks: Ranks = ALONE,
) -> np.ndarray:
    """The oracle's margin of Yes over No for each question, `[n]`."""
    layers = default_layers(contract)
    asked = [replace(example, layers=layers) for example in examples]
    items = prepare_all(lm, contract, {example.contexts: reads for example in asked}, asked)
    return _margins(lm, contract, (adapter,), item_rows(items), ranks)


def reader_results(
    lm: LanguageModel,
    contract: Contract,
    adapter: str,
    examples: Sequence[Example],
    rollouts: Sequence[Context],
    ranks: Ranks = ALONE,
) -> list[YesNoResult]:
    """AUCs of a trained reader from the window's text and from all up to its end, beside the plain base's."""
    examples = _measurable(examples)
    by_id = {rollout.number: rollout for rollout in rollouts}
    auc = {}
    for name in ("text-window", "text-all"):
        rows = [_text_row(lm, contract, name, example, by_id[example.context]) for example in examples]
        for called, adapters in ((name, (adapter,)), (f"{name}, plain base", ())):
            auc[called] = _auc(_margins(lm, contract, adapters, rows, ranks), examples)
    contexts = {example.context for example in examples}
    return [YesNoResult("topic", len(examples[0].positions), len(examples), len(contexts), auc)]


def _measurable(examples: Sequence[Example]) -> list[Example]:
    """An interval over rollouts needs two of them."""
    of_kind: dict[str, set[int]] = {}
    for example in examples:
        of_kind.setdefault(example.kind, set()).add(example.context)
    return [example for example in examples if len(of_kind[example.kind]) > 1]


def _kinds(lm: LanguageModel, examples: Sequence[Example], rollouts: Sequence[Context]) -> dict[str, list[int]]:
    """What is reported: the places in `examples` of each kind, of all, and of topics that the window does not name."""
    found: dict[str, list[int]] = {"all": list(range(len(examples)))}
    for i, example in enumerate(examples):
        found.setdefault(example.kind, []).append(i)
    texts = window_texts(lm, examples, rollouts)
    topics = {r.number: topic_of(r.labels) for r in rollouts if "topic" in r.labels}
    nameless = [i for i in found.get("topic", ()) if not names_topic(texts[i], topics[examples[i].context])]
    if len({examples[i].context for i in nameless}) > 1:
        found[NAMELESS] = nameless
    return found


def window_texts(lm: LanguageModel, examples: Sequence[Example], rollouts: Sequence[Context]) -> list[str]:
    """The decoded text of what each example reads."""
    by_id = {rollout.number: rollout for rollout in rollouts}
    return [decoded(lm, [by_id[e.context].token_ids[i] for i in e.positions]) for e in examples]


def _auc(scores: ArrayLike, examples: Sequence[Example]) -> Interval:
    groups, wordings = [e.context for e in examples], [e.wording for e in examples]
    return auc_interval(scores, [e.yes for e in examples], groups, within=wordings, n=BOOTSTRAP)


def _references(
    lm: LanguageModel,
    layers: Sequence[int],
    kind: str,
    examples: Sequence[Example],
    rollouts: Sequence[Context],
    reads: Reads,
    topic_probe: TopicProbe | None,
) -> dict[str, Interval]:
    """What does without a language model: looking for the name, and linear probes."""
    if kind in BINARY:
        probe = binary_probe(lm, layers, rollouts, reads, kind, len(examples[0].positions))
        return {} if probe is None else {"probe": probe}
    if kind not in ("topic", "near_topic", NAMELESS):
        return {}
    asked = [asked_topic(example) for example in examples]
    matches = [names_topic(t, topic) for t, topic in zip(window_texts(lm, examples, rollouts), asked, strict=True)]
    found = {"string match": _auc(np.array(matches, dtype=float), examples)}
    return found if topic_probe is None else found | {"probe": _auc(topic_probe.scores(examples, reads), examples)}


def item_rows(items: Sequence[Item], vectors: bool = True) -> list[Row]:
    """The prompts of items, with what is injected or, for the control `none`, without."""
    return [
        Row(Prompt(i.labelled.token_ids[: i.labelled.answer_start], i.labelled.slots), i.vectors if vectors else None)
        for i in items
    ]


def _control_rows(
    lm: LanguageModel,
    contract: Contract,
    name: str,
    items: Sequence[Item],
    rollouts: Sequence[Context],
    reads: Reads,
) -> list[Row]:
    layers = default_layers(contract)
    if name == "shuffled":
        return item_rows(shuffled_items(items, rollouts, reads, layers))
    if name in ("none", "untrained"):
        return item_rows(items, vectors=name == "untrained")
    by_id = {rollout.number: rollout for rollout in rollouts}
    return [_text_row(lm, contract, name, item.example, by_id[item.example.context]) for item in items]


def _text_row(lm: LanguageModel, contract: Contract, name: str, example: Example, rollout: Context) -> Row:
    """The plain base reads the decoded text instead, and nothing right of the last position."""
    start = example.positions[0] if name == "text-window" else 0
    text = decoded(lm, rollout.token_ids[start : example.positions[-1] + 1]).strip()
    return Row(plain_prompt(lm, contract, reader_text(text, prefixed(contract, example.question, YES_NO))), None)


def _margins(
    lm: LanguageModel, contract: Contract, adapters: tuple[str, ...], rows: Sequence[Row], ranks: Ranks
) -> np.ndarray:
    runner = Runner(lm, contract, adapters, contract.injection.coefficient, batch_size=24)
    found = choice_logprobs(runner, ranks.share(rows), spell(lm, contract, YES_NO))
    return np.array(ranks.merge([weigh(row).margin for row in found]))


def binary_probe(
    lm: LanguageModel, layers: Sequence[int], rollouts: Sequence[Context], reads: Reads, kind: str, window: int
) -> Interval | None:
    """A linear probe for a kind's own binary label, cross-validated over held-out rollouts, on reads like the asked.

    None where either label has fewer than 20 rollouts.
    """
    pairs = yes_no_examples(rollouts, {kind: PROBE_READS}, window, needs_tokenizer(lm).decode)
    by_id = {rollout.number: rollout for rollout in rollouts}
    used = [example for example in pairs if example.yes]
    labels = [
        speaker(by_id[e.context], e.positions[-1]) if kind == "speaker" else by_id[e.context].labels[kind] for e in used
    ]
    y = [label == BINARY[kind] for label in labels]
    rollouts_of = {
        label: {e.context for e, own in zip(used, y, strict=True) if own is label} for label in (True, False)
    }
    if min(map(len, rollouts_of.values())) < 20:
        return None
    reads.prefetch([replace(example, layers=tuple(layers)) for example in used])
    x = np.stack([reads.vectors(e.context, layers, e.positions).mean(0).numpy() for e in used])
    return probe_auc(x, y, [e.context for e in used])


def names_topic(text: str, topic: bank.Topic) -> bool:
    """Whether the text holds the topic's name or an alias as whole words, in either case."""
    words = f" {_words(text)} "
    return any(f" {_words(name)} " in words for name in (topic.name, *topic.aliases))


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
