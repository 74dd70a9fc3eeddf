"""The bundled model behind `transformers serve`: what comes over HTTP is what the model says here."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

import augury
from augury.data.annotate import annotate
from augury.data.example import Context, Part
from augury.data.prompts import Prompt
from augury.data.replies import Replies
from augury.data.requests import TargetSettings
from augury.data.rollouts import sample_rollouts
from augury.data.served import sample_served
from augury.data.sources.conversation import ConversationSettings
from augury.data.store import Shards
from augury.lm import Sampling
from augury.lm.bundled import smollm2_folder
from augury.lm.chat import Message, render_chat
from tests.conftest import require
from tests.scripted import completion

pytestmark = [pytest.mark.slow, pytest.mark.bundled]
SERVE = "from transformers.cli.transformers import main; main()"
TEXT = "I bought bread. I bought milk. Then I met Anna in Paris. She gave me 12 red apples."


@pytest.fixture(scope="module")
def url(smollm2, tmp_path_factory):
    for module in ("openai", "fastapi", "uvicorn"):
        require(importlib.util.find_spec(module), f"{module} is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVE, "serve", str(smollm2_folder()), "--host", "127.0.0.1"]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as told:
        running = subprocess.Popen(
            [*command, "--port", str(port), "--device", "cpu"], stdout=told, stderr=told,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{port}/health", running, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        running.terminate()
        running.wait(30)


def _wait(url: str, running: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        assert running.poll() is None, log.read_text()
        try:
            urlopen(url, timeout=5).close()
            return
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def said_here(smollm2, messages: list, max_tokens: int) -> str:
    """What the model says without any server."""
    found = augury.generate(smollm2, messages, max_new_tokens=max_tokens)
    return smollm2.tokenizer.decode(found.token_ids[found.spans[-1].start : found.spans[-1].stop])


def test_rollouts_over_http_are_those_that_are_sampled_here(smollm2, url, tmp_path):
    prompts = [Prompt(f"Name three {things}.", "train") for things in ("fruits", "rivers in Europe")]
    here, there = (Shards(tmp_path, name, "train", Context, "a recipe") for name in ("here", "there"))
    sample_rollouts(smollm2, prompts, here, Sampling(24), batch_size=1)
    settings = TargetSettings(url=url, model=str(smollm2_folder()), key_env=None, concurrency=1)
    sample_served(smollm2, prompts, there, Sampling(24), settings, tmp_path / "r.jsonl")
    assert there.dropped == {}
    assert [c.token_ids for c in there.table()] == [c.token_ids for c in here.table()]
    assert [c.parts for c in there.table()] == [c.parts for c in here.table()]


def test_the_three_calls_over_http(smollm2, url, tmp_path):
    """The model is too small to choose a question, so a choice is put among the kept replies for one answer."""
    answers = [_context(smollm2, number, f"{TEXT} That was on day {number}.") for number in range(2)]
    endpoint = {"url": url, "model": str(smollm2_folder()), "key_env": None, "max_tokens": 12, "concurrency": 1}
    settings = ConversationSettings.model_validate(
        {"contexts": "answers", "endpoint": endpoint, "sentences": 5, "each_side": 2, "text_answered": "keep"}
    )
    replies = tmp_path / "r.jsonl"

    def made(name: str, some: list[Context]) -> tuple[list[Context], dict[str, int]]:
        shards = Shards(tmp_path, name, "train", Context, "a recipe")
        annotate(settings, some, shards, smollm2.tokenizer.decode, replies)
        return list(shards.table()), shards.dropped

    assert made("first", answers[:1]) == ([], {"the reply holds no JSON object": 1})
    lines = [json.loads(line) for line in replies.read_text().splitlines()]
    assert [len(line["request"]["messages"]) for line in lines] == [1, 3]
    choose = json.loads(json.dumps(lines[0]["request"]).replace("day 0", "day 1"))
    choice = json.dumps({"split": 3, "question": "What did she give me?"})
    kept = Replies(replies)
    kept.add(choose, completion(choice))
    kept.close()
    rows, dropped = made("second", answers)
    assert len(rows) + sum(dropped.values()) == 2
    lines = [json.loads(line) for line in replies.read_text().splitlines()]
    assert len(lines) == 5  # two for the first answer, the choice, and two calls more
    for line in (*lines[:2], *lines[3:]):
        text = line["reply"]["choices"][0]["message"]["content"]
        assert text == said_here(smollm2, line["request"]["messages"], 12)
    before, after = (line["request"]["messages"][0]["content"] for line in lines[3:])
    assert "Anna" in before and "apples" not in before and "apples" in after and "Anna" not in after
    for row in rows:
        assert row.labels["answer"] == lines[4]["reply"]["choices"][0]["message"]["content"].strip()
        assert row.labels["text_answer"] == " ".join(lines[3]["reply"]["choices"][0]["message"]["content"].split())


def _context(smollm2, number: int, text: str) -> Context:
    found = render_chat(smollm2, [Message("user", "What happened?"), Message("assistant", text)], "closed")
    parts = tuple(Part(span.role, "target", span.start, span.stop) for span in found.spans if span.role != "system")
    return Context(number, "train", found.token_ids, parts)
