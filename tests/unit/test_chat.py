"""Conversations: each turn's tokens found exactly, whatever it says and however the template writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augury.activations import capture
from augury.errors import InputError
from augury.lm import LanguageModel, Sampling, generate, generate_many, render_chat, transcript_of
from augury.lm.chat import Transcript
from tests.tiny import TEMPLATE, tiny_lm

Turn = tuple[str, str]
Pieces = list[tuple[str, int | None]]  # text, and the turn whose content it is


@dataclass(frozen=True)
class Style:
    """A chat template, and the same in Python: the text in pieces, so that what is content is known by construction."""

    template: str
    pieces: Callable[[list[Turn]], Pieces]


def headers(strip: bool) -> Callable[[list[Turn]], Pieces]:
    def pieces(turns: list[Turn]) -> Pieces:
        found: Pieces = []
        for i, (role, said) in enumerate(turns):
            found += [(f"<|start|>{role}\n", None), (said.strip() if strip else said, i), ("<|end|>\n", None)]
        return [*found, ("<|start|>assistant\n", None)]

    return pieces


def preamble(turns: list[Turn]) -> Pieces:
    found: Pieces = [("You are AI, a user of tools. user AI\n", None)]
    for i, (role, said) in enumerate(turns):
        found += [(f"[{role}:", None), (said, i), ("]", None)]
    return [*found, ("[assistant:", None)]


def last_only(turns: list[Turn]) -> Pieces:
    """Templates that leave out what was thought before: here all turns but the last two."""
    found: Pieces = []
    for i, (role, said) in enumerate(turns):
        found += [(f"{role}: ", None), (said, i) if i >= len(turns) - 2 else ("", None), (";", None)]
    return [*found, ("assistant: ", None)]


def tools(turns: list[Turn]) -> Pieces:
    """What begins and ends in a certain way is written in another: neither end bears a marker."""
    found: Pieces = []
    for i, (role, said) in enumerate(turns):
        tool = said.startswith("<t>") and said.endswith("</t>")
        found += [("tool says " if tool else f"{role} says ", None), (said, i), (";", None)]
    return [*found, ("assistant says ", None)]


END = "{% if add_generation_prompt %}"
STYLES = {
    "plain": Style(TEMPLATE, headers(strip=False)),
    "strips": Style(TEMPLATE.replace("message['content']", "message['content'] | trim"), headers(strip=True)),
    "preamble": Style(
        "You are AI, a user of tools. user AI\n{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
        + END
        + "[assistant:{% endif %}",
        preamble,
    ),
    "last only": Style(
        "{% for m in messages %}{{ m.role }}: {% if loop.index0 >= messages | length - 2 %}{{ m.content }}{% endif %};"
        "{% endfor %}" + END + "assistant: {% endif %}",
        last_only,
    ),
    "tools": Style(
        "{% for m in messages %}{% if m.content.startswith('<t>') and m.content.endswith('</t>') %}tool{% else %}"
        "{{ m.role }}{% endif %} says {{ m.content }};{% endfor %}" + END + "assistant says {% endif %}",
        tools,
    ),
}
WORDS = ["user", "AI", "assistant", "a", "1", ":", "\n", " ", "<|start|>", "user\n", "[user:", "<t>", "</t>", "Zq", "says", "é"]  # fmt: skip  # noqa: E501
SAID = st.lists(st.sampled_from(WORDS), max_size=5).map("".join)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm()


def with_template(lm: LanguageModel, template: str | None) -> LanguageModel:
    import copy

    tokenizer: Any = copy.deepcopy(lm.tokenizer)
    tokenizer.chat_template = template
    return replace(lm, tokenizer=tokenizer)


def as_dicts(turns: list[Turn]) -> list[dict[str, str]]:
    return [{"role": role, "content": said} for role, said in turns]


def expected(lm: LanguageModel, pieces: Pieces) -> tuple[list[int], list[tuple[int, int]]]:
    """The token ids of the pieces' text, and the tokens that touch each content, stripped; empty ones left out."""
    tokenizer: Any = lm.tokenizer
    encoded = tokenizer("".join(text for text, _ in pieces), add_special_tokens=False, return_offsets_mapping=True)
    spans, at = [], 0
    for text, turn in pieces:
        start, stop = at + len(text) - len(text.lstrip()), at + len(text.rstrip())
        at += len(text)
        inside = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < stop and b > start]
        if turn is not None and text.strip():
            spans.append((inside[0], inside[-1] + 1))
    return encoded["input_ids"], spans


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=60)
@given(said=st.lists(SAID, min_size=1, max_size=4))
def test_each_turn_is_found_where_the_template_puts_it(lm: LanguageModel, style: str, said: list[str]) -> None:
    lm = with_template(lm, STYLES[style].template)
    turns = [(("user", "assistant")[i % 2], text) for i, text in enumerate(said)]
    ids, spans = expected(lm, STYLES[style].pieces(turns))
    found = render_chat(lm, as_dicts(turns), "generation")
    assert list(found.token_ids) == ids
    assert [(span.start, span.stop) for span in found.spans] == spans


