"""The prompt bank: what its labels promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from augury.data import bank


def test_a_name_means_one_topic() -> None:
    known = Counter(name for topic in bank.topics() for name in {topic.name, *topic.aliases})
    assert [name for name, count in known.items() if count > 1] == []


def test_no_topic_is_named_in_another() -> None:
    """A question about the one would have no honest No where the other is the answer."""
    of_name = {name.removeprefix("the "): topic for topic in bank.topics() for name in (topic.name, *topic.aliases)}
    found = {
        (topic.name, of_name[part].name) for topic in bank.topics() for part in _parts(topic.name) if part in of_name
    }
    assert [pair for pair in found if pair[0] != pair[1]] == []


def _parts(name: str) -> Iterator[str]:
    """Every run of whole words."""
    words = name.split()
    return (" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1))


@pytest.mark.parametrize("what", ["topic", "template", "wording"])
def test_a_split_is_of_the_text_alone(what: str) -> None:
    drawn = [bank.split_of(what, f"{what} {number}") for number in range(4000)]
    share = drawn.count("heldout") / len(drawn)
    assert share == pytest.approx(bank.HELD_OUT_SHARE[what], abs=0.03)
    assert drawn == [bank.split_of(what, f"{what} {number}") for number in range(4000)]
