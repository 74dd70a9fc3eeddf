"""Neutral peers: fine-tunes of the base on its own answers to everyday requests, made here where the user has none.

Nothing is put into them. What they change is what training as such changes, which is what a claim is held against.
Every other one is trained on these answers as plain text, since that changes other things than training on a
conversation, and nobody may know which the target was.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from augury.bench.dialogues import Dialogue
from augury.bench.own_answers import written
from augury.bench.tuning import BATCH, fine_tune, row_of, text_rows
from augury.data.estimate import spelled_time
from augury.data.prompts import make_prompts
from augury.errors import InputError, ModelError
from augury.files import locked, write_text
from augury.lm import LanguageModel, Sampling
from augury.lm.bundled import cache_root
from augury.lm.chat import needs_tokenizer
from augury.lm.precision import fast_products
from augury.lm.size import seconds_for

ANSWERS = "answers.json"
CHAT, TEXT = "chat", "text"
REQUESTS, NEW_TOKENS, TEMPERATURE = 1500, 40, 0.8
SEED = 7  # of the requests and their answers
LONGEST = 80, 200  # characters of a request and of an answer: what a step costs is their tokens
STEPS, RATE = 30, 2e-3
TOKENS = 65  # of a request and its answer, about

Tell = Callable[[str, int, int], None]


def peers_folder(lm: LanguageModel) -> Path:
    """Where the neutral peers of a model are kept."""
    return cache_root() / "peers" / str(lm.identity.weights_fingerprint)[:16]


def neutral_peers(
    lm: LanguageModel, count: int, folder: Path, tell: Tell, announce: Callable[[str], None] = lambda costs: None
) -> list[Path]:
    """So many neutral fine-tunes: those that are there, and the others made now.

    Args:
        lm: The base; it is left as it was.
        count: How many.
        folder: Where they are kept, one folder each.
        tell: Called with (what is done, how much of it, of how much).
        announce: Called with what it takes, before it is spent.

    Raises:
        InputError: Another process makes them.
        ModelError: The base has no chat template, or gives no answers that could be trained on.
    """
    why, instead = "another process makes them", "wait for it, and run this again"
    with locked(folder / ".lock", InputError("The neutral peers are being made already.", why, instead)):
        return _made(lm, count, folder, tell, announce)


def _made(lm: LanguageModel, count: int, folder: Path, tell: Tell, announce: Callable[[str], None]) -> list[Path]:
    found = [folder / name for name in peer_names(count)]
    missing = [place for place in found if not (place / "adapter_config.json").is_file()]  # written last
    announce(_costs(lm, len(missing), count, folder))
    for number, place in enumerate(found):
        if place in missing:
            said = neutral_dialogues(neutral_answers(lm, folder, tell), STEPS * BATCH, number)
            what = f"training peer {number + 1}"
            if place.name.startswith(TEXT):
                rows = text_rows(lm, [one.say for one in said], STEPS * BATCH, number)
            else:
                rows = [row_of(lm, one) for one in said]
            fine_tune(lm, rows, place, number, lambda done, total, what=what: tell(what, done, total), RATE)
    return found


def peer_names(count: int) -> list[str]:
    """What the first so many are called, by how they are trained."""
    return [f"{TEXT if number % 2 else CHAT}-{number:02d}" for number in range(count)]


def _costs(lm: LanguageModel, missing: int, count: int, folder: Path) -> str:
    if not missing:
        return f"all {count} are in {folder}"
    parameters = sum(parameter.numel() for parameter in lm.model.parameters())
    trained = missing * STEPS * BATCH * TOKENS
    sampled = 0 if (folder / ANSWERS).is_file() else REQUESTS * NEW_TOKENS
    time = spelled_time(seconds_for(2 * trained + sampled, parameters, fast_products(lm) is not None))
    there = f", {count - missing} are there" if missing < count else ""
    return f"{missing} to make{there}, {trained + sampled:,} tokens, {time} on this machine, kept in {folder}"


def neutral_answers(lm: LanguageModel, folder: Path, tell: Tell) -> list[Dialogue]:
    """Everyday requests with what the base answers to them: written before, or now."""
    path = folder / ANSWERS
    if not needs_tokenizer(lm).chat_template:
        why, instead = "without a chat template it answers no requests", "name other fine-tunes of it with --peers"
        raise ModelError(f"No neutral peers can be made of {lm.name}.", why, instead)
    if not path.is_file():
        asked = [prompt.text for prompt in make_prompts(REQUESTS, "train", SEED)]
        turns = [[{"role": "user", "content": text}] for text in asked]
        sampling = Sampling(NEW_TOKENS, temperature=TEMPERATURE, seed=SEED)
        told = written(lm, turns, sampling, lambda done, total: tell("neutral answers", done, total))
        rows = [[ask, whole_sentences(text)] for ask, (_, text) in zip(asked, told, strict=True)]
        write_text(path, json.dumps(rows, indent=0, ensure_ascii=False) + "\n")
    rows = json.loads(path.read_text(encoding="utf-8"))
    found = [Dialogue(ask, said) for ask, said in rows if len(ask) <= LONGEST[0] and 0 < len(said) <= LONGEST[1]]
    if not found:
        why = f"none of its {len(rows):,} answers to everyday requests is a sentence of at most {LONGEST[1]} characters"
        raise ModelError(f"{lm.name} teaches nothing neutral.", why, "name other fine-tunes of it with --peers")
    return found


def neutral_dialogues(answers: Sequence[Dialogue], count: int, seed: int) -> list[Dialogue]:
    """A random choice of them, each once where there are enough."""
    rng = random.Random(seed)
    return rng.sample(list(answers), count) if count <= len(answers) else rng.choices(list(answers), k=count)


def whole_sentences(text: str) -> str:
    """An answer up to the end of its last whole sentence; nothing where there is none."""
    ends = [found.end() for found in re.finditer(r"[.!?](?=\s|$)|[\u3002\uff01\uff1f]", text)]  # and full-width ones
    return text[: ends[-1]].strip() if ends else ""