def test_a_content_like_its_header_is_not_taken_for_it(lm: LanguageModel) -> None:
    tokenizer: Any = lm.tokenizer
    acts = capture(lm, [{"role": "user", "content": "user"}], layers=1, positions='role("user")')
    assert acts.transcript is not None
    before = tokenizer.decode(acts.transcript.token_ids[: acts.positions[0]])
    assert before == "<|start|>user\n" and len(acts) == 1


def test_an_open_turn_is_found(lm: LanguageModel) -> None:
    found = render_chat(lm, [{"role": "user", "content": "end"}, {"role": "assistant", "content": "end"}], "open")
    assert found.spans[1].stop == len(found) and found.spans[1].role == "assistant"


@pytest.mark.parametrize("change", ["upper", "replace('a', 'b')", "reverse", "default('x', true) | tojson"])
def test_a_rewritten_turn_has_no_place(lm: LanguageModel, change: str) -> None:
    template = TEMPLATE.replace("message['content']", f"message['content'] | {change}")
    with pytest.raises(InputError, match="role"):
        capture(
            with_template(lm, template),
            [{"role": "user", "content": 'say "abba", user'}],
            layers=1,
            positions='role("user")',
        )


def test_a_rewritten_turn_does_not_hide_the_others(lm: LanguageModel) -> None:
    content = "(message['content'] | upper if message['role'] == 'system' else message['content'])"
    shouting = with_template(lm, TEMPLATE.replace("message['content']", content))
    found = render_chat(shouting, as_dicts([("system", "be kind"), ("user", "kind")]))
    assert [span.role for span in found.spans] == ["user"]


def test_a_template_for_a_model_without_one(lm: LanguageModel) -> None:
    base, messages = with_template(lm, None), [{"role": "user", "content": "tea"}]
    with pytest.raises(InputError, match="no chat template"):
        render_chat(base, messages)
    assert render_chat(base, messages, template_kwargs={"chat_template": TEMPLATE}) == render_chat(lm, messages)


def test_what_a_template_refuses_is_told(lm: LanguageModel) -> None:
    strict = with_template(lm, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InputError, match="does not take") as refusal:
        render_chat(strict, [{"role": "user", "content": "tea"}])
    assert "alternate" in refusal.value.why and refusal.value.instead


@pytest.mark.parametrize("source", ["tea", [4, 5], Transcript((4, 5)), [{"role": "user", "content": "tea"}]])
def test_an_unknown_ending_is_refused_for_everything(lm: LanguageModel, source: Any) -> None:
    bogus: Any = "bogus"
    with pytest.raises(InputError, match="no ending"):
        transcript_of(lm, source, bogus)


ENDING: list[Callable[..., Any]] = [transcript_of, generate, lambda lm, source, end: capture(lm, source, 1, end=end)]


@pytest.mark.parametrize("source", ["tea", [4, 5], (4, 5), Transcript((4, 5)), Transcript((4, 5), end="closed")])
@pytest.mark.parametrize("read", ENDING, ids=["transcript_of", "generate", "capture"])
def test_an_ending_of_what_has_no_turns_is_refused(lm: LanguageModel, source: Any, read: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"conversations|does not end as") as refusal:
        read(lm, source, end="generation")
    assert refusal.value.why and refusal.value.instead


@pytest.mark.parametrize("end", ["closed", "open", "bogus"])
def test_nothing_is_generated_after_another_ending(lm: LanguageModel, end: Any) -> None:
    with pytest.raises(InputError, match="Nothing is generated"):
        generate(lm, [{"role": "user", "content": "tea"}], end=end, max_new_tokens=1)
    assert generate(lm, [7, 8], max_new_tokens=1).token_ids[:2] == (7, 8)


