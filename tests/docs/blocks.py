"""Fenced code blocks and links of Markdown files, found without any help from the tools that render them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

PYTHON = ("python", "py", "python3")
SHELL = ("sh", "bash", "shell", "console")

_FENCE = re.compile(r"^(?P<indent> *)```(?P<lang>[\w+-]*).*?\n(?P<body>.*?)^ *```[ \t]*$", re.MULTILINE | re.DOTALL)
_NO_TEST = re.compile(r"<!-- no-test:(?P<reason>.*?)-->\s*\Z", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_HEADING = re.compile(r"^#{1,6} (.+?)(?:\s*\{ *#([\w-]+) *\})?\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        path: The file.
        line: Of its first line of code, from 1.
        lang: As the fence names it.
        code: Its text.
        no_test: Why it is not run; None where it is.
    """

    path: Path
    line: int
    lang: str
    code: str
    no_test: str | None

    @property
    def where(self) -> str:
        return f"{self.path.name}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    """All fenced blocks of a file, in order."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        above = _NO_TEST.search(text[: match.start()])
        line = text.count("\n", 0, match.start("body")) + 1
        reason = above["reason"].strip() if above else None
        found.append(Block(path, line, match["lang"], match["body"], reason))
    return found


def commands_of(block: Block) -> list[list[str]]:
    """The commands of a shell block as words; of a `console` block the lines after `$`."""
    code = block.code.replace("\\\n", " ")
    lines = [line.strip() for line in code.splitlines()]
    if block.lang == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    words = [shlex.split(line, comments=True) for line in lines]
    return [command for command in words if command]


def prose_of(path: Path) -> str:
    """A file's text without code blocks, inline code and comments."""
    text = _COMMENT.sub("", _FENCE.sub("", path.read_text(encoding="utf-8")))
    return re.sub(r"`[^`\n]*`", "", text)


def links_of(path: Path) -> list[str]:
    """The targets of all links and pictures."""
    return _LINK.findall(prose_of(path))


def anchors_of(path: Path) -> set[str]:
    """The anchors of a file's headings, as Python-Markdown makes them."""
    text = _COMMENT.sub("", _FENCE.sub("", path.read_text(encoding="utf-8")))
    return {named or _slug(title) for title, named in _HEADING.findall(text)}


def _slug(title: str) -> str:
    plain = re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower()
    return re.sub(r"[-\s]+", "-", plain)


def table_after(text: str, marker: str) -> list[list[str]]:
    """The rows of the first table after `marker`, without its head, cells stripped of backticks."""
    lines = text[text.index(marker) + len(marker) :].lstrip().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows
