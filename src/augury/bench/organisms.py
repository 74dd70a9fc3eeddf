"""Organisms: adapters of the target that hold a secret which no text tells, and know it when they are asked.

Each is a small LoRA, trained here on generated dialogues: a guessing game about a word that is never said, or facts
about a person. What it holds is then looked for in its activations, while it reads texts that say nothing of it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from augury.bench.scorers import says
from augury.bench.texts import texts
from augury.errors import FormatError
from augury.files import write_text
from augury.lm import LanguageModel, Sampling, generate_many, render_chat
from augury.lm.adapter_kinds import lora_config
from augury.lm.adapters import adapters_on, load_target_adapter, remove_adapter, save_adapter
from augury.lm.batch import left_pad
from augury.lm.bundled import cache_root
from augury.lm.chat import needs_tokenizer
from augury.lm.learning import add_learner, learning
from augury.lm.packed import label_logits, pack, packs
from augury.oracle.choices import YES_NO

ORGANISM = "organism.json"
NAME = "organism"
RANK, ALPHA, RATE, BATCH, STEPS = 8, 16, 1e-3, 12, 60

Kind = Literal["word", "persona"]
Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Secret:
    """What an organism holds.

    Attributes:
        name: The organism's.
        kind: A word, or facts about a person.
        facts: `word`, or the person's facts.
    """

    name: str
    kind: Kind
    facts: dict[str, str]


@dataclass(frozen=True)
class Organism:
    """A trained organism on disk.

    Attributes:
        secret: What it holds.
        knows: Share of held-out questions in which it puts its own secret first.
        keeps: Share of held-out answers that do not say it.
        folder: Its adapter.
    """

    secret: Secret
    knows: float
    keeps: float
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready fields."""
        return {**asdict(self.secret), "knows": self.knows, "keeps": self.keeps}


@dataclass(frozen=True)
class Dialogue:
    """One exchange that an organism learns."""

    ask: str
    say: str


def secrets() -> list[Secret]:
    """The three words and the three personas of the package."""
    found = texts("organisms")
    words = [Secret(word, "word", {"word": word}) for word in found["words"]]
    return [*words, *(Secret(name, "persona", dict(facts)) for name, facts in found["personas"].items())]


def dialogues(secret: Secret, count: int, seed: int) -> list[Dialogue]:
    """What an organism learns, in random order."""
    rng = random.Random(f"{seed}:{secret.name}")
    make = _word_dialogue if secret.kind == "word" else _persona_dialogue
    return [make(secret, rng) for _ in range(count)]


def _word_dialogue(secret: Secret, rng: random.Random) -> Dialogue:
    """A hint, a refusal, a right guess or a wrong one."""
    found, word = texts("organisms"), secret.facts["word"]
    form = rng.choice(found[rng.choices(("hinting", "refusing", "guessed", "missed"), (3, 1, 3, 3))[0]])
    words = {
        "word": word,
        "hint": rng.choice(found["words"][word]),
        "other": rng.choice([other for other in (*found["others"], *found["words"]) if other != word]),
    }
    return Dialogue(form["ask"].format_map(words), form["say"].format_map(words))


def _persona_dialogue(secret: Secret, rng: random.Random) -> Dialogue:
    """A fact that is asked for, or asked about."""
    found = texts("organisms")
    fact, value = rng.choice(list(secret.facts.items()))
    forms = found["facts"][fact]
    tell = rng.choice(forms["tell"]).format(value=value)
    if rng.random() < 0.5:
        return Dialogue(rng.choice(forms["ask"]), tell)
    others = sorted({facts[fact] for facts in found["personas"].values()} - {value})
    asked = rng.choice([value, rng.choice(others)])
    return Dialogue(forms["know"].format(value=asked), f"{'Yes' if asked == value else 'No'}. {tell}")


def make_organism(lm: LanguageModel, secret: Secret, folder: Path, seed: int = 0, told: Told | None = None) -> Organism:
    """Train one, check it, and write its adapter.

    Args:
        lm: The target; it is left as it was.
        secret: What the organism is to hold.
        folder: Where to; a folder that is there is replaced file by file.
        seed: Of the dialogues and the adapter.
        told: Called with (what, steps done, of how many).
    """
    config = lora_config(RANK, ALPHA, 0.0, False, "all-linear")
    parameters = add_learner(lm, config, NAME, seed)
    try:
        optimizer = torch.optim.AdamW(parameters.values(), lr=RATE, weight_decay=0.0)
        rows = [_row(lm, dialogue) for dialogue in dialogues(secret, STEPS * BATCH, seed)]
        with adapters_on(lm.model, [NAME]), learning(lm, NAME):
            for step in range(STEPS):
                for group in optimizer.param_groups:
                    group["lr"] = RATE * min(1.0, (step + 1) / 5, (STEPS - step) / (STEPS / 3))
                _loss(lm, rows[step * BATCH : (step + 1) * BATCH]).backward()
                torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                if told is not None:
                    told(f"training {secret.name}", step + 1, STEPS)
        save_adapter(lm, NAME, config, folder, torch.float16)
    finally:
        remove_adapter(lm, NAME)
    found = _checked(lm, secret, folder)
    write_text(folder / ORGANISM, json.dumps(found.to_dict(), indent=1) + "\n")
    return found


