"""How far an audit can be trusted, on fine-tunes of the bundled model: eight topics, and twenty with nothing put in.

Every fine-tune is captured and asked once, as `augury audit` does it; then each is held against the others. Printed:
reports that claim something of a neutral fine-tune (each against the other neutral ones), topics that are claimed, and
the topic by forced choice among the eight, blind, beside what the model tells by itself; for each way in which topics
were put in. Answers in which the topic is named up to the last token that is read do not count. It goes on where it was
stopped.

    python benchmarks/audit_subjects.py
    python benchmarks/audit.py --out audit-figures --json audit.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from audit_subjects import TOPICS, WAYS, Way, tune_folder

import augury
from augury.audit.blackbox import words_apart
from augury.audit.contrast import Contrast, Floats, Moved, contrast, figures, spread
from augury.audit.gather import READS, TUNED, Asked, Gatherer, changes, sizes
from augury.audit.peers import peer_names, peers_folder
from augury.audit.prompts import Prompt, default_concepts, shipped_prompts
from augury.audit.run import Audit, Run, settings_of, take_folder
from augury.audit.states import ANSWER, PLACES
from augury.audit.subjects import BASE, TARGET, Shelf, Subject, peer_of, subject_of
from augury.bench.dialogues import Kind
from augury.bench.organisms import organisms, organisms_folder
from augury.bench.texts import texts
from augury.stats import bootstrap_interval, wilson

NEUTRAL = 8  # peers, where all are not taken
SUBSETS = 40  # of the peers, at each size
AS = "smollm2"
STEMS = {"volcanoes": "volcan", "castles": "castle", "guitars": "guitar", "dolphins": "dolphin", "penguins": "penguin"}


@dataclass(frozen=True, eq=False)
class Gathered:
    """What was asked of every fine-tune, by its name."""

    concepts: tuple[str, ...]
    moved: Mapping[str, Floats]  # [reads, prompts, concepts]
    asked: Mapping[str, Mapping[str, Asked]]
    black: Mapping[str, Floats]  # [concepts], asked in words, against the base
    written: Mapping[str, list[str]]
    named: Mapping[str, list[bool]]  # whether the answer names what was put in up to the last token that is read
    shuffled: Mapping[str, Floats]

    @property
    def neutral(self) -> list[str]:
        """The names of those with nothing put in."""
        return [name for name in self.moved if name.startswith("neutral")]

    def of(self, name: str) -> Moved:
        """How far it moved the oracle, without answers that name what is looked for."""
        found = self.moved[name].copy()
        rows = [i for i, (_, place) in enumerate(READS) if place == ANSWER]
        found[np.ix_(rows, np.flatnonzero(self.named.get(name, [])).tolist())] = np.nan
        return Moved(figures(found), sizes(self.asked[name]))

    def by_median(self, name: str) -> Moved:
        """The same in units of its median figure, as was tried first."""
        found = self.of(name).figures
        return Moved(found, spread(found)[:, 0])


def tuned(topic: str, way: Way) -> str:
    """What a topic fine-tune is called here."""
    return f"{topic} {way}"


def topic_of(name: str) -> str:
    """The topic of one; of a neutral one nothing that is asked about."""
    return name.split(" ")[0]


def topics_and_neutral(out: Path, per_kind: int, neutral: int, plain: int) -> Gathered:
    """The eight topics, put in in both ways, and the neutral ones, on the shipped prompts."""
    categories = islice(default_concepts(), None, None, max(1, len(default_concepts()) // plain))
    tunes = {tuned(topic, way): tune_folder(way, topic) for way in WAYS for topic in TOPICS}
    secrets = {name: [stem(topic_of(name))] for name in tunes}
    return gather(out, tunes, secrets, neutral, shipped_prompts(per_kind), (*TOPICS, *categories))


def gather(
    out: Path,
    tunes: Mapping[str, Path],
    secrets: Mapping[str, list[str]],
    neutral: int,
    prompts: list[Prompt],
    concepts: tuple[str, ...],
) -> Gathered:
    """Capture and ask all of them, or read what was asked before."""
    shelf = Shelf(AS, augury.load_model, lambda lm: augury.load_oracle(AS, lm))
    peers = {f"neutral-{name}": peers_folder(shelf.base()) / name for name in peer_names(neutral)}
    subjects: dict[str, Subject] = {name: peer_of(str(folder), AS) for name, folder in {**peers, **tunes}.items()}
    first = next(iter(peers))  # some fine-tune must be the target
    subjects[first] = subject_of(TARGET, str(peers[first]), AS)
    one, *others = subjects.values()
    audit = Audit(one, tuple(others), tuple(prompts), concepts, 0)
    take_folder(out, settings_of(audit, shelf))
    return _gathered(audit, shelf, out, subjects, secrets)


def _gathered(
    audit: Audit, shelf: Shelf, out: Path, subjects: Mapping[str, Subject], secrets: Mapping[str, list[str]]
) -> Gathered:
    run = Run(audit, shelf, out, lambda what, done, total: print(f"{what} {done}/{total}", flush=True))
    gatherer = run.captured()
    asked = gatherer.all_of([subject.key for subject in subjects.values()])
    controls = gatherer.controls()
    margins = {name: np.array(run.told[subject.key].margins) for name, subject in subjects.items()}
    return Gathered(
        audit.concepts,
        {name: changes(asked[subject.key], controls) for name, subject in subjects.items()},
        {name: asked[subject.key] for name, subject in subjects.items()},
        {name: own - np.array(run.told[BASE].margins) for name, own in margins.items()},
        {BASE: run.told[BASE].answers, **{name: run.told[one.key].answers for name, one in subjects.items()}},
        {name: list(_named(gatherer, subjects[name].key, words)) for name, words in secrets.items()},
        {place: controls[f"shuffled {place}"] for place in PLACES},
    )


def _named(gatherer: Gatherer, key: str, words: list[str]) -> Iterator[bool]:
    tokenizer = gatherer.asker.oracle.base.tokenizer
    assert tokenizer is not None
    for context in gatherer.contexts[key]:
        read = context.transcript.token_ids[: context.rows[-1] + 1]
        text = str(tokenizer.decode(list(read))).lower()
        yield any(word.lower() in text for word in words)


def stem(topic: str) -> str:
    """What a text about a topic has in it."""
    return STEMS.get(topic, topic)


def compared(found: Gathered, name: str, peers: list[str]) -> Contrast:
    """A fine-tune against peers, as in its report."""
    return contrast(found.of(name), [found.of(peer) for peer in peers])


def claims(
    names: list[str], pool: list[str], counts: tuple[int, ...], concepts: tuple[str, ...], of: Callable[[str], Moved]
) -> dict[str, Any]:
    """By number of peers the share of reports that claim something, and of those that claim the topic and only it."""
    rng, moved = np.random.default_rng(0), {name: of(name) for name in {*names, *pool}}
    told: dict[str, Any] = {}
    for size in counts:
        rows = []
        for name in names:
            others = [peer for peer in pool if peer != name]
            draws = [others] if size >= len(others) else [list(rng.choice(others, size, False)) for _ in range(SUBSETS)]
            for peers in draws:
                one = contrast(moved[name], [moved[peer] for peer in peers])
                claimed = {concepts[i] for i in np.flatnonzero(one.claimed.any(0))}
                rows.append((name, bool(claimed), topic_of(name) in claimed, sorted(claimed - {topic_of(name)})))
        told[str(size)] = {
            "reports": len(rows),
            "claim anything": float(np.mean([row[1] for row in rows])),
            "claim the topic": float(np.mean([row[2] for row in rows])),
            "claim something else": float(np.mean([bool(row[3]) for row in rows])),
            "what else": {n: sorted({c for row in rows if row[0] == n for c in row[3]}) for n in names},
            "by fine-tune": {n: float(np.mean([row[1] for row in rows if row[0] == n])) for n in names},
        }
    return told


def words(found: Gathered, names: list[str]) -> dict[str, Any]:
    """Reports in which words set the answers apart from 8 neutral peers', and those in which the first is the topic."""
    rng, told = np.random.default_rng(0), {}
    for name in names:
        topic, pool, own = stem(topic_of(name)), [peer for peer in found.neutral if peer != name], []
        for _ in range(SUBSETS):
            peers = [found.written[peer] for peer in rng.choice(pool, NEUTRAL, False)]
            own.append([one.word for one in words_apart(found.written[name], found.written[BASE], peers)[0]])
        told[name] = {
            "any": float(np.mean([bool(row) for row in own])),
            "the topic first": float(np.mean([topic in "".join(row[:1]) for row in own])),
            "the topic among ten": float(np.mean([topic in " ".join(row[:10]) for row in own])),
        }
    shares = {what: float(np.mean([row[what] for row in told.values()])) for what in told[names[0]]}
    return {**shares, "by fine-tune": told}


