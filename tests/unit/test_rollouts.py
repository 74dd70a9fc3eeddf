"""Rollouts: what an interrupted run leaves is continued to the same file, and disks and templates are told."""

from __future__ import annotations

import os

import pytest

from augury.data.prompts import make_prompts
from augury.data.rollouts import generate_rollouts, read_rollouts
from augury.errors import ModelError, StorageError
from augury.files import replacing, write_text
from augury.lm import Sampling
from tests.tiny import TEMPLATE, tiny_lm

SAMPLING = Sampling(max_new_tokens=4, temperature=1.0)


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def whole(lm, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "rollouts.jsonl"
    generate_rollouts(lm, make_prompts(7, "train", 0), path, SAMPLING, batch_size=3)
    return path.read_bytes()


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4, 5, 7])
def test_a_file_cut_anywhere_goes_on_to_the_same_rollouts(lm, whole, tmp_path, cut):
    path, lines = tmp_path / "rollouts.jsonl", whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:cut]) + (lines[cut][:20] if cut < len(lines) else b""))
    generate_rollouts(lm, make_prompts(7, "train", 0), path, SAMPLING, batch_size=3)
    assert path.read_bytes() == whole
    assert [rollout.id for rollout in read_rollouts(path)] == list(range(7))


def test_a_full_disk_is_told_in_three_parts(lm, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"(?s)rollouts.jsonl could not be written.*No space.*instead"):
        generate_rollouts(lm, make_prompts(2, "train", 0), tmp_path / "rollouts.jsonl", SAMPLING)


def test_a_template_that_rewrites_the_users_turn_is_named(tmp_path):
    lm = tiny_lm()
    lm.tokenizer.chat_template = TEMPLATE.replace("message['content']", "message['content'] | upper")
    with pytest.raises(ModelError, match=rf"(?s)user's turn.*{lm.identity.chat_template_hash}"):
        generate_rollouts(lm, make_prompts(1, "train", 0), tmp_path / "rollouts.jsonl", SAMPLING)


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "made" / "file.json"
    write_text(path, "old")
    with pytest.raises(StorageError, match=r"file.json could not be written"), replacing(path) as partial:
        partial.write_text("ne")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["file.json"]