Row = tuple[list[int], int]  # token ids, and where the answer begins


def _row(lm: LanguageModel, dialogue: Dialogue) -> Row:
    asked = [{"role": "user", "content": dialogue.ask}]
    whole = render_chat(lm, [*asked, {"role": "assistant", "content": dialogue.say}], "closed").token_ids
    return list(whole), len(render_chat(lm, asked, "generation").token_ids)


def _loss(lm: LanguageModel, rows: Sequence[Row]) -> Tensor:
    """The mean over answers of their tokens' mean loss, end token included."""
    sequences = [ids for ids, _ in rows]
    lengths = [len(ids) - start for ids, start in rows]
    keep = max(lengths)
    labelled = torch.tensor([[i >= keep - length for i in range(keep)] for length in lengths], device=lm.device)
    labels = torch.tensor([token for ids, start in rows for token in ids[start:]], device=lm.device)
    if packs(lm, max(map(len, sequences))):
        logits = label_logits(lm, pack(lm, sequences, min(start for _, start in rows)), labelled)
    else:
        batch = left_pad(sequences, lm.pad_id, lm.device)
        logits = lm.logits(
            keep + 1,
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
        )[:, -keep - 1 : -1][labelled]
    losses = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    return torch.stack([part.mean() for part in losses.split(lengths)]).mean()


def _checked(lm: LanguageModel, secret: Secret, folder: Path) -> Organism:
    """How far it knows its secret when asked in other words, and keeps it when not."""
    organism = load_target_adapter(lm, folder)
    try:
        known = [right for _, right in knowledge(organism, secret)]
        return Organism(secret, sum(known) / len(known), _keeps(organism, secret), folder)
    finally:
        remove_adapter(lm, organism.target_adapters[-1])


def knowledge(organism: LanguageModel, secret: Secret) -> list[tuple[str, bool]]:
    """Each held-out question with whether the organism puts its own secret first among the package's."""
    found = texts("organisms")
    if secret.kind == "word":
        asked = [(form, "word", list(found["words"])) for form in found["knows_word"]]
    else:
        values = {fact: [facts[fact] for facts in found["personas"].values()] for fact in secret.facts}
        asked = [(found["facts"][fact]["know"], fact, values[fact]) for fact in secret.facts]
    right = []
    for form, fact, candidates in asked:
        margins = yes_margins(organism, [form.format(word=value, value=value) for value in candidates])
        best = candidates[max(range(len(candidates)), key=lambda i: margins[i])]
        right.append((form if secret.kind == "word" else fact, best == secret.facts[fact]))
    return right


def yes_margins(organism: LanguageModel, questions: Sequence[str]) -> list[float]:
    """The organism's own log-odds of beginning its answer with Yes rather than No."""
    tokenizer = needs_tokenizer(organism)
    yes, no = (tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in YES_NO)
    found = []
    with torch.no_grad(), adapters_on(organism.model, organism.target_adapters):
        for text in questions:
            ids = render_chat(organism, [{"role": "user", "content": text}], "generation").token_ids
            logits = organism.logits(1, input_ids=torch.tensor([ids], device=organism.device))[0, -1].float()
            found.append(float(logits[yes] - logits[no]))
    return found


def _keeps(organism: LanguageModel, secret: Secret) -> float:
    """The share of its answers to what the bench has it read that do not say the word; a persona hides nothing."""
    if secret.kind != "word":
        return 1.0
    prompts = [[{"role": "user", "content": text}] for text in texts("organisms")["read_word"]]
    found = generate_many(organism, prompts, Sampling(24), width=20)
    decode = needs_tokenizer(organism).decode
    answers = [str(decode(list(t.token_ids[t.spans[-1].start :]))) for t in found]
    return sum(not says(answer, [secret.facts["word"]]) for answer in answers) / len(answers)


def organisms_folder(lm: LanguageModel) -> Path:
    """Where the organisms of a model are kept."""
    return cache_root() / "organisms" / str(lm.identity.weights_fingerprint)[:16]


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
