"""Rollouts: what an interrupted run leaves is continued to the same contexts, and disks and templates are told."""

from __future__ import annotations

import os

import pytest

from augury.data.example import Context
from augury.data.prompts import make_prompts
from augury.data.rollouts import sample_rollouts
from augury.data.store import Shards
from augury.errors import ModelError, StorageError
from augury.files import replacing, write_text
from augury.lm import Sampling
from tests.tiny import TEMPLATE, tiny_lm

SAMPLING = Sampling(max_new_tokens=4, temperature=1.0)


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def sample(lm, folder, count=7):
    shards = Shards(folder, "answers", "train", Context, "a recipe")
    sample_rollouts(lm, make_prompts(count, "train", 0), shards, SAMPLING, batch_size=3)
    return list(Shards(folder, "answers", "train", Context, "a recipe").table())


@pytest.fixture(scope="module")
def whole(lm, tmp_path_factory):
    return sample(lm, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_an_interrupted_run_goes_on_to_the_same_rollouts(lm, whole, tmp_path, kept):
    sample(lm, tmp_path)
    for path in sorted(tmp_path.glob("*.arrow"))[kept:]:
        path.unlink()
    (tmp_path / ".answers-train-000001.arrow.partial-1-1").write_bytes(b"half")
    assert sample(lm, tmp_path) == whole
    assert [context.number for context in whole] == list(range(7))


def test_who_wrote_what(lm, whole):
    for prompt, context in zip(make_prompts(7, "train", 0), whole, strict=True):
        assert [(part.role, part.author) for part in context.parts] == [("user", "bank"), ("assistant", "target")]
        assert lm.tokenizer.decode(context.token_ids[slice(*context.user)]).strip() == prompt.text
        assert 0 < context.assistant[1] - context.assistant[0] <= 4
        assert context.labels == prompt.labels


def test_a_full_disk_is_told_in_three_parts(lm, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StorageError, match=r"(?s)arrow could not be written.*No space.*instead"):
        sample(lm, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_template_that_rewrites_the_users_turn_is_named(tmp_path):
    lm = tiny_lm()
    lm.tokenizer.chat_template = TEMPLATE.replace("message['content']", "message['content'] | upper")
    with pytest.raises(ModelError, match=rf"(?s)user's turn.*{lm.identity.chat_template_hash}"):
        sample(lm, tmp_path, 1)


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "made" / "file.json"
    write_text(path, "old")
    with pytest.raises(StorageError, match=r"file.json could not be written"), replacing(path) as partial:
        partial.write_text("ne")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]
