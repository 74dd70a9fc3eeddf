"""Transcript: written, loaded, gone on with by the target, and read as exactly what the target sampled."""

from __future__ import annotations

import json

import pytest

import augury
from augury.lm import transcript_of
from tests.web.conftest import chips, selected

BREAD = "Explain in a few sentences how to bake a simple loaf of bread."


def test_tokens_are_the_targets_own(page, smollm2):
    page.get_by_label("Special tokens").check()
    ids = transcript_of(smollm2, [{"role": "user", "content": BREAD}], "generation").token_ids
    assert chips(page) == list(range(len(ids))), "every token stands there once, in order"
    texts = page.eval_on_selector_all(".chip", "found => found.map(chip => chip.textContent)")
    shown = "".join(texts).replace("⏎", "\n").replace("\u00a0", " ")
    assert shown == smollm2.tokenizer.decode(list(ids))
    page.get_by_label("Special tokens").uncheck()
    text = page.get_by_role("group", name="user").inner_text()
    assert "<|im_start|>" not in text and "bread" in text


def test_what_the_target_writes_is_kept_as_it_was_sampled(page, smollm2):
    page.get_by_role("spinbutton", name="Tokens", exact=True).fill("12")
    page.get_by_role("button", name="Generate").click()
    page.get_by_label("Turn 2, assistant").wait_for()
    alone = augury.generate(smollm2, [{"role": "user", "content": BREAD}], max_new_tokens=12)
    span = alone.spans[-1]
    text = smollm2.tokenizer.decode(list(alone.token_ids[span.start : span.stop]), skip_special_tokens=True)
    assert page.get_by_label("Turn 2, assistant").input_value() == text
    page.get_by_role("group", name="assistant").wait_for()
    page.get_by_text("It was cut at 12 tokens.").wait_for()
    page.get_by_role("button", name="All assistant tokens").click()
    assert selected(page) == list(range(span.start, span.stop))


def test_an_answer_is_written_again_and_edited(page):
    page.get_by_role("spinbutton", name="Tokens", exact=True).fill("4")
    page.get_by_role("button", name="Generate").click()
    page.get_by_label("Turn 2, assistant").wait_for()
    page.get_by_label("Turn 1, user").fill("Name a colour.")
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("progressbar").first.wait_for(state="detached")
    assert page.locator(".turns li").count() == 2, "the answer is replaced, and none is added"
    page.get_by_label("Turn 2, assistant").fill("Blue it is.")
    page.get_by_role("option", name="Blue").wait_for()
    page.get_by_role("button", name="Remove turn 1").click()
    page.get_by_role("option", name="colour").wait_for(state="detached")


def test_long_work_is_stopped(page):
    page.get_by_role("spinbutton", name="Tokens", exact=True).fill("400")
    page.get_by_label("Temperature").first.fill("1.5")
    page.get_by_role("button", name="Generate").click()
    page.locator(".writing").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("progressbar").wait_for(state="detached")
    assert page.get_by_label("Turn 2, assistant").input_value() != "", "what was written until then stays"
    assert page.get_by_role("alert").count() == 0
    page.locator(".stale").wait_for(state="detached")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".said:not(.pending)").wait_for()


def test_a_file_of_conversations_is_opened(page, tmp_path):
    turns = [[{"role": "user", "content": f"Number {word}"}] for word in ("one", "two")]
    file = tmp_path / "c.jsonl"
    file.write_text("\n".join(json.dumps({"messages": turn}) for turn in turns))
    page.get_by_label("Open JSONL").set_input_files(file)
    page.get_by_role("option", name="one", exact=True).wait_for()
    page.get_by_label("Line").select_option("2 of 2")
    page.get_by_role("option", name="two", exact=True).wait_for()
    file.write_text("{")
    page.get_by_label("Open JSONL").set_input_files(file)
    assert "Line 1 is not JSON" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("Turn 1, user").input_value() == "Number two", "what was there stays"


@pytest.mark.parametrize("name", ["A user who is wrong", "A system prompt"])
def test_examples_are_loaded(page, name):
    page.get_by_label("Load an example").select_option(name)
    page.get_by_role("option", name={"A system prompt": "pirate"}.get(name, "Australia")).first.wait_for()


def test_plain_text_is_read_as_it_is(page, smollm2):
    page.get_by_label("Plain text").check()
    page.get_by_label("Text", exact=True).fill("The philosopher who drank hemlock taught")
    page.locator(".stale").wait_for(state="detached")
    page.get_by_role("group", name="text").get_by_role("option", name="The", exact=True).wait_for()
    assert len(chips(page)) == len(transcript_of(smollm2, "The philosopher who drank hemlock taught"))


def test_nothing_is_lost_where_a_context_is_too_long(page):
    page.get_by_label("Turn 1, user").fill("word " * 9000)
    page.get_by_role("alert").wait_for()
    assert "can read" in page.get_by_role("alert").inner_text()
    page.get_by_label("Turn 1, user").fill("Short again.")
    page.locator(".chip").first.wait_for()
    assert page.get_by_role("alert").count() == 0
