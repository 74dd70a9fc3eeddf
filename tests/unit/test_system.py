"""Hidden instructions: nothing of the instruction is read, labels are in one split, windows are full or short."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from augury.data.build import build
from augury.data.example import LeftOut
from augury.data.index import Indexed
from augury.data.recipe import DataRecipe
from augury.data.sources.base import Made, unit
from augury.data.sources.system import SystemSettings, SystemSource, readable, system_contexts
from augury.errors import FormatError, NotFoundError
from tests.conftest import require
from tests.tiny import tiny_lm

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "latentqa"


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("latent")
    labels = [f"persona-{i}" for i in range(40)]
    secret = "secret words that instruct"
    write(
        path, "qa", {label: [[f"Who is {label}?", f"It is {label}."], [f"And why {label}?", "So."]] for label in labels}
    )
    write(path, "control", [{"control_user": f"be {label} now", "label": label} for label in labels])
    write(path, "stimulus", [
        {"control_user": secret, "control_model": secret, "stimulus_user": f"tell me {i}", "label": label}
        for i, label in enumerate(labels)
    ])  # fmt: skip
    write(path, "system", [
        {"system": secret, "stimulus_user": f"what then {i}", "stimulus_model": "well", "label": label}
        for i, label in enumerate(labels)
    ])  # fmt: skip
    return path


def write(folder: Path, name: str, value: object) -> None:
    (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")


def source(lm, folder, split="train", **changes):
    settings = SystemSettings(path=folder, **{"heldout_share": 0.3, **changes})
    contexts = list(system_contexts(lm, settings, split))
    made = Made("personas", split, Indexed(contexts), ((1,),), 0, lm.tokenizer.decode)
    return settings, contexts, SystemSource(settings, made), made


def test_nothing_of_the_instruction_is_read(lm, folder):
    settings, contexts, found, made = source(lm, folder)
    for i in range(400):
        (example,) = unit(found, settings, made, i)
        context = contexts[example.context]
        read = lm.tokenizer.decode([context.token_ids[p] for p in example.positions])
        assert "secret" not in read and "instruct" not in read
    read = {c.labels["list"]: lm.tokenizer.decode([c.token_ids[p] for p in readable(c)]) for c in contexts}
    assert read["control"].startswith("be persona") and "tell me" in read["stimulus"] and "well" in read["system"]
    assert all("secret" in lm.tokenizer.decode(c.token_ids) for c in contexts if c.labels["list"] != "control")


def test_a_conversation_that_is_too_long_is_left_out_and_told(lm, folder, tmp_path, caplog):
    for name in ("qa", "control"):
        (tmp_path / f"{name}.json").write_bytes((folder / f"{name}.json").read_bytes())
    entries = json.loads((folder / "control.json").read_text())
    whole = list(system_contexts(lm, SystemSettings(path=tmp_path), "train"))
    entries.insert(1, {"control_user": "be " * (lm.max_positions or 0), "label": entries[2]["label"]})
    write(tmp_path, "control", entries)
    recipe = DataRecipe(name="r", model="tiny", layers=[[1]], sources={"s": SystemSettings(path=tmp_path, train=8)})
    built = build(lm, recipe, tmp_path / "set")
    assert [c.token_ids for c in built.contexts["s", "train"]] == [c.token_ids for c in whole]
    assert [c.number for c in built.contexts["s", "train"]] == list(range(len(whole)))
    lost = {"the conversation is longer than the model can read": 1}
    assert built.dropped["s", "train"] == lost == json.loads((tmp_path / "set" / "data.json").read_text())["dropped"]["s (train)"]  # fmt: skip  # noqa: E501
    assert "left out 1 since the conversation is longer" in caplog.text
    again = build(lm, recipe, tmp_path / "set")
    assert again.dropped == built.dropped and len(again.contexts["s", "train"]) == len(whole)


def test_labels_are_in_one_split(lm, folder):
    of = {split: {c.labels["label"] for c in source(lm, folder, split)[1]} for split in ("train", "heldout")}
    assert not of["train"] & of["heldout"] and len(of["train"] | of["heldout"]) == 40
    assert 3 < len(of["heldout"]) < 25
    assert [c.number for c in source(lm, folder)[1]] == list(range(3 * len(of["train"])))


def test_what_a_held_out_label_shares_is_not_trained_on(lm, folder, tmp_path):
    for name in ("qa", "control", "stimulus", "system"):
        (tmp_path / f"{name}.json").write_bytes((folder / f"{name}.json").read_bytes())
    of = {split: source(lm, folder, split)[1] for split in ("train", "heldout")}
    held, trained = of["heldout"][0].labels["label"], of["train"][0].labels["label"]
    qa = json.loads((tmp_path / "qa.json").read_text())
    qa[trained][1] = ["and  WHY " + held + "?", "So."]  # the same question in other letters
    write(tmp_path, "qa", qa)
    entries = json.loads((tmp_path / "stimulus.json").read_text())
    for entry in entries:
        if entry["label"] in (held, trained):
            entry["stimulus_user"] = "Tell me both"
    write(tmp_path, "stimulus", entries)
    found = source(lm, tmp_path)[1]
    lost = [row.reason for row in found if isinstance(row, LeftOut)]
    assert lost == ["its request stands in a held-out conversation"]
    mine = [row for row in found if not isinstance(row, LeftOut) and row.labels["label"] == trained]
    assert len(mine) == 2 and all(json.loads(row.labels["qa"]) == [qa[trained][0]] for row in mine)
    assert len(source(lm, tmp_path, "heldout")[1]) == len(of["heldout"])
    qa[trained] = []
    write(tmp_path, "qa", qa)
    told = Counter(row.reason for row in source(lm, tmp_path)[1] if isinstance(row, LeftOut))
    assert told == {"there is no question about its label that is not held out": 3}


def test_half_read_everything_and_half_a_short_window(lm, folder):
    settings, contexts, found, made = source(lm, folder, window=12)
    examples = [e for i in range(2000) for e in unit(found, settings, made, i)]
    full = [e.positions == tuple(readable(contexts[e.context])[-12:]) for e in examples]
    assert sum(full) / 2000 == pytest.approx(0.5, abs=0.05)
    lengths = Counter(len(e.positions) for e, whole in zip(examples, full, strict=True) if not whole)
    assert set(lengths) == {1, 2, 3} and min(lengths.values()) > 250
    assert {e.question.split()[0] for e in examples} == {"Who", "And"}


@pytest.mark.bundled
def test_the_published_release(smollm2):
    require(REAL.is_dir(), "../shared/data is not there")
    contexts = source(smollm2, REAL, heldout_share=0.0)[1]
    assert Counter(c.labels["list"] for c in contexts) == {"control": 343, "stimulus": 396, "system": 396}


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("qa", None, NotFoundError, "qa.json"),
        ("control", None, NotFoundError, "no conversations"),
        ("control", {"a": 1}, FormatError, "holds a dict"),
        ("control", [{"label": "persona-0"}], FormatError, "entry 0 has no control_user"),
        ("control", [{"control_user": "x"}], FormatError, "entry 0 has no label"),
        ("qa", {"persona-0": ["who", "me"]}, FormatError, "no .question, answer"),
    ],
)
def test_other_formats_are_refused(lm, tmp_path, name, value, error, message):
    write(tmp_path, "qa", {"persona-0": [["who", "me"]]})
    write(tmp_path, "control", [{"control_user": "x", "label": "persona-0"}])
    if value is None:
        (tmp_path / f"{name}.json").unlink()
    else:
        write(tmp_path, name, value)
    with pytest.raises(error, match=message):
        source(lm, tmp_path, heldout_share=0.0)