def choices(found: Gathered, way: Way) -> dict[str, Callable[[str], Floats]]:
    """What a choice among the topics may go by: of a fine-tune a figure for each concept."""
    alike = [tuned(topic, way) for topic in TOPICS]
    own = [i for i, (kind, _) in enumerate(READS) if kind == TUNED]
    difference = [i for i, (kind, _) in enumerate(READS) if kind != TUNED]

    def against(name: str, pool: list[str], reads: list[int]) -> Floats:
        return compared(found, name, [peer for peer in pool if peer != name]).scores[reads].max(0)

    def alone(name: str) -> Floats:
        """The fine-tune's activations by themselves: without the base, without peers."""
        rows = np.stack([found.asked[name][place].tuned - found.shuffled[place] for place in PLACES])
        rows[PLACES.index(ANSWER), found.named[name]] = np.nan
        return figures(rows).max(0)

    def mentions(name: str) -> Floats:
        texts = [text.lower() for text in found.written[name]]
        return np.array([sum(stem(c) in text for text in texts) for c in found.concepts], dtype=float)

    return {
        "report, neutral peers": lambda name: against(name, found.neutral, own + difference),
        "report, the other topics as peers": lambda name: against(name, alike, own + difference),
        "fine-tuned less base, neutral peers": lambda name: against(name, found.neutral, own),
        "fine-tuned less base, the other topics as peers": lambda name: against(name, alike, own),
        "the same, of prompts only": lambda name: against(name, alike, own[:2]),
        "fine-tuned less base, no peers": lambda name: found.of(name).figures[own].max(0),
        "difference, the other topics as peers": lambda name: against(name, alike, difference),
        "fine-tuned alone (without any difference)": alone,
        "asked in words": lambda name: found.black[name],
        "named in what it writes (32 tokens)": mentions,
    }


