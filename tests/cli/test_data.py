"""`augury data` in process on a tiny model: costs first, a build that is cut off and goes on, what show tells."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from augury.cli.bars import Bars
from augury.data.store import Shards
from augury.lm.load import load_model
from tests.cli.conftest import Invoke, Tiny, one_object, refused


def settings(tiny: Tiny, folder: Path) -> dict[str, Any]:
    labelled = folder / "labelled.csv"
    labelled.write_text("text,label\n" + "".join(f"words {i} of it,{'ab'[i % 2]}\n" for i in range(40)))
    return {
        "name": "tiny", "model": str(tiny.model), "layers": [[2]],
        "contexts": {"answers": {"type": "rollouts", "train": 24, "heldout": 12, "max_new_tokens": 16,
                                 "temperature": 1.0, "batch_size": 8}},
        "sources": {
            "lens": {"type": "lens", "contexts": "answers", "k": 4, "window": 2, "train": 30, "heldout": 12},
            "about": {"type": "questions", "contexts": "answers", "train": 20, "heldout": 12},
            "labels": {"type": "classification", "path": str(labelled), "questions": ["Is it {label}?", "{label}?"],
                       "open": ["Which?", "What?"], "train": 20, "heldout": 12, "heldout_share": 0.4},
        },
    }  # fmt: skip


def write(found: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(found))
    return path


@pytest.fixture
def recipe(tiny: Tiny, tmp_path: Path) -> Path:
    return write(settings(tiny, tmp_path), tmp_path / "tiny.yaml")


@pytest.fixture(scope="module")
def built(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from typer.testing import CliRunner

    from augury.cli import app

    folder = tmp_path_factory.mktemp("built")
    path = write(settings(tiny, folder), folder / "tiny.yaml")
    result = CliRunner().invoke(app, ["data", "build", str(path), "-o", str(folder / "data")])
    assert result.exit_code == 0, result.output
    return folder / "data"


def arrows(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.arrow")}


def test_costs_come_first_and_counts_last(invoke: Invoke, recipe: Path, tmp_path: Path) -> None:
    result = invoke("data", "build", recipe, "-o", tmp_path / "data")
    assert result.exit_code == 0, result.output
    for word in ("contexts  about 76", "at most 576 sampled", "none to endpoints", "examples  about 106", "MB"):
        assert word in result.stderr, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["lens", "examples", "30", "12"] in lines and ["answers", "contexts", "24", "12"] in lines
    assert lines[-1] == ["data:", str(tmp_path / "data")]
    kept = yaml.safe_load((tmp_path / "data" / "recipe.yaml").read_text())
    assert kept["name"] == "tiny" and kept["sources"]["lens"]["window"] == 2
    on_disk = sum(path.stat().st_size for path in (tmp_path / "data").rglob("*.arrow"))
    told = one_object(invoke("data", "build", recipe, "--estimate", "--json"))
    assert on_disk / 5 < told["disk_bytes"] < on_disk * 5 and told["seconds"] > 0 and told["calls"] == 0


def test_an_estimate_builds_nothing(
    invoke: Invoke, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("augury.lm.load_model", lambda *_, **__: pytest.fail("loaded"))
    arguments = ["--set", "contexts.answers.train=100", "--estimate", "--json"]
    found = one_object(invoke("data", "build", recipe, "-o", tmp_path / "data", *arguments))
    assert found["sampled_tokens"] == 112 * 16 and not (tmp_path / "data").exists()


def test_a_build_that_was_interrupted_goes_on(
    invoke: Invoke, recipe: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, append, count = tmp_path / "data", Shards.append, [0]

    def interrupted(self: Any, rows: Any, units: int, *dropped: Any) -> None:
        count[0] += 1
        if count[0] > 3:
            raise KeyboardInterrupt
        append(self, rows, units, *dropped)

    monkeypatch.setattr(Shards, "append", interrupted)
    stopped = invoke("data", "build", recipe, "-o", folder)
    assert stopped.exit_code == 130 and "the same command goes on" in stopped.stderr
    assert len(arrows(folder)) == 3 and (folder / "recipe.yaml").is_file()
    begun = invoke("data", "show", folder)
    assert begun.exit_code == 0 and "not finished" in begun.stdout and str(folder) in begun.stdout
    monkeypatch.setattr(Shards, "append", append)
    found = one_object(invoke("data", "build", recipe, "-o", folder, "--json"))
    assert found["fingerprint"] == json.loads((built / "data.json").read_text())["fingerprint"]
    assert arrows(folder) == arrows(built)


def test_bars_are_told_what_is_made(
    invoke: Invoke, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple] = []
    monkeypatch.setattr(Bars, "phase", lambda self, *told: seen.append(told))
    assert invoke("data", "build", recipe, "-o", tmp_path / "data").exit_code == 0
    assert ("answers (train)", 8, 24) in seen and ("examples: lens (train)", 30, 30) in seen


def test_a_training_recipe_builds_what_its_stages_draw(
    invoke: Invoke, tiny: Tiny, recipe: Path, tmp_path: Path
) -> None:
    found = settings(tiny, tmp_path)
    found["sources"].pop("labels"), found["sources"]["lens"].pop("train"), found["sources"].pop("about")
    found |= {"optimizer": {"examples": 40}, "stages": [{"until": 1, "weights": {"lens": 1}}]}
    path = write(found, tmp_path / "training.yaml")
    counts = one_object(invoke("data", "build", path, "-o", tmp_path / "data", "--json"))["sources"]
    assert [(source["name"], source["train"], source["heldout"]) for source in counts] == [("lens", 40, 12)]


def test_refusals(invoke: Invoke, recipe: Path, built: Path, tmp_path: Path) -> None:
    refused(invoke("data", "build", recipe), 2, "-o DIR")
    refused(invoke("data", "build", tmp_path / "no.yaml", "-o", tmp_path / "d"), 1, "no recipe")
    refused(invoke("data", "build", recipe, "-o", built, "--set", "layers=[[1]]"), 2, "another recipe")
    assert yaml.safe_load((built / "recipe.yaml").read_text())["layers"] == [[2]]
    refused(invoke("data", "show", tmp_path), 1, "no data set")
    refused(invoke("data", "show", built, "--source", "lnes"), 2, "did you mean lens")
    assert invoke("data", "show", built, "--audit", "0").exit_code == 2


# --- show ----------------------------------------------------------------------------------------------------------


def test_show_tells_counts_lengths_and_authors(invoke: Invoke, built: Path) -> None:
    found = one_object(invoke("data", "show", built, "--json"))
    sources = {source["name"]: source for source in found["sources"]}
    assert (sources["lens"]["train"], sources["lens"]["heldout"]) == (30, 12)
    assert sources["lens"]["authors"] == {"target": 1.0} and sources["lens"]["layers"] == {"2": 1.0}
    assert sources["labels"]["authors"] == {"labelled.csv": 1.0}
    assert sources["lens"]["positions"]["least"] >= 1 and sources["lens"]["positions"]["most"] == 2
    assert {(s["name"], s["split"]): s["contexts"] for s in found["sets"]}["answers", "train"] == 24
    assert all(s["tokens"] > 3 * s["contexts"] for s in found["sets"])
    assert len(found["cards"]) == 6 and found["fingerprint"] and found["model"]["weights_fingerprint"]


def test_cards_show_who_wrote_what_and_what_is_read(invoke: Invoke, built: Path, tiny: Tiny) -> None:
    found = one_object(invoke("data", "show", built, "--cards", "6", "--source", "lens", "--json"))
    decode = tiny.lm().tokenizer.decode  # type: ignore[union-attr]
    assert {card["example"]["split"] for card in found["cards"]} == {"train", "heldout"}
    for card in found["cards"]:
        pieces, example = card["pieces"], card["example"]
        read = [piece for piece in pieces if piece["read"]]
        assert sum(piece["tokens"] for piece in read) == len(example["positions"])
        assert {piece["author"] for piece in pieces} == {"bank", "target", "chat template"}
        after = "".join(piece["text"] for piece in pieces[pieces.index(read[-1]) + 1 :])
        if example["task"] == "future_lens":
            assert after.startswith(decode(example["answer_ids"])[:-1])
    plain = invoke("data", "show", built, "--source", "lens")
    for part in ("user, by bank: ", "assistant, by target: ", "[[", "]]", "question: Can you predict", "(by target)"):
        assert part in plain.stdout, plain.stdout
    assert "about (" not in plain.stdout and "─" not in plain.stdout


def test_no_model_is_loaded_to_show(invoke: Invoke, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("augury.lm.load_model", "augury.lm.load.load_model", "augury.lm.pretrained.read_weights"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("a model was loaded"))
    assert "[[" in invoke("data", "show", built).stdout


def test_without_the_tokenizer_counts_are_shown_and_no_text(
    invoke: Invoke, built: Path, tiny: Tiny, tmp_path: Path
) -> None:
    shutil.copytree(built, tmp_path / "data")
    kept = yaml.safe_load((built / "recipe.yaml").read_text())
    (tmp_path / "data" / "recipe.yaml").write_text(yaml.safe_dump({**kept, "model": str(tmp_path / "gone")}))
    result = invoke("data", "show", tmp_path / "data")
    assert result.exit_code == 0 and "not on this machine" in result.stderr
    assert " tokens>" in result.stdout and "question: " in result.stdout
    told = json.loads((built / "data.json").read_text())
    told["model"]["tokenizer_hash"] = "another"
    (tmp_path / "data" / "data.json").write_text(json.dumps(told))
    (tmp_path / "data" / "recipe.yaml").write_text(yaml.safe_dump(kept))
    assert "another tokenizer" in invoke("data", "show", tmp_path / "data").stderr


def test_a_terminal_gets_tables_and_panels(invoke: Invoke, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    verb = sys.modules["augury.cli.data"]  # the package's `data` is the Typer app
    monkeypatch.setattr(verb, "stdout", lambda: Console(force_terminal=True, width=140))
    shown = invoke("data", "show", built).stdout
    assert "╭" in shown and "\x1b[" in shown and "[[" not in shown


def test_show_audits_on_request(invoke: Invoke, built: Path) -> None:
    result = invoke("data", "show", built, "--audit", "10", "--cards", "0")
    assert result.exit_code == 0, result.output
    assert "audit: 3" in result.stderr and "under three readings" in result.stderr
    assert "text-window" in result.stdout and "closed" in result.stdout and "alone" in result.stdout
    found = one_object(invoke("data", "show", built, "--audit", "--source", "lens", "--cards", "0", "--json"))
    (row,) = found["audit"]["rows"]
    assert (row["source"], row["measure"], row["examples"], row["split"]) == ("lens", "nats", 12, "heldout")
    gain = row["scores"]["text-all"]["value"] - row["scores"]["question"]["value"]
    assert row["gained"]["text-all"]["value"] == pytest.approx(gain, abs=1e-5)


def test_the_data_of_a_run_can_be_shown(invoke: Invoke, built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "run" / "data")
    (tmp_path / "run" / "data" / "recipe.yaml").rename(tmp_path / "run" / "config.yaml")
    assert one_object(invoke("data", "show", tmp_path / "run", "--json"))["data"] == str(tmp_path / "run" / "data")


def test_the_model_is_what_it_was(tiny: Tiny) -> None:
    assert load_model(str(tiny.model)).identity == tiny.lm().identity