@pytest.mark.parametrize("source", [torch.tensor([4, 5, 6]), torch.tensor([4, 5, 6]).numpy(), 7, None, {}, [], b"tea"])
def test_what_is_no_text_is_refused(lm: LanguageModel, source: Any) -> None:
    with pytest.raises(InputError, match="nothing to read") as refusal:
        capture(lm, source, layers=1)
    assert refusal.value.why and refusal.value.instead
    assert "tolist" in refusal.value.why or not hasattr(source, "tolist")


THINKING = TEMPLATE.replace("{% endif %}", "{% if not enable_thinking %}<t></t>{% endif %}{% endif %}")


@pytest.mark.parametrize(
    ("end", "written"),
    [
        ("closed", "<|start|>user\ntea<|end|>\n<|start|>assistant\nYes<|end|>\n"),
        ("generation", "<|start|>user\ntea<|end|>\n<|start|>assistant\nYes<|end|>\n<|start|>assistant\n<t></t>"),
        ("thinking", "<|start|>user\ntea<|end|>\n<|start|>assistant\nYes<|end|>\n<|start|>assistant\n"),
        ("open", "<|start|>user\ntea<|end|>\n<|start|>assistant\nYes"),
    ],
)
def test_each_ending_against_ids_made_by_hand(lm: LanguageModel, end: Any, written: str) -> None:
    lm, messages = with_template(lm, THINKING), as_dicts([("user", "tea"), ("assistant", "Yes")])
    tokenizer: Any = lm.tokenizer
    found = render_chat(lm, messages, end)
    assert list(found.token_ids) == tokenizer(written, add_special_tokens=False)["input_ids"] and found.end == end
    assert render_chat(lm, messages).end == "closed" and render_chat(lm, messages[:1]).end == "generation"


# --- generating


def test_a_context_that_is_too_long_is_refused(lm: LanguageModel) -> None:
    assert lm.max_positions == 512
    for source in (" tea" * 600, [{"role": "user", "content": " tea" * 600}]):
        with pytest.raises(InputError, match="longer than"):
            generate(lm, source, max_new_tokens=1)


def test_new_tokens_need_room_too(lm: LanguageModel) -> None:
    start = Transcript(tuple([5] * 500), model=lm.name)
    assert len(generate_many(lm, [start], Sampling(12))[0]) <= 512
    with pytest.raises(InputError, match="no room for 13") as refusal:
        generate(lm, start, max_new_tokens=13)
    assert "500" in refusal.value.why and "512" in refusal.value.why
    with pytest.raises(InputError, match="no room"):
        generate(lm, [{"role": "user", "content": "tea"}], max_new_tokens=512)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"role": None, "content": "a"}, "no role"),
        ({"role": "", "content": "a"}, "no role"),
        ({"role": "assistant", "content": "a", "tool_calls": [{"name": "f"}]}, "tool_calls"),
        ({"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}, "tool_calls"),
        ({"role": "user", "content": "half \ud83d"}, "surrogate"),
    ],
)
def test_a_message_that_cannot_be_read_whole_is_refused(lm: LanguageModel, message: Any, why: str) -> None:
    with pytest.raises(InputError) as refusal:
        transcript_of(lm, [{"role": "user", "content": "b"}, message])
    assert why in refusal.value.why


def test_fields_that_say_nothing_are_no_loss(lm: LanguageModel) -> None:
    plain = {"role": "user", "content": "b"}
    assert transcript_of(lm, [{**plain, "tool_calls": None}]) == transcript_of(lm, [plain])


@pytest.mark.parametrize("source", ["half \ud83d", [True, False]])
def test_half_characters_and_truth_values_are_no_text(lm: LanguageModel, source: Any) -> None:
    with pytest.raises(InputError):
        transcript_of(lm, source)


@pytest.mark.parametrize("name", ["tokenize", "conversation", "return_dict"])
def test_options_that_are_not_the_templates_are_refused(lm: LanguageModel, name: str) -> None:
    with pytest.raises(InputError, match="no options of a chat template"):
        render_chat(lm, [{"role": "user", "content": "b"}], template_kwargs={name: False})
