"""The recipes that ship are recipes, and prompts come from where they say."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from augury.data.contexts import RolloutSettings, prompts_of
from augury.errors import AuguryError, FormatError, NetworkError
from augury.train.ablate import cells_of, read_grid
from augury.train.recipe import read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = ["smollm2", "smollm2-more", "smollm2-smoke", "qwen3-8b-better", "qwen3-8b-karvonen", "gemma3-4b", "llama3-8b"]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_reads_and_tells_hardware_time_and_tokens(name):
    path = RECIPES / f"{name}.yaml"
    recipe = read_recipe(path)
    assert recipe.name == name.removesuffix("-more") and all(recipe.drawn.values())
    head = "\n".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    for word in ("tokens", "memory" if "smollm2" in name else "GPU"):
        assert word in head, f"its header does not tell {word}"
    assert any(word in head for word in ("hour", "minute"))


def test_no_recipe_is_forgotten():
    assert sorted(path.stem for path in RECIPES.glob("*.yaml")) == sorted(NAMES)


def test_the_grid_that_ships_has_runs_that_differ_in_one_thing(tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("one\n")
    cells = cells_of(read_grid(RECIPES / "ablations" / "grid.yaml"), [f"contexts.corpus.path={corpus}"])
    recipes = [cell.recipe.model_dump(mode="json") for cell in cells]
    assert len(cells) >= 8 and len({cell.folder for cell in cells}) == len(cells)
    base = recipes[0]
    for recipe in recipes[1:]:
        assert sum(recipe[name] != base[name] for name in base) == 1


ROWS = [{"prompt": "Hi", "chat": [{"role": "system", "content": "x"}, {"role": "user", "content": f"Tell me {i}"}]}
        for i in range(40)]  # fmt: skip


def hub(monkeypatch, rows):
    def load_dataset(name, split, streaming):
        if name == "no/such":
            raise OSError("404 Client Error")
        assert streaming and split == "train"
        return rows

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))


def test_prompts_of_a_data_set_on_the_hub_are_in_one_split_each_and_once(monkeypatch):
    hub(monkeypatch, ROWS + ROWS)
    settings = RolloutSettings(prompts="hub:some/chats", column="chat", heldout_share=0.3)
    found = {split: [prompt.text for prompt in prompts_of(settings, split)] for split in ("train", "heldout")}
    assert sorted(found["train"] + found["heldout"]) == sorted(f"Tell me {i}" for i in range(40))
    assert found["train"] and found["heldout"]
    plain = RolloutSettings(prompts="hub:some/chats")
    assert sum(len(list(prompts_of(plain, split))) for split in ("train", "heldout")) == 1


def test_what_the_hub_does_not_give_is_told(monkeypatch):
    hub(monkeypatch, ROWS)
    with pytest.raises(NetworkError, match="no/such"):
        list(prompts_of(RolloutSettings(prompts="hub:no/such"), "train"))
    with pytest.raises(FormatError, match="columns: prompt, chat"):
        list(prompts_of(RolloutSettings(prompts="hub:some/chats", column="text"), "train"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(AuguryError, match=r"augury\[train\]"):
        list(prompts_of(RolloutSettings(prompts="hub:some/chats"), "train"))
