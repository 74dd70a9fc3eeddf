"""Scans as a picture: every token a chip, coloured by how far its margin lies above or below the donors' median."""

from __future__ import annotations

import math
import re
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augury.contract import PromptFormat
from augury.errors import AuguryError, InputError
from augury.files import replacing

if TYPE_CHECKING:
    from augury.oracle.answers import Scan

DPI = 150
WIDTH = 1400  # all sizes in pixels
MARGIN = 36
COLUMN = 12.6  # of one character
LINE = 36
CHIP = 29
TITLE = 42
GAP = 26
BAR = 112
FONT_PX = 20.6
COLUMNS = int((WIDTH - 2 * MARGIN) / COLUMN)
PADDING, WORD_GAP, PART_GAP = 0.22, 0.5, 0.06  # in characters

_SPECIAL = re.compile(
    r"<[|\uff5c].+[|\uff5c]>|</?(s|bos|eos|pad|unk|mask|sep|cls)>|<(start|end)_of_\w+>|\[/?(CLS|SEP|PAD|BOS|EOS|UNK|MASK|INST)\]",
    re.IGNORECASE,
)
_FONTS = (
    "DejaVu Sans Mono",
    "Noto Sans Mono CJK SC",
    "Noto Sans CJK SC",
    "Noto Sans Mono",
    "WenQuanYi Zen Hei Mono",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Arial Unicode MS",
    "DejaVu Sans",
)
_SHOWN = {"\n": "↵", "\t": "→", "\r": "", "▁": " ", "Ġ": " ", "Ċ": "↵"}
_SPACES = (" ", "▁", "Ġ")
_BREAKS = ("\n", "Ċ")


class PlotError(AuguryError, ImportError):
    """The extra for pictures is not installed."""

    code = "plot"


@dataclass(frozen=True)
class Chip:
    """One token in its place.

    Attributes:
        text: As it is shown.
        line: From 0.
        column: Where its box starts, in characters from the left.
        width: Of its box, in characters.
        value: What colours it; None for a special token.
    """

    text: str
    line: int
    column: float
    width: float
    value: float | None


def heat_map(scans: Sequence[Scan], path: str | Path) -> Path:
    """Draw scans over one context into a PNG, one panel a question.

    Args:
        scans: What `oracle.scan` gave; all panels share one colour scale, centred at 0.
        path: Where the picture goes; its folder is made where it does not exist.

    Returns:
        The path.

    Raises:
        InputError: No scan.
        PlotError: matplotlib is missing.
        StorageError: The picture cannot be written.
    """
    if not scans:
        raise InputError("There is nothing to draw.", "no scan was passed", "pass what `oracle.scan` gave")
    need_matplotlib()
    panels = [lay_out(scan.token_texts, scan.values) for scan in scans]
    figure = _draw(scans, panels)
    return save_figure(figure, Path(path))


def lay_out(texts: Sequence[str], values: Sequence[float], columns: int = COLUMNS) -> list[Chip]:
    """Place tokens in lines of at most `columns` characters, breaking where the text does.

    A leading space is a gap before the token's box, so that words look like words and their parts like parts.
    """
    chips: list[Chip] = []
    line, column = 0, 0.0
    for text, value in zip(texts, values, strict=True):
        shown = _fitted(_visible(text), columns - 1)
        width = _columns(shown) + 2 * PADDING
        if not text.strip("\n") and chips and not column:  # an empty line: its break stays at the end of the last one
            line, column = line - 1, chips[-1].column + chips[-1].width
        lead = (WORD_GAP if text[:1] in _SPACES else PART_GAP) if column else 0.0
        if column + lead + width > columns and column:
            line, column, lead = line + 1, 0.0, 0.0
        finite = math.isfinite(value) and not is_special(text)
        chips.append(Chip(shown, line, column + lead, width, value if finite else None))
        column += lead + width
        if text.endswith(_BREAKS):
            line, column = line + 1, 0.0
    return chips


def is_special(text: str) -> bool:
    """Whether a token's text is that of a special token, such as `<|im_start|>`."""
    return _SPECIAL.fullmatch(text.strip()) is not None


def colour_limit(values: Sequence[float]) -> float:
    """Where the scale ends: the largest value, but not a single outlier far above all others; at least 0.5."""
    sizes = sorted(abs(value) for value in values)
    if not sizes:
        return 1.0
    usual = sizes[max(0, math.ceil(0.97 * len(sizes)) - 1)]
    return max(0.5, min(sizes[-1], 1.25 * usual))


def _visible(text: str) -> str:
    """What a token's box says: line breaks and lone spaces as signs, parts of characters as a small square."""
    shown = "".join(_SHOWN.get(char, char) for char in text)
    shown = "".join("▫" if unicodedata.category(char) in ("Cc", "Cs") or char == "\ufffd" else char for char in shown)
    return shown.strip() or "·" * max(1, len(shown))


