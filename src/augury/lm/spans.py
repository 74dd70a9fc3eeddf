"""Where each turn's content stands in a rendered conversation, found by rendering it again with markers in it.

Searching for the content itself would find it anywhere: "user" stands in the header of a user's turn. A marker is a
word that occurs nowhere else, so it shows where the template put a turn, whatever the template is. It is believed only
where the text without the markers is the rendered text itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Render = Callable[[Sequence[str]], str]  # the rendered text of the conversation with these contents
Marks = tuple[tuple[int, str], ...]  # (character of the content's core, marker that goes before it)

# Where markers go in a content of `n` characters, surest first: at both ends; and for a template that looks at one of
# the ends (a tool's answer, a thought), a single one elsewhere.
_WAYS: tuple[Callable[[int], tuple[int, ...]], ...] = (
    lambda n: (0, n),
    lambda n: (n,),
    lambda n: (n // 2,),
    lambda _: (0,),
)


def content_spans(contents: Sequence[str], rendered: str, render: Render) -> list[tuple[int, int] | None]:
    """The characters `[start, stop)` of each content, without surrounding whitespace, in the rendered text.

    Args:
        contents: What each turn says.
        rendered: The conversation's text.
        render: Renders the same conversation with other contents.

    Returns:
        For each content its place; None for an empty one, and where the template rewrote it or left it out.
    """
    salt = _salt([rendered, *contents])
    found: list[tuple[int, int] | None] = [None] * len(contents)
    for everything in (True, False):  # together, and where one turn disturbs the others, each by itself
        for way in _WAYS:
            missing = [i for i, place in enumerate(found) if place is None and contents[i].strip()]
            for turns in [missing] if everything else [[i] for i in missing]:
                for i, place in _locate(contents, rendered, render, turns, salt, way).items():
                    found[i] = place
    return found


def _salt(texts: Sequence[str]) -> str:
    salt = "Zq"
    while any(salt in text for text in texts):
        salt += "q"
    return salt


def _locate(
    contents: Sequence[str],
    rendered: str,
    render: Render,
    turns: Sequence[int],
    salt: str,
    way: Callable[[int], tuple[int, ...]],
) -> dict[int, tuple[int, int]]:
    cores = {i: contents[i].strip() for i in turns}
    marks = {i: tuple(zip(way(len(cores[i])), (f"{salt}{i}a", f"{salt}{i}z"), strict=False)) for i in turns}
    marked = [_marked(content, marks.get(i, ())) for i, content in enumerate(contents)]
    if not turns:
        return {}
    try:
        text = render(marked)
    except Exception:  # a template may refuse what it does not expect, in any way it likes
        return {}
    plain, places = _without(text, [marker for found in marks.values() for _, marker in found])
    if plain != rendered:
        return {}
    return {i: place for i in turns if (place := _place(cores[i], rendered, marks[i], places)) is not None}


def _marked(content: str, marks: Marks) -> str:
    """The content with markers inside its surrounding whitespace, so that a template may still strip it."""
    begin = len(content) - len(content.lstrip())
    for index, marker in reversed(marks):
        content = content[: begin + index] + marker + content[begin + index :]
    return content


def _without(text: str, markers: Sequence[str]) -> tuple[str, dict[str, int]]:
    """The text without its markers, and where each that occurs exactly once stood in it."""
    stands = {text.index(marker): marker for marker in markers if text.count(marker) == 1}
    places, removed = {}, 0
    for index in sorted(stands):
        places[stands[index]] = index - removed
        removed += len(stands[index])
    for marker in markers:
        text = text.replace(marker, "")
    return text, places


def _place(core: str, rendered: str, marks: Marks, places: dict[str, int]) -> tuple[int, int] | None:
    """Where the core stands, if all its markers agree and the rendered text says just that there."""
    starts = {places[marker] - index if marker in places else None for index, marker in marks}
    start = starts.pop() if len(starts) == 1 else None
    if start is None or start < 0 or rendered[start : start + len(core)] != core:
        return None
    return start, start + len(core)
