"""Building a data set: everything that a recipe names, on from wherever it was cut off, refused where it is another."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from augury.data.build import build
from augury.data.recipe import DataRecipe
from augury.errors import InputError, NotFoundError, StorageError
from tests.tiny import tiny_lm

ANSWERS = {"type": "rollouts", "train": 30, "heldout": 9, "max_new_tokens": 12, "temperature": 1.0, "batch_size": 8}


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def recipe(folder: Path, **changes) -> DataRecipe:
    labelled = folder / "labelled.csv"
    labelled.write_text("text,label\n" + "".join(f"words {i} of it,{'ab'[i % 2]}\n" for i in range(60)))
    mine = folder / "mine.jsonl"
    mine.write_text(
        "".join(json.dumps({"text": f"a text {i}", "question": "Why?", "answer": "So."}) + "\n" for i in range(9))
    )
    corpus = folder / "corpus.txt"
    corpus.write_text("".join(f"{'word ' * 30}{i}\n" for i in range(20)))
    found = {
        "name": "tiny", "model": "tiny", "layers": [[1], ["50%", 3]],
        "contexts": {"answers": ANSWERS, "corpus": {"type": "text", "path": corpus}},
        "sources": {
            "lens": {"type": "lens", "contexts": "answers", "k": 4, "window": 2, "train": 40, "heldout": 6},
            "texts": {"type": "lens", "contexts": "corpus", "k": 9, "train": 25},
            "about": {"type": "questions", "contexts": "answers", "heldout": 10},
            "labels": {"type": "classification", "path": labelled, "questions": ["Is it {label}?", "{label}?"],
                       "train": 20},
            "mine": {"type": "custom", "path": mine, "heldout_share": 0.0},
        },
    }  # fmt: skip
    return DataRecipe.model_validate({**found, **changes})


def rows(built) -> dict:
    return {key: list(table) for key, table in (*built.contexts.items(), *built.examples.items())}


@pytest.fixture(scope="module")
def whole(lm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return build(lm, recipe(folder), folder / "data", {"about": 33})


def test_all_that_the_recipe_names_is_made(whole):
    counts = {key: len(table) for key, table in whole.examples.items()}
    assert counts["lens", "train"] == 40 and counts["lens", "heldout"] == 6
    assert 33 <= counts["about", "train"] <= 34 and 10 <= counts["about", "heldout"] <= 11
    assert 20 <= counts["labels", "train"] <= 21 and counts["mine", "train"] == 9 and counts["mine", "heldout"] == 0
    assert {key: len(table) for key, table in whole.contexts.items() if key[0] == "answers"} == {
        ("answers", "train"): 30,
        ("answers", "heldout"): 9,
    }


def test_examples_fit_their_contexts(whole):
    for (source, split), table in whole.examples.items():
        for example in table:
            context = whole.contexts[example.contexts, split][example.context]
            assert (example.source, example.split, context.split) == (source, split, split)
            assert example.context == context.number and example.layers in ((1,), (2, 3))
            assert min(example.positions) >= 0 and max(example.positions) < len(context.token_ids)


def test_no_target_token_is_read(whole):
    """Of the lens: what is to be named stands before the window or after it, never in it."""
    for source in ("lens", "texts"):
        for example in whole.examples[source, "train"]:
            ids, n = whole.contexts[example.contexts, "train"][example.context].token_ids, len(example.answer_ids)
            start, stop = example.positions[0], example.positions[-1] + 1
            place = slice(start - n, start) if example.task == "past_lens" else slice(stop, stop + n)
            assert ids[place] == example.answer_ids


@pytest.mark.parametrize("writes", [0, 1, 4, 7, 9, 11])
def test_a_build_that_was_cut_off_goes_on(lm, whole, tmp_path, monkeypatch, writes):
    replace, count = os.replace, [0]

    def failing(*args):
        count[0] += 1
        if count[0] > writes:
            raise OSError(28, "No space left on device")
        replace(*args)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(StorageError):
        build(lm, recipe(tmp_path), tmp_path / "data", {"about": 33})
    monkeypatch.setattr(os, "replace", replace)
    again = build(lm, recipe(tmp_path), tmp_path / "data", {"about": 33})
    assert rows(again) == rows(whole) and again.fingerprint == whole.fingerprint


def test_a_source_can_be_prolonged(lm, whole, tmp_path):
    build(lm, recipe(tmp_path), tmp_path / "data", {"about": 5})
    longer = build(lm, recipe(tmp_path), tmp_path / "data", {"about": 33})
    found, wanted = longer.examples["about", "train"], whole.examples["about", "train"]
    assert list(found)[:33] == list(wanted)[:33]
    again = build(lm, recipe(tmp_path), tmp_path / "data", {"about": 5}).examples["about", "train"]
    assert 5 <= len(again) < 33 and list(again) == list(found)[: len(again)], "the first recipe sees what it had"
    assert again.column("unit").tolist() == [example.unit for example in again]


def test_another_data_set_is_refused(lm, tmp_path):
    build(lm, recipe(tmp_path), tmp_path / "data")
    with pytest.raises(InputError, match="another recipe"):
        build(lm, recipe(tmp_path, layers=[[0]]), tmp_path / "data")
    made = recipe(tmp_path)
    (tmp_path / "corpus.txt").write_text(f"{'other ' * 30}\n" * 9)
    with pytest.raises(InputError, match="another recipe"):
        build(lm, made, tmp_path / "data")


def test_a_missing_file_is_told(lm, tmp_path):
    made = recipe(tmp_path)
    (tmp_path / "labelled.csv").unlink()
    with pytest.raises(NotFoundError, match=r"labelled.csv"):
        build(lm, made, tmp_path / "data")
    assert not (tmp_path / "data").exists()
