"""Questions about what an answer has not said yet: nothing of the answer is read, and what is dropped is counted."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from augury.data import bank
from augury.data.annotate import _tells, annotate, same_answer
from augury.data.build import build
from augury.data.calls import endpoint_calls
from augury.data.coming import first_new, new_words
from augury.data.example import Context, Part
from augury.data.index import Indexed
from augury.data.recipe import DataRecipe
from augury.data.sentences import cut_before, sentences
from augury.data.sources.base import Made, unit
from augury.data.sources.conversation import ConversationSettings, ConversationSource
from augury.data.store import Shards
from augury.errors import NetworkError
from augury.lm.chat import Message, render_chat
from augury.oracle.consensus import normalise_answer
from tests.scripted import Fault, completion, scripted
from tests.tiny import tiny_lm

WORDS = bank.topics()


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def answer_text(number: int) -> str:
    """Nine sentences with words, names and numbers of their own."""
    rng = random.Random(number)
    nouns = [topic.name for topic in rng.sample([t for t in WORDS if t.name.isalpha() and len(t.name) > 4], 9)]
    return " ".join(
        f"Then I met {noun.title()} with {nouns[i - 1][::-1]} and {100 * number + i} {noun}."
        for i, noun in enumerate(nouns)
    )


def context_of(lm, number: int, text: str, ended: bool = True) -> Context:
    found = render_chat(lm, [Message("user", f"problem {number}"), Message("assistant", text)], "closed")
    parts = tuple(Part(span.role, "target", span.start, span.stop) for span in found.spans)
    ids = found.token_ids if ended else found.token_ids[: parts[1].stop]
    return Context(number, "train", ids, parts, {"topic": f"t{number % 3}"})


@pytest.fixture(scope="module")
def contexts(lm):
    return [context_of(lm, number, answer_text(number)) for number in range(1, 13)]


# --- sentences and cuts ---

TEXTS = st.lists(
    st.sampled_from(
        ["Hello", " ", ". ", "\n", "\n- ", "e.g.", "3.5", "1. ", "Yes", "?", "! ", "é", "…", "😀", "。", "A"]
    )
    | st.text(max_size=3)
).map("".join)


@given(TEXTS)
def test_sentences_hold_all_but_space(text):
    found = sentences(text)
    assert all(text[s.start : s.stop] == s.text == s.text.strip() != "" for s in found)
    edges = [0, *(edge for s in found for edge in (s.start, s.stop)), len(text)]
    assert edges == sorted(edges)
    assert all(not text[a:b].strip() for a, b in zip(edges[::2], edges[1::2], strict=True))
    assert all("\n" not in s.text for s in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Who paid 3.50. He left! \"Why?\" she said. Nine is 9. Ten", ["Dr. Who paid 3.50.", "He left!",
         '"Why?" she said.', "Nine is 9.", "Ten"]),
        ("Take these:\n1. Milk\n2. Eggs (two). Then go", ["Take these:", "1. Milk", "2. Eggs (two).", "Then go"]),
        ("J. K. Rowling, e.g. Potter. yes", ["J. K. Rowling, e.g. Potter. yes"]),
        ("你好。再见!", ["你好。", "再见!"]),
        (" \n ", []),
    ],
)  # fmt: skip
def test_where_sentences_end(text, expected):
    assert [sentence.text for sentence in sentences(text)] == expected


@given(text=TEXTS)
@example(text="One. Two 😀. Three")
def test_a_cut_is_the_last_token_without_anything_of_what_follows(lm, text):
    tokenizer = lm.tokenizer
    before = tokenizer("x y. ")["input_ids"]
    ids = [*before, *tokenizer(text)["input_ids"], 5]
    start, stop = len(before), len(ids) - 1
    for sentence in sentences(text)[1:]:
        cut = cut_before(ids, start, stop, sentence.start, tokenizer.decode)
        halves = {t: tokenizer.decode(ids[start:t]) for t in range(start + 1, stop)}
        first = text[: sentence.start].rstrip()
        fits = [t for t, half in halves.items() if half.rstrip() == first and text.startswith(half)]
        assert (cut.token if cut else None) == (max(fits) if fits else None)
        if cut is not None:
            assert cut.before + cut.after == text and cut.after.lstrip().startswith(sentence.text)


# --- rules ---


def rule_examples(lm, contexts, count, split="train", **changes):
    settings = ConversationSettings(contexts="answers", **changes)
    made = Made("said", split, Indexed(contexts), ((1,),), 0, lm.tokenizer.decode)
    source = ConversationSource(settings, made)
    return [example for number in range(count) for example in unit(source, settings, made, number)]


def halves(lm, contexts, example) -> tuple[str, str]:
    """The text up to the last position that is read, and after it."""
    ids = contexts[example.context].token_ids
    return lm.tokenizer.decode(ids[: example.positions[-1] + 1]), lm.tokenizer.decode(ids[example.positions[-1] + 1 :])


@pytest.fixture(scope="module")
def by_rule(lm, contexts):
    contexts = [Context(i, c.split, c.token_ids, c.parts, c.labels) for i, c in enumerate(contexts)]
    return contexts, rule_examples(lm, contexts, 300)


def test_answers_are_after_what_is_read_and_not_before(lm, by_rule):
    contexts, examples = by_rule
    for item in examples:
        read, rest = halves(lm, contexts, item)
        said = re.search(r"'(\w+)'", item.question)[1] if item.task == "yes_no" else item.answer
        word = re.compile(rf"\b{re.escape(said)}\b", re.IGNORECASE)
        assert not word.search(read)
        assert bool(word.search(rest)) == (item.answer != "No")
        assert item.task == "yes_no" or not word.search(item.question)
        assert item.positions[0] >= contexts[item.context].user[1]
        assert (item.author, item.notes) == ("rule", {"form": "rule"})


def test_all_kinds_and_yes_no_in_pairs(by_rule):
    _, examples = by_rule
    kinds = Counter(item.kind for item in examples)
    assert set(kinds) == {"coming_word", "number", "name", "word"}  # there are no lists
    assert kinds["coming_word"] / 2 == pytest.approx(300 * 2 / 5, rel=0.25)
    pairs = [item for item in examples if item.task == "yes_no"]
    for yes, no in zip(pairs[::2], pairs[1::2], strict=True):
        assert (yes.answer, no.answer, yes.positions, yes.wording) == ("Yes", "No", no.positions, no.wording)


def test_words_do_not_tell_the_answer(lm, contexts):
    """What is asked about comes from the same answers for Yes and for No."""
    contexts = [Context(i, c.split, c.token_ids, c.parts, c.labels) for i, c in enumerate(contexts)]
    found = rule_examples(lm, contexts, 1500, kinds={"coming_word": 1})
    asked = {a: Counter(re.search(r"'(\w+)'", e.question)[1] for e in found if e.answer == a) for a in ("Yes", "No")}
    both = set(asked["Yes"]) & set(asked["No"])
    assert len(both) > 0.8 * len(set(asked["Yes"]) | set(asked["No"]))
    yes = [asked["Yes"][word] / (asked["Yes"][word] + asked["No"][word]) for word in both]
    assert sum(yes) / len(yes) == pytest.approx(0.5, abs=0.08)


def test_held_out_wordings_are_held_out(lm, contexts):
    contexts = [Context(i, c.split, c.token_ids, c.parts, c.labels) for i, c in enumerate(contexts)]
    of = {split: {e.wording for e in rule_examples(lm, contexts, 200, split)} for split in ("train", "heldout")}
    assert of["train"] and of["heldout"] and not of["train"] & of["heldout"]


def test_short_answers_are_refused(lm, contexts):
    with pytest.raises(ValueError, match="could make no example"):
        rule_examples(lm, contexts, 1, sentences=10)


@pytest.mark.parametrize(
    ("kind", "earlier", "rest", "expected"),
    [
        ("number", "He has 3 cats", "and three, 3 or 1,200 dogs.", "1,200"),
        ("number", "cats", "1. Milk\n2. Eggs 5", "5"),
        ("number", "cats", "at 4.5% or 7", "4.5%"),
        ("name", "I saw Anna", "It said Anna met the Queen of Spain.", "Queen of Spain"),
        ("name", "so", "Nobody came. Then it rained.", None),
        ("item", "- tea", "- **Tea**: hot\n- Rye bread: fresh\n", "Rye bread"),
        ("word", "They walk", "about walking through gardens", "gardens"),
    ],
)
def test_what_is_new(kind, earlier, rest, expected):
    assert first_new(kind, earlier, rest) == expected


def test_an_unfinished_sentence_says_nothing(lm):
    text = " ".join(f"Number {i} is here." for i in range(8)) + " Then came elephan"
    found = context_of(lm, 0, text, ended=False)
    other = context_of(lm, 1, answer_text(5))
    for item in rule_examples(lm, [found, other], 60, kinds={"coming_word": 1, "word": 1, "number": 3}):
        assert "elephan" not in item.question + item.answer
    assert new_words("a", "the elephants") == ["elephants"]


# --- three calls ---


def annotator(body: dict) -> dict:
    """Cuts after the fourth sentence, asks for the number of its sixth, and guesses wrong."""
    text = body["messages"][-1]["content"]
    if "Cut the answer in two" in text:
        return completion('Sure!\n```json\n{"split": "4", "question": "How many come  in the sixth?"}\n```')
    if "Beginning of the answer" in text:
        return completion(" seven ")
    return completion(re.findall(r"\d+", text)[1] + ".")


@pytest.fixture
def server():
    with scripted(annotator) as found:
        yield found


def annotated(lm, contexts, server, folder, **changes):
    endpoint = {"url": server.url, "model": "wise", "key_env": None, "retries": 0, "concurrency": 3}
    found = {"contexts": "answers", "endpoint": endpoint, **changes}
    settings = ConversationSettings.model_validate(found)
    shards = Shards(folder, "said", "train", Context, "a recipe")
    annotate(settings, contexts, shards, lm.tokenizer.decode, folder / "replies.jsonl")
    made = Made("said", "train", Indexed(shards.table()), ((1,),), 0, lm.tokenizer.decode)
    source = ConversationSource(settings, made)
    examples = [unit(source, settings, made, number)[0] for number in range(len(shards.table()))]
    return list(shards.table()), examples, Shards(folder, "said", "train", Context, "a recipe").dropped


def test_the_three_calls(lm, contexts, server, tmp_path):
    rows, examples, dropped = annotated(lm, contexts, server, tmp_path)
    assert len(rows) == len(contexts) and dropped == {} and [row.number for row in rows] == list(range(12))
    assert len(server.bodies) == 3 * 12 and all(body["temperature"] == 0 for body in server.bodies)
    prompts = [body["messages"][0]["content"] for body in server.bodies]
    for row, item, context in zip(rows, examples, contexts, strict=True):
        said = [sentence.text for sentence in sentences(answer_text(context.number))]
        (chosen,) = [p for p in prompts if "1. " + said[0] in p]
        assert all(f"{i}. {text}\n" in chosen for i, text in enumerate(said, 1)) and "sentences 3 to 6" in chosen
        (before,) = [p for p in prompts if "Beginning of" in p and said[0] in p]
        (after,) = [p for p in prompts if "a part of an answer" in p and said[8] in p]
        assert all(text in before for text in said[:4]) and not any(text in before for text in said[4:])
        assert all(text in after for text in said[4:]) and not any(text in after for text in said[:4])
        assert lm.tokenizer.decode(row.token_ids[context.assistant[0] : int(row.labels["cut"])]) == " ".join(said[:4])
        assert context.user[1] <= item.positions[0] and item.positions[-1] < int(row.labels["cut"])
        assert (item.question, item.answer) == ("How many come in the sixth?", f"{re.findall(r'[0-9]+', said[5])[0]}.")
        assert (item.task, item.author, item.weight) == ("conversation", "wise", 1.0)
        assert item.notes == {"form": "annotated", "text_answer": "seven", "text_answers": "no"}
        assert row.token_ids == context.token_ids and row.labels["topic"] == context.labels["topic"]


def with_choice(*replies: str):
    """The annotator, with these replies to the first call, one after another for each answer."""
    asked: Counter[str] = Counter()

    def answer(body: dict) -> dict:
        text = body["messages"][0]["content"]
        if "Cut the answer in two" not in text:
            return annotator(body)
        asked[text] += 1
        return completion(replies[min(asked[text], len(replies)) - 1])

    return answer


FINE = '{"split": 4, "question": "How many is it?"}'


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("I would rather not {.", "no JSON"),
        ("[1]", "no JSON"),
        ('{"split": 4}', "the question is none"),
        ('{"split": 4, "question": "Why"}', "the question is none"),
        ('{"split": 2, "question": "How many is it?"}', "the split"),
        ('{"split": 7, "question": "How many is it?"}', "the split"),
        ('{"split": true, "question": "How many is it?"}', "the split"),
        ('{"split": 4.5, "question": "How many is it?"}', "the split"),
    ],
)
def test_a_useless_choice_is_asked_for_once_more_and_then_counted(lm, contexts, server, tmp_path, reply, reason):
    server.answer = with_choice(reply, FINE)
    rows, _, dropped = annotated(lm, contexts[:2], server, tmp_path / "mended")
    assert len(rows) == 2 and dropped == {} and len(server.bodies) == 8
    again = next(body["messages"] for body in server.bodies if len(body["messages"]) == 3)
    assert again[1] == {"role": "assistant", "content": reply} and reason in again[2]["content"]
    server.answer, server.bodies = with_choice(reply), []
    rows, _, dropped = annotated(lm, contexts[:2], server, tmp_path / "lost")
    assert rows == [] and len(server.bodies) == 4
    ((why, count),) = dropped.items()
    assert reason in why and count == 2


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("Unknown.", "does not answer"), (" ", "does not answer"), ("Yes", "yes/no"), ("words " * 30, "too long"),
        ("the  SIXTH", "holds its answer"), ("It is 7", None), ("seven", "before the cut answers"),
        ("7", "before the cut answers"),
    ],
)  # fmt: skip
def test_labels_that_are_none_are_counted(lm, contexts, server, tmp_path, label, reason):
    server.answer = lambda b: completion(label) if "a part of an" in b["messages"][0]["content"] else annotator(b)
    rows, _, dropped = annotated(lm, contexts[:3], server, tmp_path)
    assert len(rows) == (0 if reason else 3)
    assert reason is None or (reason in next(iter(dropped)) and sum(dropped.values()) == 3)


@pytest.mark.parametrize(("policy", "weight"), [("weight", 0.5), ("keep", 1.0)])
def test_what_the_text_answers_is_kept_as_told(lm, contexts, server, tmp_path, policy, weight):
    server.answer = lambda b: completion("12") if "Cut" not in b["messages"][0]["content"] else annotator(b)
    _, examples, dropped = annotated(lm, contexts[:3], server, tmp_path, text_answered=policy, text_weight=0.5)
    assert dropped == {} and [(e.weight, e.notes["text_answers"]) for e in examples] == [(weight, "yes")] * 3


def test_answers_without_enough_sentences_cost_nothing(lm, contexts, server, tmp_path):
    short = context_of(lm, 0, "One is here. Two is there. Three is away.")
    rows, _, dropped = annotated(lm, [short, *contexts[:1]], server, tmp_path)
    assert len(rows) == 1 and dropped == {"it has too few sentences": 1} and len(server.bodies) == 3


@pytest.mark.parametrize("fault", [Fault(401), Fault(500), Fault(body="garbage"), Fault(body="{", drop=True)])
def test_a_fault_stops_it_and_it_goes_on_without_asking_again(lm, contexts, server, tmp_path, fault):
    whole, _, _ = annotated(lm, contexts, server, tmp_path / "whole")
    server.bodies = []

    def failing(body: dict):
        return fault if len(server.bodies) == 17 else annotator(body)

    server.answer = failing
    with pytest.raises(NetworkError, match=r"replies are kept in"):
        annotated(lm, contexts, server, tmp_path / "cut")
    server.answer, before = annotator, len(server.bodies)
    assert annotated(lm, contexts, server, tmp_path / "cut")[0] == whole
    kept = Counter(json.dumps(body) for body in server.bodies)
    assert before < 36 and len(kept) == 36 and len(server.bodies) == 37  # the one that failed is asked again
    annotated(lm, contexts, server, tmp_path / "cut")
    assert len(server.bodies) == 37


def test_no_more_are_annotated_than_wanted_and_it_can_be_prolonged(lm, contexts, server, tmp_path):
    assert len(annotated(lm, contexts, server, tmp_path, most=2)[0]) == 2
    assert len(annotated(lm, contexts, server, tmp_path, most=5)[0]) == 5
    assert len(server.bodies) == 15


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The cat.", "cat", True), ("12 apples", "twelve apples", True), ("3 red apples", "4 red apples", False),
        ("a big red house", "the big red house by it there", False),
        ("he walked home slowly", "He walked home, slowly!", True),
        ("walked home very slowly", "walked home slowly", True), ("", "x", False),
    ],
)  # fmt: skip
def test_when_two_answers_say_the_same(one, other, same):
    assert same_answer(one, other) is same_answer(other, one) is same


# --- in a recipe ---


def recipe(url: str, folder: Path, endpoint: dict | None = MappingProxyType({}), **changes) -> DataRecipe:
    prompts = folder / "prompts.txt"
    prompts.write_text("".join(f"Say {number}\n" for number in range(6)))
    settings = {"url": url, "model": "wise", "key_env": "K", "retries": 0, "prices": {"prompt": 1, "completion": 2}}
    said = {"type": "conversation", "contexts": "answers", "sentences": 2, "each_side": 1, "train": 9, **changes}
    if endpoint is not None:
        said["endpoint"] = {**settings, **endpoint}
    answers = {"type": "rollouts", "prompts": str(prompts), "train": 6, "heldout": 0, "heldout_share": 0.0}
    found = {"name": "a", "model": "tiny", "layers": [[1]], "contexts": {"answers": {**answers, "max_new_tokens": 40}}}
    return DataRecipe.model_validate({**found, "sources": {"said": said}})


def test_in_a_build(lm, contexts, tmp_path, monkeypatch):
    """The annotated answers are a set of their own; where the endpoint is does not matter, what it is does."""
    by_number = {c.number: c for c in contexts}

    def answers(lm, prompts, shards, sampling, **_):
        rows = [by_number[i + 1] for i, _ in enumerate(prompts)]
        rows = [Context(i, "train", c.token_ids, c.parts) for i, c in enumerate(rows)]
        if not shards.units:
            shards.append([context_of(lm, 0, "Too short."), *(rows[1:])], len(rows))

    monkeypatch.setattr("augury.data.build.sample_rollouts", answers)
    prints = {}
    for name, model in (("one", "wise"), ("two", "wise"), ("three", "other")):
        with scripted(annotator) as found:
            change = {"model": model, "key_env": name.upper(), "concurrency": 1 + len(name)}
            made = recipe(found.url, tmp_path, change, sentences=8, each_side=3)
            built = build(lm, made, tmp_path / name)
            asked = len(found.bodies)
            again = build(lm, made, tmp_path / name)
        assert asked == len(found.bodies) == 15 and again.fingerprint == built.fingerprint
        examples, rows = built.examples["said", "train"], built.contexts["said", "train"]
        assert len(examples) == 9 and len(rows) == 5 and {item.contexts for item in examples} == {"said"}
        assert {item.context for item in examples} == set(range(5))
        assert all(item.positions[-1] < int(rows[item.context].labels["cut"]) for item in examples)
        assert built.dropped["said", "train"] == {"it has too few sentences": 1}
        told = (tmp_path / name / "data.json").read_text()
        assert json.loads(told)["dropped"] == {"said (train)": {"it has too few sentences": 1}}
        assert found.url not in told
        prints[name] = built.fingerprint
    assert prints["one"] == prints["two"] != prints["three"]


def test_what_it_will_ask_is_told_before(tmp_path):
    (found,) = endpoint_calls(recipe("http://host/v1", tmp_path, most=4))
    assert (found.name, found.model, found.calls, found.completion_tokens) == ("said", "wise", 12, 12 * 512)
    assert found.cost == pytest.approx((found.prompt_tokens + 2 * found.completion_tokens) / 1e6)
    assert endpoint_calls(recipe("http://host/v1", tmp_path, endpoint=None)) == []


def test_settings_that_cannot_be(tmp_path):
    with pytest.raises(ValidationError, match="raise `sentences`"):
        recipe("http://host/v1", tmp_path, sentences=3, each_side=2)
    with pytest.raises(ValidationError, match="number"):
        recipe("http://host/v1", tmp_path, endpoint=None, kinds={"numbers": 1})
    made = recipe("http://host/v1", tmp_path).model_dump(mode="json")
    made["contexts"]["answers"] = {"type": "text", "path": str(tmp_path / "prompts.txt")}
    with pytest.raises(ValidationError, match="no rollouts"):
        DataRecipe.model_validate(made)
    assert normalise_answer("Seven") == "7"


@pytest.mark.parametrize(
    ("question", "answer", "tells"),
    [
        ("How many apples are bought?", "red apples", True),
        ("Which of the 12 is it?", "number 12 of the house", True),
        ("What colour is the car that he buys?", "The car is dark green", False),
        ("Where do they go?", "Rome", False),
    ],
)
def test_a_question_that_has_half_of_its_answer_or_its_number_tells_it(question, answer, tells):
    assert _tells(question, answer) is tells