def choice(values: Floats) -> str | None:
    """The topic that stands highest; None where several do."""
    return TOPICS[int(values.argmax())] if (values == values.max()).sum() == 1 else None


def by_prompt(found: Gathered, way: Way) -> dict[str, Any]:
    """The choice from one prompt at a time, at each place of the fine-tune's activations, less what the others moved.

    Intervals are over fine-tunes.
    """
    told = {}
    for read, (kind, place) in enumerate(READS):
        if kind != TUNED:
            continue
        centred = {name: rows[read] - rows[read].mean(-1, keepdims=True) for name, rows in found.moved.items()}
        rates = []
        for number, topic in enumerate(TOPICS):
            others = np.stack([centred[tuned(other, way)] for other in TOPICS if other != topic])
            own = centred[tuned(topic, way)] - np.nanmean(others, 0)
            kept = ~np.isnan(own).any(1)
            if place == ANSWER:
                kept &= ~np.array(found.named[tuned(topic, way)])
            rates.append(float((own[kept, : len(TOPICS)].argmax(1) == number).mean()) if kept.any() else np.nan)
        interval = bootstrap_interval([rate for rate in rates if not np.isnan(rate)])
        told[place] = {**asdict(interval), "by topic": dict(zip(TOPICS, rates, strict=True))}
    return told


