"""The leaks that matter, over a real small build: bank prompts, every kind of question, every kind of source."""

from __future__ import annotations

import json

import pytest

from augury.data import bank
from augury.data.build import SPLITS, build
from augury.data.fair import fair, words_of
from augury.data.recipe import DataRecipe
from augury.data.sources.lens import WORDINGS
from augury.data.sources.questions import OPEN_KINDS, YES_NO_KINDS, _few
from augury.errors import InputError
from tests.tiny import tiny_lm

ROLLOUTS = {"type": "rollouts", "train": 240, "heldout": 120, "max_new_tokens": 20, "temperature": 1.0}
LABELS = ("tea", "rice", "oil")


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def built(lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaks")
    rows = [f'"{LABELS[i % 3]} and other words, number {i}",{LABELS[i % 3]}\n' for i in range(150)]
    (folder / "labelled.csv").write_text("text,label\n" + "".join(rows) + "".join(rows))  # each text twice
    (folder / "corpus.txt").write_text("".join(f"{'word after word ' * 9}{i}\n" for i in range(90)) * 2)
    made = [{"text": f"text {i % 70}", "question": f"Why {i}?", "answer": f"so {i}"} for i in range(140)]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    source = {"type": "questions", "contexts": "answers"}
    found = {
        "name": "leaks", "model": "tiny", "layers": [[1], [2, 3]],
        "contexts": {"answers": ROLLOUTS, "corpus": {"type": "text", "path": folder / "corpus.txt",
                                                     "heldout_share": 0.3}},
        "sources": {
            "lens": {"type": "lens", "contexts": "answers", "k": 6, "window": 4, "train": 600, "heldout": 200},
            "texts": {"type": "lens", "contexts": "corpus", "k": 9, "train": 300, "heldout": 100},
            "asked": {**source, "pairs": 1, "yes_no": dict.fromkeys(YES_NO_KINDS, 1), "train": 1200, "heldout": 600},
            "open": {**source, "pairs": 0, "open": dict.fromkeys(OPEN_KINDS, 1), "train": 1200, "heldout": 600},
            "labels": {"type": "classification", "path": folder / "labelled.csv", "heldout_share": 0.3,
                       "questions": ["Is it {label}?", "{label}?", "Would you say {label}?"],
                       "open": ["Which one?", "What is it?", "Tea, rice or oil?", "Is tea in it?", "Name it."],
                       "train": 300, "heldout": 100},
            "mine": {"type": "custom", "path": folder / "mine.jsonl", "heldout_share": 0.3},
        },
    }  # fmt: skip
    return build(lm, DataRecipe.model_validate(found), folder / "data")


def rows(built, *sources):
    """(example, context) of some sources, both splits."""
    for (source, split), table in built.examples.items():
        if source in sources:
            yield from ((example, built.contexts[example.contexts, split][example.context]) for example in table)


def test_every_kind_is_there(built):
    for source, kinds in (("asked", YES_NO_KINDS), ("open", OPEN_KINDS)):
        assert {example.kind for example in built.examples[source, "train"]} == set(kinds)
        assert len({example.kind for example in built.examples[source, "heldout"]}) >= len(kinds) - 3


def test_no_target_token_is_inside_a_lens_window(built):
    """Nor is a future one to the left of the last token that is read: beyond that nothing is captured."""
    for example, context in rows(built, "lens", "texts"):
        first, last, n = example.positions[0], example.positions[-1], len(example.answer_ids)
        targets = range(first - n, first) if example.task == "past_lens" else range(last + 1, last + 1 + n)
        assert context.token_ids[targets.start : targets.stop] == example.answer_ids
        assert not set(targets) & set(example.positions)
        assert min(targets) >= 0 and max(targets) < len(context.token_ids)


def test_a_lens_question_tells_nothing_but_how_many(built):
    for example, _ in rows(built, "lens", "texts"):
        assert example.question == WORDINGS[example.task].format(k=len(example.answer_ids))


def test_what_comes_next_is_not_read(lm, built):
    for example, context in rows(built, "open"):
        if example.kind == "next":
            following = lm.tokenizer.decode(context.token_ids[example.positions[-1] + 1 :])
            assert following.strip().startswith(example.answer[:-1])


def test_no_answer_word_stands_in_an_open_question(built):
    """But where the question names every answer there could be."""
    for example, _ in rows(built, "open"):
        few = [words_of(answer) for answer in _few(example.kind)]
        named = [answer & words_of(example.question) for answer in few]
        assert (few and all(named)) or not words_of(example.answer) & words_of(example.question), example
    asked = {(e.question, e.answer) for e, _ in rows(built, "labels") if e.task == "open"}
    assert ("Is tea in it?", "tea") not in asked and ("Is tea in it?", "oil") in asked
    assert {answer for question, answer in asked if question.startswith("Tea,")} <= set(LABELS)


def test_yes_no_questions_are_asked_both_ways(built):
    """They name what they ask about, so each wording and read stands once with Yes and once with No."""
    for source in ("asked", "labels"):
        pairs: dict[tuple, list] = {}
        for example, _ in rows(built, source):
            if example.task == "yes_no":
                pairs.setdefault((example.split, example.unit), []).append(example)
        assert len(pairs) > 100
        for one, other in pairs.values():
            assert (one.answer, other.answer) == ("Yes", "No") and one.question != other.question
            assert (one.context, one.positions, one.wording) == (other.context, other.positions, other.wording)


@pytest.mark.parametrize("name", ["answers", "corpus", "labels", "mine"])
def test_no_held_out_context_is_trained_on(built, name):
    train, heldout = ({c.token_ids for c in built.contexts[name, split]} for split in SPLITS)
    assert train and heldout and not train & heldout


def test_no_held_out_prompt_is_trained_on(lm, built):
    def told(split, what):
        contexts = built.contexts["answers", split]
        return {lm.tokenizer.decode(c.token_ids[slice(*c.user)]) if what == "prompt" else c.labels.get("topic")
                for c in contexts} - {None}  # fmt: skip

    for what in ("prompt", "topic"):
        train, heldout = told("train", what), told("heldout", what)
        assert len(train) > 50 and len(heldout) > 20 and not train & heldout, what


def test_no_held_out_topic_is_asked_about_in_training(built):
    """Not as a false one either."""
    foreign = {topic.answer.casefold() for topic in bank.topics_of("heldout")}
    for example in built.examples["asked", "train"]:
        if example.kind in ("topic", "near_topic"):
            before, after = example.wording.split(":", 1)[1].split("{x}")
            value = example.question[len(before) : len(example.question) - len(after)]
            assert value.casefold() not in foreign, example.question


@pytest.mark.parametrize("source", ["asked", "open", "labels"])
def test_no_held_out_wording_is_trained_on(built, source):
    train, heldout = ({example.wording for example in built.examples[source, split]} for split in SPLITS)
    assert train and heldout and not train & heldout


def test_held_out_examples_are_of_held_out_contexts(built):
    for (_, split), table in built.examples.items():
        for example in table:
            context = built.contexts[example.contexts, split][example.context]
            assert (example.split, context.split, context.number) == (split, split, example.context)


def test_wordings_that_name_an_answer_are_left_out():
    wordings = ["Is it the tea?", "Tea or rice?", "Which one?", "What does tearing do?"]
    assert fair(wordings, "the tea") == ["Which one?", "What does tearing do?"]
    assert fair(wordings, "tea", ["tea", "rice"]) == wordings[1:]
    assert fair(wordings, "tea", ["tea", "rice", "oil"]) == wordings[2:]


def test_a_source_whose_open_questions_name_their_answer_is_refused(lm, tmp_path):
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"words {i},{LABELS[i % 3]}\n" for i in range(40)))
    source = {"type": "classification", "path": tmp_path / "t.csv", "questions": ["Is it {label}?"],
              "open": ["Is it tea?"], "heldout_share": 0, "train": 60}  # fmt: skip
    recipe = {"name": "x", "model": "tiny", "layers": [[1]], "sources": {"labels": source}}
    with pytest.raises(InputError, match="name their own answer"):
        build(lm, DataRecipe.model_validate(recipe), tmp_path / "data")
