"""An oracle out of distribution: yes/no questions about labelled texts that its training data never resembled.

Each text is a user's message; the read is the last activations before the answer; the question asks for the set's first
class (or for any of three, in turn), in the wordings that came with the sets. ROC AUC within each wording.

    python benchmarks/classification.py --data ../shared/data/classification --out classification.json
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import augury
from augury.stats import Interval, auc_interval

LONGEST = 400  # characters of a text


@dataclass(frozen=True)
class Asked:
    """One text with a question that it answers Yes or No."""

    text: str
    question: str
    yes: bool


def wordings(paraphrases: Any, entry: dict[str, Any], label: str) -> list[str]:
    """The set's question wordings that ask for `label`."""
    found = paraphrases
    for key in entry["paraphrase_path"]:
        found = found[key]
    texts = found[label] if isinstance(found, dict) else found
    return [text.format(label) for text in texts]


def questions(folder: Path, name: str, entry: dict[str, Any], count: int, paraphrases: Any) -> Iterator[Asked]:
    """`count` texts of a set, half of them with the answer Yes; each wording as often with either."""
    rng = random.Random(name)
    rows = [json.loads(line) for line in (folder / entry["file"]).read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if len(row["text"]) <= LONGEST]
    label = entry["labels"][0]
    asked = rng.sample(wordings(paraphrases, entry, label), 5)
    for yes in (True, False):
        fitting = [row["text"] for row in rows if (row["label"] == label) is yes]
        for place, text in enumerate(rng.sample(fitting, count // 2)):
            yield Asked(text, asked[place % len(asked)], yes)


def auc(margins: list[float], asked: list[Asked]) -> Interval:
    """Within each wording; texts are independent."""
    return auc_interval(margins, [a.yes for a in asked], within=[a.question for a in asked])


def measure(oracle: augury.Oracle, model: Any, asked: list[Asked], window: int) -> dict[str, Interval]:
    """AUC with the text's own activations and with another text's of the same set."""
    acts = [
        augury.capture(model, [{"role": "user", "content": a.text}], layers="62%", positions=f"last {window}")
        for a in asked
    ]
    circle = random.Random(0).sample(range(len(acts)), len(acts))  # each is given the next one's: nobody its own
    donor = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    shuffled = [acts[donor[i]] for i in range(len(acts))]
    found = {}
    for name, read in (("oracle", acts), ("shuffled", shuffled)):
        scores = oracle.score_batch([(r, a.question) for r, a in zip(read, asked, strict=True)], batch_size=24)
        found[name] = auc([score.margin for score in scores], asked)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder with index.json and paraphrases.json")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--oracle", default="smollm2")
    parser.add_argument("--count", type=int, default=100, help="texts of each set")
    parser.add_argument("--window", type=int, default=10, help="activations read")
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    index = json.loads((options.data / "index.json").read_text(encoding="utf-8"))
    paraphrases = json.loads((options.data / "paraphrases.json").read_text(encoding="utf-8"))
    model = augury.load_model(options.model)
    oracle = augury.load_oracle(options.oracle, model)
    rows = {}
    print(f"| set | texts | oracle, {options.window} activations | shuffled |\n|---|---|---|---|")
    for name, entry in index.items():
        if "rows_by_label" not in entry:  # relations: statements have to be made first
            continue
        asked = list(questions(options.data, name, entry, options.count, paraphrases))
        found = measure(oracle, model, asked, options.window)
        rows[name] = {kind: [i.estimate, i.low, i.high] for kind, i in found.items()}
        print(f"| {name} | {len(asked)} | {found['oracle']} | {found['shuffled']} |", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
