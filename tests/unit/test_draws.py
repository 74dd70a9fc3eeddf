"""What sources draw: a function of the seed and the example's number alone, as often as their settings say."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from augury.data.example import Context
from augury.data.index import Indexed
from augury.data.sources.base import Made, unit
from augury.data.sources.lens import LensSettings, LensSource
from augury.data.sources.questions import QuestionSettings, QuestionSource
from tests.tiny import tiny_lm
from tests.training import two_turns
from tests.unit.test_samplers import DRAWS, as_likely

LAYERS = ((1,), (2, 3))
SOURCES = {
    "lens": (LensSettings(contexts="answers", k=10, window=4, directions={"past": 1, "future": 3}), LensSource),
    "asked": (
        QuestionSettings(contexts="answers", pairs=0.6, window=5, single=0.2,
                         yes_no={"topic": 2, "speaker": 1}, open={"topic": 1, "category": 3}),
        QuestionSource,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def decode():
    return tiny_lm().tokenizer.decode


@pytest.fixture(scope="module")
def contexts() -> list[Context]:
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 300, (80,), generator=generator).tolist() for _ in range(30)]
    topics = ("coffee", "chess", "volcanoes")
    labels = [{"topic": topics[i % 3], "category": "food"} for i in range(30)]
    return [two_turns(i, "train", ids[i], (2, 20), (24, 80), labels[i]) for i in range(30)]


def made(contexts, decode, seed=0, name="source"):
    return Made(name, "train", Indexed(contexts), LAYERS, seed, decode)


@pytest.mark.parametrize("name", SOURCES)
def test_an_example_follows_from_seed_and_number(contexts, decode, name):
    settings, kind = SOURCES[name]
    about = made(contexts, decode)
    source = kind(settings, about)
    rising = {number: unit(source, settings, about, number) for number in range(60)}
    numbers = list(range(60))
    random.Random(1).shuffle(numbers)
    again = made(contexts, decode)
    fresh = kind(settings, again)
    assert {number: unit(fresh, settings, again, number) for number in numbers} == rising
    other = made(contexts, decode, seed=1)
    assert [unit(kind(settings, other), settings, other, number) for number in range(60)] != list(rising.values())


@pytest.fixture(scope="module")
def drawn(contexts, decode):
    """10,000 units of each source."""
    found = {}
    for name, (settings, kind) in SOURCES.items():
        about = made(contexts, decode, name=name)
        source = kind(settings, about)
        found[name] = [unit(source, settings, about, number) for number in range(DRAWS)]
    return found


def test_the_lens_draws_directions_lengths_and_contexts_as_told(drawn):
    examples = [example for part in drawn["lens"] for example in part]
    as_likely(Counter(e.task for e in examples), {"past_lens": 1, "future_lens": 3})
    as_likely(Counter(len(e.answer_ids) for e in examples), dict.fromkeys(range(1, 11), 1))
    as_likely(Counter(len(e.positions) for e in examples), dict.fromkeys(range(1, 5), 1))
    as_likely(Counter(e.context for e in examples), dict.fromkeys(range(30), 1))
    as_likely(Counter(e.layers for e in examples), dict.fromkeys(LAYERS, 1))
    long = [e for e in examples if e.task == "past_lens" and len(e.answer_ids) == 10 and len(e.positions) == 4]
    as_likely(Counter((e.positions[0] - 34) // 6 for e in long if e.positions[0] < 76), dict.fromkeys(range(7), 1))


def test_questions_draw_forms_kinds_and_windows_as_told(drawn):
    units = drawn["asked"]
    pairs = [part for part in units if len(part) == 2]
    share = 2 * len(pairs) / sum(map(len, units))
    assert share == pytest.approx(0.6, abs=0.02)  # of the examples
    as_likely(Counter(part[0].kind for part in pairs), {"topic": 2, "speaker": 1})
    as_likely(Counter(part[0].kind for part in units if len(part) == 1), {"topic": 1, "category": 3})
    as_likely(Counter(part[0].layers for part in units), dict.fromkeys(LAYERS, 1))
    windows = Counter(len(part[0].positions) for part in units if part[0].kind == "topic")
    as_likely(windows, {1: 0.2, **dict.fromkeys(range(2, 6), 0.2)})
    topics = [part[0] for part in units if part[0].kind == "topic"]
    assert len({example.wording for example in topics}) > 20
    assert {answer for part in pairs for answer in [tuple(e.answer for e in part)]} == {("Yes", "No")}
