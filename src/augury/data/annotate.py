"""Annotated answers: three calls to an annotating model for each (Bauer et al. 2026).

The first cuts the answer in two and asks a question about the second half; the second answers it from the first half,
as any reader of the text could; the third answers it from the second half, which is the label.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from augury.data import bank
from augury.data.endpoint import Endpoint, open_endpoint
from augury.data.example import Context
from augury.data.fair import words_of
from augury.data.requests import Request
from augury.data.sentences import Cut, Decode, Sentence, cut_before, sentences
from augury.data.sources.conversation import ConversationSettings, says
from augury.data.store import Shards
from augury.lm.chat import Message
from augury.oracle.consensus import normalise_answer

log = logging.getLogger(__name__)
AT_ONCE = 256  # answers of a file
LONGEST_ANSWER, LONGEST_QUESTION = 25, 60  # words
SAME = 0.75  # overlap from which two answers say the same
_UNKNOWN = frozenset(("unknown", "not stated", "not mentioned", "none", "n/a", "not specified", "not given"))


class Dropped(ValueError):
    """Why an answer makes no item; the reasons are counted."""


@dataclass(frozen=True)
class Answer:
    """What the calls are about.

    Attributes:
        problem: What the user said.
        sentences: The answer's.
        cut: Cuts the answer after so many sentences; None where a token stands across.
    """

    problem: str
    sentences: tuple[Sentence, ...]
    cut: Callable[[int], Cut | None]


@dataclass(frozen=True)
class Choice:
    """A usable reply to the first call."""

    cut: Cut
    question: str


def annotate(
    settings: ConversationSettings,
    answers: Sequence[Context],
    shards: Shards[Context],
    decode: Decode,
    replies: Path,
    done: Callable[[int], None] = lambda count: None,
) -> None:
    """Write an annotated context for each answer that makes an item, a file at a time; go on where it was cut off.

    What makes none is counted in the files, by reason.

    Args:
        settings: Of the source; it has an endpoint.
        answers: The rollouts of a split.
        shards: Where to; a unit is an answer.
        decode: Token ids to text.
        replies: The file that keeps the endpoint's replies, where its settings name none.
        done: Called with the number of answers that are done.

    Raises:
        NetworkError: The endpoint gives no reply (see `Endpoint.ask`); all replies so far are kept.
    """
    wanted = len(answers) if settings.most is None else min(settings.most, len(answers))
    if settings.endpoint is None or shards.units >= wanted:
        return
    safe = _one_at_a_time(decode)
    with open_endpoint(settings.endpoint, replies) as endpoint:

        def work(number: int) -> Context | str:
            try:
                return annotated(endpoint, answers[number], settings, safe)
            except Dropped as reason:
                return str(reason)

        numbers = iter(range(shards.units, wanted))
        while part := list(islice(numbers, AT_ONCE)):
            found = list(endpoint.each(work, part))
            kept = [item for item in found if isinstance(item, Context)]
            rows = [replace(context, number=shards.rows + i) for i, context in enumerate(kept)]
            shards.append(rows, len(part), Counter(item for item in found if isinstance(item, str)))
            done(shards.units)
        log.info("%s: %s", settings.endpoint.url, endpoint.usage)


def annotated(endpoint: Endpoint, context: Context, settings: ConversationSettings, decode: Decode) -> Context:
    """The context with its cut, question and answers as labels.

    Raises:
        Dropped: It makes no item.
    """
    answer = _answer(context, settings, decode)
    choice = _choose(endpoint, answer, settings)
    before, after = (_answered(endpoint, kind, answer, choice) for kind in ("before", "after"))
    _check_label(choice.question, after)
    known = same_answer(before, after)
    if known and settings.text_answered == "filter":
        raise Dropped("the text before the cut answers it")
    found = {
        "cut": str(choice.cut.token),
        "question": choice.question,
        "answer": after,
        "text_answer": before,
        "text_answers": "yes" if known else "no",
        "annotator": endpoint.settings.model,
    }
    return replace(context, labels={**context.labels, **found})


def _answer(context: Context, settings: ConversationSettings, decode: Decode) -> Answer:
    ids, (start, stop) = context.token_ids, context.assistant
    found = sentences(decode(ids[start:stop]))
    if len(found) < settings.sentences:
        raise Dropped("it has too few sentences")
    problem = decode(ids[slice(*context.user)]).strip()
    return Answer(problem, found, lambda split: cut_before(ids, start, stop, found[split].start, decode))


def _choose(endpoint: Endpoint, answer: Answer, settings: ConversationSettings) -> Choice:
    """The first call; a reply that cannot be used is asked for once more, with what is wrong with it."""
    numbered = "\n".join(f"{number}. {sentence.text}" for number, sentence in enumerate(answer.sentences, 1))
    first, last = settings.each_side, len(answer.sentences) - settings.each_side
    prompts = bank.read("annotation")
    filled = prompts["choose"].format(
        problem=answer.problem, sentences=numbered, each_side=settings.each_side, first=first, last=last
    )
    asked = (Message("user", filled.strip()),)
    reply = endpoint.ask(Request(asked)).text
    try:
        return read_choice(reply, answer, first, last)
    except Dropped as error:
        wrong = Message("user", prompts["again"].format(error=error).strip())
    reply = endpoint.ask(Request((*asked, Message("assistant", reply), wrong))).text
    return read_choice(reply, answer, first, last)


def read_choice(reply: str, answer: Answer, first: int, last: int) -> Choice:
    """The cut and the question in a reply: the first JSON object in it, whatever stands around it.

    Raises:
        Dropped: There is none, or it cannot be used.
    """
    fields = _first_object(reply)
    split, question = fields.get("split"), fields.get("question")
    if isinstance(split, str) and split.strip().isdecimal():
        split = int(split)
    if not isinstance(split, int) or isinstance(split, bool) or not first <= split <= last:
        raise Dropped("the split is not between the sentences that may be cut after")
    if not isinstance(question, str) or not 1 < len(question.split()) <= LONGEST_QUESTION:
        raise Dropped("the question is none, or too long")
    cut = answer.cut(split)
    if cut is None:
        raise Dropped("the split goes through a token")
    return Choice(cut, " ".join(question.split()))


def _first_object(reply: str) -> dict[str, Any]:
    place = reply.find("{")
    while place >= 0:
        try:
            found = json.JSONDecoder().raw_decode(reply, place)[0]
        except ValueError:
            place = reply.find("{", place + 1)
            continue
        return found
    raise Dropped("the reply holds no JSON object")


def _answered(endpoint: Endpoint, kind: str, answer: Answer, choice: Choice) -> str:
    text = (choice.cut.before if kind == "before" else choice.cut.after).strip()
    filled = bank.read("annotation")[kind].format(problem=answer.problem, text=text, question=choice.question)
    return " ".join(endpoint.ask(Request((Message("user", filled.strip()),))).text.split())


def _check_label(question: str, label: str) -> None:
    told = normalise_answer(label)
    if not told or told in _UNKNOWN:
        raise Dropped("the text after the cut does not answer it")
    if told in ("yes", "no"):
        raise Dropped("it is a yes/no question")
    if len(label.split()) > LONGEST_ANSWER:
        raise Dropped("the answer is too long")
    if says(question, label) or _tells(question, label):
        raise Dropped("the question holds its answer")


def _tells(question: str, label: str) -> bool:
    """Whether a question has a number of its answer, or half of the words that say something."""
    told = words_of(label)
    common = told & words_of(question)
    return any(map(_is_number, common)) or 2 * len(common) >= max(1, len(told))


def _is_number(word: str) -> bool:
    return any(map(str.isdigit, word))


def same_answer(one: str, other: str) -> bool:
    """Whether two answers say the same: equal in normal form (see `normalise_answer`), or with the same numbers and
    three quarters of their words in common (F1 over the normalised words)."""
    words = [Counter(normalise_answer(word) for word in normalise_answer(text).split()) for text in (one, other)]
    if normalise_answer(one) == normalise_answer(other):
        return True
    numbers = [set(filter(_is_number, found)) for found in words]
    common = sum((words[0] & words[1]).values())
    return numbers[0] == numbers[1] and 2 * common >= SAME * (sum(words[0].values()) + sum(words[1].values())) > 0


def _one_at_a_time(decode: Decode) -> Decode:
    """A tokenizer is not to be used by two threads at once."""
    lock = Lock()

    def decoded(ids: Sequence[int]) -> str:
        with lock:
            return decode(ids)

    return decoded
