"""Labelled texts: balanced pairs, held-out texts and wordings, windows near the end, bad rows named."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from augury.data.index import Indexed
from augury.data.sources.base import Made, unit
from augury.data.sources.classification import (
    SLACK,
    ClassificationSettings,
    ClassificationSource,
    classification_contexts,
)
from augury.errors import FormatError, InputError
from tests.tiny import tiny_lm
from tests.unit.test_samplers import as_likely

WORDS = [f"word{i}" for i in range(40)]
BY_LABEL = {name: [f"Is it {name}?", f"Would you say {name}?", f"{name}, then?"] for name in ("tea", "rice", "oil")}
FILLED = [f"Is this about {{label}}{end}" for end in ("?", ", you think?", " or so?", " at all?")]


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def table(folder: Path, rows: list[dict[str, str]]) -> Path:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    rng = random.Random(0)
    rows = [
        {"text": " ".join(rng.choices(WORDS, k=rng.randint(1, 60))), "label": ("tea", "rice", "oil")[i % 7 % 3]}
        for i in range(200)
    ]
    return table(tmp_path_factory.mktemp("texts"), rows)


def source(lm, path, split="train", **changes):
    settings = ClassificationSettings(path=path, **{"questions": FILLED, "heldout_share": 0.3, **changes})
    contexts = list(classification_contexts(lm, settings, split))
    made = Made("texts", split, Indexed(contexts), ((1,),), 0, lm.tokenizer.decode)
    return settings, contexts, ClassificationSource(settings, made), made


@pytest.mark.parametrize("questions", [FILLED, BY_LABEL])
def test_pairs_are_balanced_within_each_question(lm, texts, questions):
    settings, contexts, found, made = source(lm, texts, questions=questions)
    pairs = [unit(found, settings, made, i) for i in range(2000)]
    assert all([e.answer for e in pair] == ["Yes", "No"] and pair[0].positions == pair[1].positions for pair in pairs)
    asked = Counter((e.question, e.answer) for pair in pairs for e in pair)
    yes, no = ({q: n for (q, a), n in asked.items() if a == answer} for answer in ("Yes", "No"))
    assert yes.keys() == no.keys() and len(yes) == (9 if questions is FILLED else 6)
    as_likely(Counter(yes), dict.fromkeys(yes, 1))
    as_likely(Counter(no), dict.fromkeys(no, 1))
    for pair in pairs[:50]:
        label = contexts[pair[0].context].labels["label"]
        assert label in pair[0].question and label not in pair[1].question


def test_texts_and_wordings_are_held_out(lm, texts):
    used = {}
    for split in ("train", "heldout"):
        settings, contexts, found, made = source(lm, texts, split)
        examples = [e for i in range(400) for e in unit(found, settings, made, i)]
        used[split] = ({c.token_ids for c in contexts}, {e.wording for e in examples})
        assert {e.split for e in examples} == {split}
    assert not used["train"][0] & used["heldout"][0] and not used["train"][1] & used["heldout"][1]
    assert len(used["train"][0]) + len(used["heldout"][0]) == 200
    assert (len(used["train"][1]), len(used["heldout"][1])) == (3, 1)


def test_windows_end_near_the_texts_end(lm, texts):
    settings, contexts, found, made = source(lm, texts, window=50, single=0.5)
    for i in range(500):
        example = unit(found, settings, made, i)[0]
        start, stop = contexts[example.context].body
        assert (
            start <= example.positions[0] and stop - SLACK <= example.positions[-1] + 1 <= stop
        ) or stop - start < SLACK
        assert example.positions == tuple(range(example.positions[0], example.positions[-1] + 1))


def test_a_unit_is_a_function_of_its_number(lm, texts):
    settings, _, found, made = source(lm, texts, open=("What is it about?", "Which label fits?"))
    units = [unit(found, settings, made, i) for i in range(300)]
    assert [unit(found, settings, made, i) for i in reversed(range(300))] == units[::-1]
    assert Counter(len(u) for u in units)[1] == pytest.approx(100, abs=30)
    answers = {e.answer for u in units if len(u) == 1 for e in u}
    assert answers == {"tea", "rice", "oil"}


def test_bad_rows_are_named(lm, tmp_path):
    rows = [{"text": "a b", "label": "tea"}, {"text": " ", "label": "tea"}, {"label": "oil"}, {"text": "c"}]
    path = table(tmp_path, rows)
    with pytest.raises(FormatError, match=r"(?s)3 of the 4 rows.*jsonl:2: it has no text .*:3: .*:4: it has no label"):
        source(lm, path)
    with pytest.raises(FormatError, match="no question for the label salt"):
        source(lm, table(tmp_path, [{"text": "a", "label": "salt"}]), questions=BY_LABEL)


def test_one_label_cannot_be_told_apart(lm, tmp_path):
    with pytest.raises(InputError, match="nothing to tell apart"):
        source(lm, table(tmp_path, [{"text": f"a {i}", "label": "tea"} for i in range(20)]))


@pytest.mark.parametrize("questions", [["Is it tea?"], [], {"tea": ["Is it?"]}, ["{label}?"]])
def test_wordings_that_cannot_be_used(questions):
    with pytest.raises(ValidationError):
        ClassificationSettings(path=Path("x.csv"), questions=questions)


def test_one_open_wording_cannot_be_both_trained_on_and_held_out():
    settings = {"path": Path("x.csv"), "questions": ["Is it {label}?", "{label}?"], "open": ["What is it?"]}
    with pytest.raises(ValidationError, match="both trained on and held out"):
        ClassificationSettings(**settings)
    assert ClassificationSettings(**settings, heldout_share=0).open == ("What is it?",)