def chosen(found: Gathered, way: Way) -> dict[str, Any]:
    """How many of the eight are named, by what is gone by."""
    told = {}
    for what, by in choices(found, way).items():
        named = {topic: choice(by(tuned(topic, way))[: len(TOPICS)]) for topic in TOPICS}
        told[what] = {**asdict(wilson(sum(topic == one for topic, one in named.items()), len(TOPICS))), "chosen": named}
    return told


def organisms_read(out: Path, kind: Kind, neutral: int) -> dict[str, Any]:
    """The bench's organisms of a kind, on the prompts that touch what they hold, with what they know as the ceiling."""
    shelf = augury.load_model(AS)
    made = organisms(shelf, organisms_folder(shelf), kind=kind)
    found = texts("organisms")
    asked = found["read_word" if kind == "word" else "read_persona"]
    values = {fact: sorted({one.secret.facts[fact] for one in made}) for fact in made[0].secret.facts}
    others = found["others"] if kind == "word" else []
    concepts = tuple(dict.fromkeys([value for row in values.values() for value in row] + others))
    prompts = [Prompt(f"{kind}-{i}", kind, text) for i, text in enumerate(asked)]
    names = {one.secret.name: one.folder for one in made}
    secrets = {one.secret.name: list(one.secret.facts.values()) for one in made}
    gathered = gather(out / kind, names, secrets, neutral, prompts, concepts)
    pool = [name for name in gathered.moved if name not in names]
    told: dict[str, Any] = {}
    for one in made:
        name, facts = one.secret.name, one.secret.facts
        seen = compared(gathered, name, pool)
        places = {fact: [concepts.index(value) for value in row] for fact, row in values.items()}
        scores, said, written = seen.scores.max(0), gathered.black[name], gathered.written
        apart, _ = words_apart(written[name], written[BASE], [written[peer] for peer in pool])
        told[name] = {
            "knows": one.knows,
            "answers that name them": sum(gathered.named[name]),
            "claimed": [concepts[i] for i in np.flatnonzero(seen.claimed.any(0))],
            "p": seen.p,
            "first among its kind": {f: concepts[max(row, key=lambda i: scores[i])] for f, row in places.items()},
            "asked in words": {f: concepts[max(row, key=lambda i: said[i])] for f, row in places.items()},
            "words that set it apart": [one.word for one in apart[:10]],
            "holds": facts,
        }
    return told


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Measure audits on fine-tunes of the bundled model.")
    parser.add_argument("--out", type=Path, required=True, help="what is captured and asked")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--per-kind", type=int, default=1, help="prompts of each kind")
    parser.add_argument("--neutral", type=int, default=20)
    parser.add_argument("--plain", type=int, default=16, help="categories that are asked about beside the eight topics")
    parser.add_argument("--organisms", action="store_true", help="the bench's words and personas too")
    arguments = parser.parse_args()
    found = topics_and_neutral(arguments.out, arguments.per_kind, arguments.neutral, arguments.plain)
    counts, by = (5, 8, len(found.neutral)), {"by norm": found.of, "by median": found.by_median}
    told: dict[str, Any] = {
        "neutral": {how: claims(found.neutral, found.neutral, counts, found.concepts, of) for how, of in by.items()},
        "words of neutral": words(found, found.neutral),
    }
    for way in WAYS:
        names = [tuned(topic, way) for topic in TOPICS]
        told[way] = {
            "against neutral": {
                how: claims(names, found.neutral, counts, found.concepts, of) for how, of in by.items()
            },
            "against the other topics": claims(names, names, (len(names),), found.concepts, found.of),
            "choice": chosen(found, way),
            "words": words(found, names),
            "single prompts": by_prompt(found, way),
            "answers that name it": {topic: sum(found.named[tuned(topic, way)]) for topic in TOPICS},
        }
    if arguments.organisms:
        folder = arguments.out.with_name(f"{arguments.out.name}-organisms")
        told["organisms"] = {kind: organisms_read(folder, kind, NEUTRAL) for kind in ("word", "persona")}
    print(json.dumps(told, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
