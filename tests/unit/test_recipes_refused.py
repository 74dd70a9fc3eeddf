"""Bad recipes fail before any model is loaded, in a build as in a training run, and it is said what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from augury.cli import app
from augury.errors import AuguryError
from augury.lm.chat import needs_tokenizer
from augury.train.prepare import prepare
from augury.train.recipe import read_data_recipe, read_recipe
from tests.tiny import tiny_lm

MODEL = "model"  # a folder with a configuration and a tokenizer; its weights are an empty file of safetensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("recipes")
    lm = tiny_lm()
    lm.model.save_pretrained(found / MODEL)
    needs_tokenizer(lm).save_pretrained(found / MODEL)
    (found / "rows.csv").write_text("text,label\nsome words,a\nother words,b\n")
    (found / "empty.csv").write_text("text,label\n")
    (found / "none.txt").write_text("\n\n")
    (found / "empty.jsonl").write_text("")
    (found / "noq.jsonl").write_text('{"text": "words"}\n')
    (found / "table.parquet").write_text("")
    (found / "latent").mkdir()
    return found


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    """Every way to a model's weights fails the test."""

    def loaded(*_: Any, **__: Any) -> None:
        pytest.fail("a model was loaded")

    for name in ("augury.lm.load_model", "augury.lm.load.load_model", "augury.data.build.load_model",
                 "augury.train.prepare.load_model", "augury.lm.pretrained.read_weights"):  # fmt: skip
        monkeypatch.setattr(name, loaded)


def recipe(folder: Path, trains: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": "bad", "model": str(folder / MODEL), "layers": [[2]],
        "contexts": {"answers": {"type": "rollouts", "train": 4, "heldout": 2}},
        "sources": {
            "lens": {"type": "lens", "contexts": "answers"},
            "labels": own("classification", str(folder / "rows.csv")),
        },
    }  # fmt: skip
    if trains:
        found |= {"optimizer": {"examples": 8}, "stages": [{"until": 1, "weights": {"lens": 1, "labels": 1}}]}
    return found


def own(kind: str, name: str) -> dict[str, Any]:
    return {"type": kind, "path": name, **({"questions": ["{label}?", "{label}!"]} if kind == "classification" else {})}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": ({"layerz": [[2]]}, "did you mean layers"),
    "unknown field of a source": ({"sources.lens.windw": 3}, "did you mean window"),
    "unknown field of contexts": ({"contexts.answers.max_tokens": 3}, "did you mean max_new_tokens"),
    "misspelt type": ({"sources.lens.type": "lense"}, "did you mean lens"),
    "no type": ({"sources.lens.type": None}, "type"),
    "misspelt contexts": ({"sources.lens.contexts": "anwsers"}, "did you mean answers"),
    "no sources": ({"sources": {}}, "sources"),
    "a share above one": ({"sources.labels.heldout_share": 2}, "heldout_share"),
    "missing file": ({"sources.labels.path": "gone.csv"}, "There is no"),
    "missing prompts": ({"contexts.answers.prompts": "gone.txt"}, "There is no"),
    "an unknown kind of file": ({"sources.mine": own("custom", "table.parquet")}, "no table"),
    "empty table": ({"sources.labels.path": "empty.csv"}, "is empty"),
    "empty text": ({"contexts.texts": own("text", "none.txt")}, "is empty"),
    "empty list": ({"sources.mine": own("custom", "empty.jsonl")}, "is empty"),
    "another column": ({"sources.labels.label": "class"}, "no column class"),
    "no question": ({"sources.mine": own("custom", "noq.jsonl")}, "no column question and no answer"),
    "an empty folder": ({"sources.personas": own("system", "latent")}, "qa.json"),
    "layer out of range": ({"layers": [[4]]}, "layers run from 0 to 3"),
    "percent out of range": ({"layers": [["100%"]]}, "no layer"),
    "a layer twice": ({"layers": [[2, "50%"]]}, "named twice"),
}
BAD_TRAINING: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt optimizer": ({"optimiser": {"examples": 8}}, "did you mean optimizer"),
    "misspelt rate": ({"optimizer.learning_rat": 1}, "did you mean learning_rate"),
    "unknown source weighed": ({"stages": [{"until": 1, "weights": {"lnes": 1}}]}, "lnes"),
    "stages that end early": ({"stages": [{"until": 0.5, "weights": {"lens": 1}}]}, "end at 1"),
    "block out of range": ({"injection": {"site": "block", "block": 4}}, "blocks run from 0 to 3"),
    "a slot of several tokens": ({"prompt": {"slot_token": " placeholder"}}, "tokens here"),
}


def changed(found: dict[str, Any], changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = found
        for parent in parents:
            place = place[parent]
        for holder, name in ((value, "path"),) if isinstance(value, dict) and "path" in value else ():
            holder = {**holder, name: str(folder / holder[name])}
            value = holder
        place[last] = str(folder / value) if last in ("path", "prompts") else value
    return found


def write(found: dict[str, Any], folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(found))
    return path


@pytest.mark.parametrize("trains", [False, True], ids=["data", "training"])
@pytest.mark.parametrize("name", BAD)
def test_refused_by_a_build(folder, tmp_path, name, trains):
    changes, message = BAD[name]
    check_build(changed(recipe(folder, trains), changes, folder), message, tmp_path)


@pytest.mark.parametrize("name", BAD_TRAINING)
def test_a_build_refuses_what_training_would(folder, tmp_path, name):
    changes, message = BAD_TRAINING[name]
    check_build(changed(recipe(folder, True), changes, folder), message, tmp_path)


def check_build(found: dict[str, Any], message: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    arguments = ["data", "build", str(write(found, tmp_path)), "-o", str(tmp_path / "data"), "--json"]
    result = CliRunner().invoke(app, arguments)
    error = json.loads(result.stdout)["error"]
    assert result.exit_code in (1, 2) and message in f"{error['what']} {error['why']}", error
    assert error["instead"] and error["code"] != "unexpected" and not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", BAD | BAD_TRAINING)
def test_refused_by_a_run(folder, tmp_path, name):
    changes, message = (BAD | BAD_TRAINING)[name]
    path = write(changed(recipe(folder, True), changes, folder), tmp_path)
    with pytest.raises(AuguryError, match=message.replace("(", r"\(")):
        prepare(read_recipe(path), tmp_path / "run", lambda *_: None)


def test_a_good_recipe_comes_as_far_as_its_model(folder, tmp_path):
    for trains in (False, True):
        path = write(recipe(folder, trains), tmp_path)
        assert read_data_recipe(path).model == str(folder / MODEL)
    with pytest.raises(pytest.fail.Exception, match="a model was loaded"):
        prepare(read_recipe(path), tmp_path / "run", lambda *_: None)


def test_a_folder_with_tokens_of_another_tokenizer_is_refused(folder, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data.json").write_text('{"model": {"name": "other", "tokenizer_hash": "abc"}}')
    with pytest.raises(AuguryError, match="another tokenizer"):
        prepare(read_recipe(write(recipe(folder, True), tmp_path)), tmp_path, lambda *_: None)
