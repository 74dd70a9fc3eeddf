"""What endpoints were used for, summed over the replies that are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from augury.data.asked import asked_of
from augury.data.opened import DataSet
from augury.data.replies import Replies


def test_all_kept_replies_count_whole_lines_only(tmp_path: Path) -> None:
    ends = {"url": "http://here/v1", "model": "m", "prices": {"prompt": 2.0, "completion": 4.0}}
    recipe = {
        "contexts": {"plain": {"type": "text"}, "served": {"endpoint": {**ends, "prices": None}}},
        "sources": {"asked": {"endpoint": {**ends, "replies": str(tmp_path / "kept.jsonl")}}},
    }
    replies = Replies(tmp_path / "kept.jsonl")
    for number in range(3):
        usage = {"prompt_tokens": 100 + number, "completion_tokens": 10} if number else None
        replies.add({"number": number}, {"choices": [], "usage": usage})
    replies.close()
    with (tmp_path / "kept.jsonl").open("ab") as out:
        out.write(b'{"key": "torn')
    served, asked = asked_of(DataSet(tmp_path, {}, {}, None, {}, {}, recipe))
    assert (served.name, served.calls, served.cost) == ("served", 0, None)
    assert (asked.calls, asked.prompt_tokens, asked.completion_tokens) == (3, 203, 20)
    assert asked.cost == pytest.approx((203 * 2 + 20 * 4) / 1e6)
    assert asked.line() == "asked: asked: 3 replies of m; 203 tokens read, 20 written; 0.00 in all"
    assert asked_of(DataSet(tmp_path, {}, {}, None, {}, {}, {})) == []
