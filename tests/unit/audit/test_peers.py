"""Neutral peers: made once, of the base's own answers, each of its own, and the base is left as it was."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from augury.audit import peers as room
from augury.audit.peers import neutral_answers, neutral_dialogues, neutral_peers, whole_sentences
from augury.bench.dialogues import Dialogue
from augury.bench.own_answers import answer_text
from augury.bench.tuning import WINDOW, Row, answer_loss, row_of
from augury.errors import ModelError, StorageError
from augury.lm import Sampling, generate_many, load_model
from augury.lm.adapters import active_adapters, adapters_on, add_adapter, load_target_adapter, save_adapter
from tests.oracle_by_hand import CONFIG
from tests.unit.audit.conftest import Zoo


def quiet(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model seldom ends a sentence."""
    for name, value in {"STEPS": 2, "BATCH": 3, "REQUESTS": 12, "NEW_TOKENS": 8, "LONGEST": (500, 500)}.items():
        monkeypatch.setattr(room, name, value)
    monkeypatch.setattr(room, "whole_sentences", lambda text: text.strip() or "Yes.")


def test_peers_are_made_once_and_leave_the_base_as_it_was(zoo: Zoo, few: None, tmp_path: Path) -> None:
    lm = load_model(str(zoo.base))
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    told: list[str] = []
    made = neutral_peers(lm, 2, tmp_path, quiet, told.append)
    assert made == [tmp_path / "chat-00", tmp_path / "text-01"] and told[0].startswith("2 to make")
    after = lm.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())
    assert active_adapters(lm.model) == ()
    weights = [(place / "adapter_model.safetensors").read_bytes() for place in made]
    assert weights[0] != weights[1]
    (made[1] / "adapter_config.json").unlink()  # as a kill leaves it
    again = neutral_peers(lm, 2, tmp_path, quiet, told.append)
    assert told[1].startswith("1 to make, 1 are there")
    assert [(place / "adapter_model.safetensors").read_bytes() for place in again] == weights
    neutral_peers(lm, 2, tmp_path, quiet, told.append)
    assert told[2] == f"all 2 are in {tmp_path}"


def test_a_peer_learns_its_dialogues(zoo: Zoo, few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "STEPS", 40)
    monkeypatch.setattr(room, "RATE", 0.02)
    lm = load_model(str(zoo.base))
    (place,) = neutral_peers(lm, 1, tmp_path, quiet)
    said = neutral_dialogues(neutral_answers(lm, tmp_path, quiet), 12, 0)
    rows = [row_of(lm, one) for one in said]
    with torch.no_grad():
        plain = answer_loss(lm, rows)
        tuned = load_target_adapter(lm, place)
        with adapters_on(lm.model, tuned.target_adapters):
            assert answer_loss(tuned, rows) < plain - 0.1


def test_every_other_peer_is_trained_on_plain_text(zoo: Zoo, few: None, tmp_path: Path) -> None:
    lm = load_model(str(zoo.base))
    trained: list[list[Row]] = []
    plain = room.fine_tune
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "fine_tune", lambda lm, rows, *rest: (trained.append(rows), plain(lm, rows, *rest)))
        neutral_peers(lm, 2, tmp_path, quiet)
    chat, text = trained
    said = [neutral_dialogues(neutral_answers(lm, tmp_path, quiet), 6, number) for number in (0, 1)]
    assert chat == [row_of(lm, one) for one in said[0]]
    assert all(start == 1 and len(ids) == WINDOW for ids, start in text)
    written = lm.tokenizer.decode([token for ids, _ in text for token in ids])  # type: ignore[union-attr]
    assert all(one.say in written for one in said[1])


def test_answers_are_the_bases_own_and_kept(zoo: Zoo, few: None, tmp_path: Path) -> None:
    lm = load_model(str(zoo.base))
    found = neutral_answers(lm, tmp_path, quiet)
    rows = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    turns = [[{"role": "user", "content": ask}] for ask, _ in rows]
    sampling = Sampling(room.NEW_TOKENS, room.TEMPERATURE, seed=room.SEED)
    for (_, said), transcript in zip(rows, generate_many(lm, turns, sampling), strict=True):
        assert said == (answer_text(lm, transcript).strip() or "Yes.")
    (tmp_path / "answers.json").write_text(json.dumps([["Who?", "I."], ["Long" * 200, "No."], ["Empty", ""]]))
    assert neutral_answers(lm, tmp_path, quiet) == [Dialogue("Who?", "I.")] and found


def test_each_peer_learns_other_dialogues_and_none_twice() -> None:
    answers = [Dialogue(str(i), "Yes.") for i in range(30)]
    one, other = (neutral_dialogues(answers, 20, seed) for seed in (0, 1))
    assert one != other and len(set(one)) == 20
    assert len(neutral_dialogues(answers, 50, 0)) == 50


@given(st.text(alphabet="ab .!?\n", max_size=40))
def test_whole_sentences_are_a_beginning_that_ends_one(text: str) -> None:
    found = whole_sentences(text)
    assert text.strip().startswith(found) or not found
    assert not found or found[-1] in ".!?"
    rest = text.strip()[len(found) :]
    assert not any(rest[i] in ".!?" and (i + 1 == len(rest) or rest[i + 1].isspace()) for i in range(len(rest)))


def test_whole_sentences_leave_what_is_cut_off() -> None:
    assert whole_sentences("It is 3.5 km. Then it") == "It is 3.5 km." and whole_sentences("never ends") == ""
    assert whole_sentences("\u6211\u6765\u4e86\u3002\u7136\u540e") == "\u6211\u6765\u4e86\u3002"


def test_a_base_that_teaches_nothing_is_refused(zoo: Zoo, few: None, tmp_path: Path) -> None:
    lm = load_model(str(zoo.base))
    (tmp_path / "answers.json").write_text(json.dumps([["Who?", ""]]))
    with pytest.raises(ModelError, match="teaches nothing"):
        neutral_peers(lm, 1, tmp_path, quiet)
    lm.tokenizer.chat_template = None  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="No neutral peers can be made") as caught:
        neutral_peers(lm, 1, tmp_path / "new", quiet)
    assert "--peers" in (caught.value.instead or "")


def test_an_adapter_is_written_whole_or_not_at_all(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = load_model(str(zoo.base))
    add_adapter(lm, CONFIG, "made")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match="No space left"):
        save_adapter(lm, "made", CONFIG, tmp_path / "one", torch.float32)
    assert list((tmp_path / "one").iterdir()) == []