def _fitted(text: str, columns: int) -> str:
    while _columns(text) > columns:
        text = text[: max(1, len(text) * columns // (_columns(text) + 1)) - 1] + "…"
    return text


def _columns(text: str) -> int:
    """Columns in a monospaced font: wide East Asian characters take two, combining marks none."""
    wide = sum(
        2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text if not unicodedata.combining(char)
    )
    return max(1, wide)


def need_matplotlib(what: str = "The picture") -> None:
    """Refuse where no picture can be drawn.

    Raises:
        PlotError: matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise PlotError(
            f"{what} cannot be drawn.",
            "matplotlib is not installed",
            "install it with `pip install 'augury[plot]'`, or read the figures in the terminal",
        ) from error


def _draw(scans: Sequence[Scan], panels: Sequence[Sequence[Chip]]) -> Any:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    limit = colour_limit([chip.value for chips in panels for chip in chips if chip.value is not None])
    colours = colormaps["PRGn"]
    scale = Normalize(-limit, limit, clip=True)
    heights = [TITLE + LINE * (max(chip.line for chip in chips) + 1) + GAP for chips in panels]
    height = MARGIN + sum(heights) + BAR
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    top = MARGIN
    for scan, chips, tall in zip(scans, panels, heights, strict=True):
        _draw_panel(axes, scan, chips, top, lambda value: colours(scale(value)))
        top += tall
    _draw_bar(figure, scans, colours, scale, height)
    return figure


def _draw_panel(axes: Any, scan: Scan, chips: Sequence[Chip], top: float, colour: Any) -> None:
    title = _fitted(_plain_question(scan.question), 95)
    axes.text(MARGIN, top, title, fontsize=_points(24), weight="bold", va="top", color="#1a1a1a", parse_math=False)
    fonts = _fonts()
    for chip in chips:
        fill = "#ececec" if chip.value is None else colour(chip.value)
        _draw_chip(axes, chip, top + TITLE + LINE * chip.line, fill, fonts)


def _draw_chip(axes: Any, chip: Chip, y: float, fill: Any, fonts: list[str]) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, wide = MARGIN + COLUMN * chip.column, COLUMN * chip.width
    shape = "round,pad=0,rounding_size=4"
    box = FancyBboxPatch((x, y), wide, CHIP, boxstyle=shape, facecolor=fill, edgecolor="#c8c8c8", linewidth=0.4)
    axes.add_patch(box)
    ink = "#8a8a8a" if chip.value is None else _ink(fill)
    style: dict[str, Any] = {"fontsize": _points(FONT_PX), "family": fonts, "parse_math": False, "color": ink}
    # On a baseline, not centred: letters with tails would otherwise dance.
    axes.text(x + wide / 2, y + 0.71 * CHIP, chip.text, va="baseline", ha="center", **style)


def _draw_bar(figure: Any, scans: Sequence[Scan], colours: Any, scale: Any, height: float) -> None:
    from matplotlib.cm import ScalarMappable

    wide = 560
    bar = figure.add_axes(((MARGIN + 12) / WIDTH, 70 / height, wide / WIDTH, 16 / height))
    figure.colorbar(ScalarMappable(scale, colours), cax=bar, orientation="horizontal")
    bar.tick_params(labelsize=_points(17), length=3, width=0.6)
    compared = all(scan.donor_median is not None for scan in scans)
    label = "margin minus donors' median (nats)" if compared else "margin (nats), not compared with donors"
    bar.set_xlabel(label, fontsize=_points(18), labelpad=3)
    bar.spines[:].set_linewidth(0.6)
    text = {"fontsize": _points(18), "color": "#555555", "transform": figure.transFigure, "va": "center"}
    source, window = scans[0].source, scans[0].window
    yes, no = scans[0].choices[0], scans[0].choices[-1]
    reads = "one position at a time" if window == 1 else f"windows of {window} positions"
    layers = ", ".join(map(str, source.layers))
    at = (MARGIN + wide + 44) / WIDTH
    figure.text(at, 84 / height, f"green: more “{yes}”   purple: more “{no}”   grey: special token", **text)
    figure.text(at, 54 / height, _fitted(f"oracle {_short_name(source.oracle)}, layer {layers}, {reads}", 70), **text)


def _short_name(name: str) -> str:
    return Path(name).name if name.startswith(("/", ".", "~")) else name


def _plain_question(question: str) -> str:
    """Without the prefix that only tells the oracle how to answer."""
    return question.removeprefix(PromptFormat().yes_no_prefix)


def _ink(fill: Any) -> str:
    """Black or white, whichever can be read on this colour."""
    red, green, blue = fill[:3]
    return "#111111" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.52 else "white"


def _points(pixels: float) -> float:
    return pixels * 72 / DPI


def _fonts() -> list[str]:
    """The monospaced font that comes with matplotlib, and what the machine has for other scripts."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return [name for name in _FONTS if name in installed] or ["monospace"]


def save_figure(figure: Any, path: Path) -> Path:
    """Write a picture as PNG, whole or not at all."""
    with replacing(path) as unfinished, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # it is drawn as a box, which says as much
        figure.savefig(unfinished, format="png")
    return path
