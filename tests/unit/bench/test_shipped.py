"""The items that ship for the bundled model: whole, about that very model, and labelled as it answers."""

from __future__ import annotations

from importlib import resources
from itertools import islice
from pathlib import Path

import pytest
import torch

from augury.bench.build import shipped_items, too_few
from augury.bench.item import ItemSet
from augury.bench.scorers import first_number
from augury.bench.task import REGISTRY

MOST = 5 * 2**20  # bytes
NAMES = ("arithmetic", "backtracking", "lens", "multiple_choice", "reasoning", "sycophancy", "system_prompts")
SAMPLE = 12


@pytest.fixture(scope="module")
def sets(smollm2) -> dict[str, ItemSet]:
    found = {name: shipped_items(smollm2, name, 0) for name in NAMES}
    assert None not in found.values(), "each is about this model, with seed 0"
    return {name: items for name, items in found.items() if items is not None}


def test_they_are_small_and_known():
    folder = Path(str(resources.files("augury.bench").joinpath("shipped", "smollm2")))
    files = sorted(folder.iterdir())
    assert [path.stem for path in files] == list(NAMES) and sum(path.stat().st_size for path in files) < MOST
    assert set(NAMES) <= set(REGISTRY.items)


def test_another_model_or_seed_gets_none_of_them(lm, smollm2):
    assert shipped_items(lm, "arithmetic", 0) is None and shipped_items(smollm2, "arithmetic", 1) is None


def test_each_has_enough_for_the_core_profile_or_says_why_not(sets):
    for task in REGISTRY.tasks.values():
        if task.items not in sets:
            continue
        found = sets[task.items]
        why = found.manifest.unmeasurable or too_few(task, found, REGISTRY.items[task.items])
        counted = sum(task.where(item) for item in found.items)
        assert why is not None or counted >= (100 if task.items != "sycophancy" else 60), task.name
    assert {name for name, found in sets.items() if not found.items} == {"multiple_choice", "backtracking"}


def test_what_is_read_lies_in_the_context(sets):
    for found in sets.values():
        assert len({item.id for item in found.items}) == len(found.items)
        for item in found.items:
            assert 0 <= item.positions[0] <= item.positions[-1] < len(item.token_ids)


def test_the_lens_asks_for_the_tokens_beside_what_is_read(sets):
    for item in sets["lens"].items:
        tokens = tuple(map(int, item.facts["tokens"].split()))
        first, behind = item.positions[0], item.positions[-1] + 1
        beside = (
            item.token_ids[behind : behind + 8] if item.facts["side"] == "future" else item.token_ids[first - 8 : first]
        )
        assert tokens == beside


def test_numbers_are_the_models_own(sets, smollm2):
    """Against a plain greedy loop."""
    for item in islice(sets["arithmetic"].items, 0, None, len(sets["arithmetic"].items) // SAMPLE):
        ids = list(item.token_ids)
        for _ in range(12):
            with torch.no_grad():
                ids.append(int(smollm2.model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in smollm2.end_ids:
                break
        said = first_number(smollm2.tokenizer.decode(ids[len(item.token_ids) :]))
        assert said == float(item.facts["model_answer"]) != float(item.facts["true_answer"]), item.id


def test_letters_are_the_models_own(sets, smollm2):
    """The letter that stands in the answer is the likeliest of the four, in both spellings together."""
    spelled = [[smollm2.tokenizer.convert_tokens_to_ids(form) for form in (letter, f"Ġ{letter}")] for letter in "ABCD"]
    for item in islice(sets["sycophancy"].items, 0, None, len(sets["sycophancy"].items) // SAMPLE):
        assert item.facts["mode"] == "plain"
        with torch.no_grad():
            found = smollm2.model(torch.tensor([item.token_ids[:-1]])).logits[0, -1].softmax(-1)
        likeliest = max(range(4), key=lambda place: float(found[spelled[place]].sum()))
        assert "ABCD"[likeliest] == item.facts["letter"] == smollm2.tokenizer.decode([item.token_ids[-1]])
