"""The user's own questions: every kind of context, one example a line, each bad line named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from augury.activations import Activations
from augury.activations.store import save
from augury.data.index import Indexed
from augury.data.rows import split_of
from augury.data.sources.base import Made, unit
from augury.data.sources.custom import CustomSettings, CustomSource, custom_contexts
from augury.errors import FormatError
from tests.tiny import tiny_lm

SPLITS = ("train", "heldout")
ASKED = {"question": "Who?", "answer": "Socrates"}


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def write(folder: Path, rows: list) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def examples(lm, path, split="train", **changes):
    settings = CustomSettings(path=path, **{"heldout_share": 0.0, **changes})
    contexts = list(custom_contexts(lm, settings, split))
    made = Made("mine", split, Indexed(contexts), ((1,),), 0, lm.tokenizer.decode)
    source = CustomSource(settings, made)
    return contexts, [unit(source, settings, made, i)[0] for i in range(len(contexts))]


def test_every_kind_of_context(lm, tmp_path):
    save(Activations.from_tensor(torch.randn(5, 48), 1), tmp_path / "acts.safetensors")
    messages = [{"role": "user", "content": "hello there"}, {"role": "assistant", "content": "well"}]
    contexts, found = examples(lm, write(tmp_path, [
        {**ASKED, "text": "the philosopher who drank hemlock", "positions": "last 2"},
        {**ASKED, "messages": messages, "end": "closed", "positions": "role(assistant)"},
        {**ASKED, "token_ids": [5, 6, 7, 8], "positions": [1, 0]},
        {**ASKED, "vectors": "acts.safetensors", "positions": [4, 2]},
        {**ASKED, "text": "more words", "answer": "Yes"},
    ]))  # fmt: skip
    last = len(contexts[0].token_ids)
    assert found[0].positions == (last - 2, last - 1)
    assert lm.tokenizer.decode([contexts[1].token_ids[p] for p in found[1].positions]).strip() == "well"
    assert (contexts[2].token_ids, found[2].positions) == ((5, 6, 7, 8), (0, 1))
    assert found[3].positions == (2, 4) and contexts[3].labels["vectors"] == str(tmp_path / "acts.safetensors")
    assert [e.task for e in found] == ["custom"] * 4 + ["yes_no"]
    assert [(e.question, e.context, e.author) for e in found] == [("Who?", i, "questions.jsonl") for i in range(5)]
    assert [c.origin for c in contexts] == [f"questions.jsonl:{i}" for i in range(1, 6)]


def test_splits_are_drawn_by_context_or_said(lm, tmp_path):
    rows = [{**ASKED, "text": f"text number {i // 2}"} for i in range(80)]
    path = write(tmp_path, [*rows, {**ASKED, "text": "said", "split": "heldout"}])
    of = {
        split: {c.token_ids for c in examples(lm, path, split, heldout_share=0.4)[0]} for split in ("train", "heldout")
    }
    assert not of["train"] & of["heldout"] and len(of["train"] | of["heldout"]) == 41
    assert len(examples(lm, path, "heldout")[0]) == 1


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("{", "no JSON"),
        ({"text": "a b c"}, "it has no question"),
        ({**ASKED, "text": "a b c", "answer": " "}, "it has no answer"),
        ({**ASKED}, "no context"),
        ({**ASKED, "text": "a", "messages": []}, "text and messages"),
        ({**ASKED, "text": "a b c", "colour": 1}, "unknown fields colour"),
        ({**ASKED, "text": "a b c", "positions": "text(zebra)"}, "zebra"),
        ({**ASKED, "text": ""}, "empty"),
        ({**ASKED, "text": "a b c", "split": "test"}, "its split is 'test'"),
        ({**ASKED, "token_ids": [5, 10**6]}, "vocabulary"),
        ({**ASKED, "vectors": "none.safetensors"}, "none.safetensors"),
        ({**ASKED, "vectors": "acts.safetensors", "positions": [5]}, "rows from 0 to 4"),
        ({**ASKED, "vectors": "acts.safetensors", "item": 1}, "holds 1 items"),
    ],
)
def test_each_bad_line_is_named(lm, tmp_path, row, why):
    save(Activations.from_tensor(torch.randn(5, 48), 1), tmp_path / "acts.safetensors")
    path = write(tmp_path, [{**ASKED, "text": "fine"}, row, {**ASKED, "text": "fine too"}])
    with pytest.raises(FormatError, match=rf"(?s)1 of the 3 rows.*questions.jsonl:2: .*{why}"):
        examples(lm, path)


def test_a_text_is_in_one_split_here_and_elsewhere(lm, tmp_path):
    texts = [f"A text of number {i}." for i in range(120)]
    path = tmp_path / "asked.jsonl"
    rows = [{"text": t, "question": "What?", "answer": "x"} for t in texts]
    rows += [{"messages": [{"role": "user", "content": t}], "question": "What?", "answer": "x"} for t in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = CustomSettings(path=path, heldout_share=0.3)
    held = list(custom_contexts(lm, settings, "heldout"))
    want = sum(split_of(text, 0.3) == "heldout" for text in texts)
    assert len(held) == 2 * want > 20


def test_a_text_that_is_said_to_be_in_both_splits_is_refused(lm, tmp_path):
    path = tmp_path / "asked.jsonl"
    row = {"text": "One text.", "question": "What?", "answer": "x"}
    path.write_text("".join(json.dumps({**row, "split": split}) + "\n" for split in ("train", "heldout")))
    with pytest.raises(FormatError, match=r"asked.jsonl:2.*asked.jsonl:1 has the same text in train"):
        list(custom_contexts(lm, CustomSettings(path=path), "train"))
