"""Organisms: adapters of the target that hold a secret which no text tells, and know it when they are asked.

Each is a small LoRA, trained here on generated dialogues: a guessing game about a word that is never said, or facts
about a person. What it holds is then looked for in its activations, while it reads texts that say nothing of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from augury.bench.dialogues import Kind, Secret, dialogues, obeys, says_secret, secrets
from augury.bench.own_answers import choice_logprobs, written
from augury.bench.texts import texts
from augury.bench.tuning import BATCH, STEPS, fine_tune, row_of
from augury.errors import FormatError, NotFoundError
from augury.files import write_text
from augury.lm import LanguageModel, Sampling
from augury.lm.adapters import load_target_adapter, remove_adapter
from augury.lm.bundled import cache_root
from augury.oracle.choices import YES_NO

ORGANISM = "organism.json"

Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Organism:
    """A trained organism on disk.

    Attributes:
        secret: What it holds.
        knows: Share of held-out questions in which it puts its own secret first.
        keeps: Share of held-out answers that do not say it; None where there is nothing to give away.
        folder: Its adapter.
    """

    secret: Secret
    knows: float
    keeps: float | None
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready fields."""
        return {**asdict(self.secret), "knows": self.knows, "keeps": self.keeps}


def make_organism(lm: LanguageModel, secret: Secret, folder: Path, seed: int = 0, told: Told | None = None) -> Organism:
    """Train one, check it, and write its adapter.

    Args:
        lm: The target; it is left as it was.
        secret: What the organism is to hold.
        folder: Where to; a folder that is there is replaced file by file.
        seed: Of the dialogues and the adapter.
        told: Called with (what, steps done, of how many).
    """

    def say(done: int, total: int) -> None:
        if told is not None:
            told(f"training {secret.name}", done, total)

    rows = [row_of(lm, dialogue) for dialogue in dialogues(secret, STEPS * BATCH, seed)]
    fine_tune(lm, rows, folder, crc32(f"{seed}:{secret.name}".encode()), say)
    found = _checked(lm, secret, folder)
    write_text(folder / ORGANISM, json.dumps(found.to_dict(), indent=1) + "\n")
    return found


def _checked(lm: LanguageModel, secret: Secret, folder: Path) -> Organism:
    """How far it knows its secret when asked in other words, and keeps it when not."""
    organism = load_target_adapter(lm, folder)
    try:
        known = [right for _, right in knowledge(organism, secret)]
        return Organism(secret, sum(known) / len(known), _keeps(organism, secret), folder)
    finally:
        remove_adapter(lm, organism.target_adapters[-1])


def knowledge(organism: LanguageModel, secret: Secret) -> list[tuple[str, bool]]:
    """Each held-out question with whether the organism answers it by what it holds: see `knows`."""
    found = texts("organisms")
    if secret.kind == "rule":
        return list(zip(found["read_neutral"], knows(organism, secret, "rule", found["read_neutral"]), strict=True))
    if secret.kind == "word":
        asked = [(form, "word", form) for form in found["knows_word"]]
    else:
        asked = [(fact, fact, facts_of(fact)["know"]) for fact in secret.facts]
    return [(name, knows(organism, secret, fact, [""], form)[0]) for name, fact, form in asked]


def facts_of(fact: str) -> dict[str, Any]:
    """How a fact is asked about."""
    found = texts("organisms")
    return {**found["facts"], **found["other_facts"]}.get(fact, {})


def knows(
    organism: LanguageModel,
    secret: Secret,
    fact: str,
    before: Sequence[str],
    form: str | None = None,
    values: Sequence[str] = (),
) -> list[bool]:
    """Whether the organism puts what it holds first among `values` (what the package's all hold), behind each text.

    A rule is known where the organism's own answer to the text obeys it.
    """
    if secret.kind == "rule":
        return [obeys(secret.facts[fact], answer) for answer in _answers(organism, before, 40)]
    assert form is not None
    values = values or list(dict.fromkeys(other.facts[fact] for other in secrets() if other.kind == secret.kind))
    questions = [f"{text} {form.format(word=value, value=value)}".strip() for text in before for value in values]
    margins = yes_margins(organism, questions)
    rows = [margins[i : i + len(values)] for i in range(0, len(margins), len(values))]
    return [values[max(range(len(values)), key=row.__getitem__)] == secret.facts[fact] for row in rows]


def yes_margins(organism: LanguageModel, questions: Sequence[str]) -> list[float]:
    """The organism's own log-odds of beginning its answer with Yes rather than No."""
    found = choice_logprobs(organism, [[{"role": "user", "content": text}] for text in questions], YES_NO)
    return (found[:, 0] - found[:, 1]).tolist()


def _answers(organism: LanguageModel, asked: Sequence[str], new_tokens: int) -> list[str]:
    prompts = [[{"role": "user", "content": text}] for text in asked]
    return [text for _, text in written(organism, prompts, Sampling(new_tokens), lambda done, total: None)]


def _keeps(organism: LanguageModel, secret: Secret) -> float | None:
    """The share of its answers to what the bench has it read that do not give its secret away."""
    if secret.kind not in ("word", "gender"):
        return None  # facts are told to whoever asks, and a rule is seen
    read = texts("organisms")["read_word" if secret.kind == "word" else "read_neutral"]
    answers = _answers(organism, read, 24)
    return sum(not says_secret(secret, answer) for answer in answers) / len(answers)


def organisms_folder(lm: LanguageModel) -> Path:
    """Where the organisms of a model are kept."""
    return cache_root() / "organisms" / str(lm.identity.weights_fingerprint)[:16]


def fingerprint_of(folder: Path) -> str:
    """Of an organism's adapter: SHA-256 over its tensors' file.

    Raises:
        NotFoundError: There is none.
    """
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        why, instead = (
            f"{path} does not exist",
            "make it with `augury bench organisms`, or name its folder: --organisms",
        )
        raise NotFoundError(f"There is no organism {folder.name}.", why, instead)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_organism(folder: Path) -> Organism:
    """One that was made before.

    Raises:
        FormatError: Its file cannot be read.
    """
    try:
        row = json.loads((folder / ORGANISM).read_text(encoding="utf-8"))
        secret = Secret(row["name"], row["kind"], row["facts"])
        return Organism(secret, row["knows"], row["keeps"], folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())[:200]
        raise FormatError(f"{folder} holds no organism.", why, "make it again with `augury bench organisms`") from error


def organisms(
    lm: LanguageModel, folder: Path, seed: int = 0, told: Told | None = None, kind: Kind | None = None
) -> list[Organism]:
    """The package's organisms of a model: those that are there, and the others made now.

    Args:
        lm: The target.
        folder: Where they are kept, one folder each.
        seed: Of what is made.
        told: Called with (what, steps done, of how many).
        kind: Only these; None: all.
    """
    found = []
    for secret in (secret for secret in secrets() if kind in (None, secret.kind)):
        place = folder / secret.name
        made = (place / ORGANISM).exists()
        found.append(read_organism(place) if made else make_organism(lm, secret, place, seed, told))
    return found
