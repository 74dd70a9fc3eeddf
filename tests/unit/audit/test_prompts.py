"""The bank of prompts is as diverse as it says, and the user's own files are read or refused."""

from __future__ import annotations

import json

import pytest

from augury.audit.prompts import default_concepts, read_concepts, read_prompts, shipped_prompts
from augury.data.bank import topics
from augury.errors import AuguryError

KINDS = [
    "facts", "emotion", "policy", "code", "self-description", "data generation", "names", "numbers", "instructions",
    "refusals", "small talk",
]  # fmt: skip


def test_the_bank_has_twelve_prompts_of_each_of_eleven_kinds():
    found = shipped_prompts()
    assert list(dict.fromkeys(prompt.kind for prompt in found)) == KINDS
    assert all(sum(prompt.kind == kind for prompt in found) == 12 for kind in KINDS)
    assert len({prompt.text.casefold() for prompt in found}) == len({prompt.id for prompt in found}) == 132
    assert [prompt.id for prompt in shipped_prompts(2)] == [p.id for p in found if p.id[-2:] in ("-0", "-1")]


def test_the_bank_is_diverse_no_word_of_substance_stands_in_many_prompts():
    texts = [set(prompt.text.casefold().strip("?.!").split()) for prompt in shipped_prompts()]
    often = {word: sum(word in text for text in texts) for text in texts for word in text if len(word) > 5}
    assert max(often.values()) <= 8, often


def test_every_topic_of_the_data_bank_lies_in_a_concept():
    assert set(default_concepts()) == {topic.category for topic in topics()} and len(set(default_concepts())) > 30


def test_own_prompts_are_texts_or_objects(tmp_path):
    file = tmp_path / "prompts"
    file.write_text("Tea?\n\n" + json.dumps({"prompt": " Milk? ", "kind": "food"}) + "\n", encoding="utf-8")
    found = read_prompts(file)
    assert [(p.id, p.kind, p.text) for p in found] == [("own-0", "own", "Tea?"), ("food-1", "food", "Milk?")]


@pytest.mark.parametrize(
    ("read", "text", "word"),
    [
        (read_prompts, "", "holds no prompts"),
        (read_prompts, "Tea?\nTea?\n", "something twice"),
        (read_prompts, "{broken\n", "is no prompt"),
        (read_prompts, '{"prompt": " "}\n', "is no prompt"),
        (read_prompts, '{"a":' * 100_000, "is no prompt"),
        (read_concepts, "tea\nmilk\nTEA\nwater\n", "something twice"),
        (read_concepts, "tea\nmilk\n", "holds 2 concepts"),
    ],
)
def test_files_that_hold_nothing_of_use_are_refused(tmp_path, read, text, word):
    file = tmp_path / "file"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(AuguryError, match=word) as caught:
        read(file)
    assert caught.value.why and caught.value.instead
    with pytest.raises(AuguryError, match="no file"):
        read(tmp_path / "missing")


def test_files_of_other_editors_are_read_or_refused(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b'\xef\xbb\xbf{"prompt": "one\xe2\x80\xa8still one"}\r\ntwo\r\n')
    assert [prompt.text for prompt in read_prompts(file)] == ["one\u2028still one", "two"]
    file.write_bytes("caf\u00e9\n".encode("latin-1"))
    for read in (read_prompts, read_concepts):
        with pytest.raises(AuguryError, match="no text that can be read"):
            read(file)
