"""What an ablation found, in one table: each run's figures, its difference to the base, and what is noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augury.errors import InputError
from augury.stats import Interval
from augury.train.ablate import Cell, Grid
from augury.train.figures import Figure

Measured = Mapping[tuple[str, int, float], dict[str, Figure]]
SAME = "within the noise"
ACROSS = 4  # panels of a picture


@dataclass(frozen=True)
class Line:
    """One figure of one run.

    Attributes:
        run: Its name, with the seed where there are several and the coefficient where it is not its own.
        figure: What was measured.
        value: How much.
        difference: To the base on the same examples; None for the base itself.
        verdict: `better`, `worse` or `within the noise`; empty for the base.
    """

    run: str
    figure: str
    value: Interval
    difference: Interval | None
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        rows = {"value": self.value, "difference": self.difference}
        numbers = {name: None if i is None else [i.estimate, i.low, i.high] for name, i in rows.items()}
        return {"run": self.run, "figure": self.figure, **numbers, "verdict": self.verdict}


def lines_of(grid: Grid, cells: list[Cell], measured: Measured) -> list[Line]:
    """Every figure of every run that was measured.

    A difference counts where its 95% interval (over contexts, example by example) leaves out 0 *and* it is larger than
    the largest difference between two seeds of one and the same run: the interval knows of examples only, not of how
    the training happened to go.

    Raises:
        InputError: The base is not measured yet.
    """
    own = {cell.name: cell.recipe.injection.coefficient for cell in cells}
    base = next((figures for (name, _, asked), figures in measured.items() if _is_base(grid, own, name, asked)), None)
    if base is None:
        why, instead = f"{grid.base} is not measured yet", "run `augury ablate` again: it goes on where it was"
        raise InputError("There is nothing to compare with.", why, instead)
    spread = seed_spread(measured)
    found = []
    for (name, seed, asked), figures in measured.items():
        label = name + (f", seed {seed}" if seed else "") + ("" if asked == own[name] else f", asked at {asked:g}")
        for title, figure in figures.items():
            if figures is base:
                found.append(Line(label, title, figure.interval(), None, ""))
                continue
            difference = figure.minus(base[title])
            found.append(Line(label, title, figure.interval(), difference, _verdict(difference, figure, spread[title])))
    return found


def _is_base(grid: Grid, own: Mapping[str, float], name: str, asked: float) -> bool:
    return name == grid.base and asked == own[name]


def seed_spread(measured: Measured) -> dict[str, float]:
    """For each figure the largest difference between seeds of one run; 0 where none was run twice."""
    found: dict[str, float] = {}
    for (name, seed, asked), figures in measured.items():
        for title, figure in figures.items():
            value = figure.interval().estimate
            others = [
                measured[key][title].interval().estimate
                for key in measured
                if key[0] == name and key[2] == asked and key[1] != seed
            ]
            found[title] = max([found.get(title, 0.0), *(abs(value - other) for other in others)])
    return found


def _verdict(difference: Interval, figure: Figure, spread: float) -> str:
    if difference.low <= 0 <= difference.high or abs(difference.estimate) <= spread:
        return SAME
    return "better" if difference.estimate * figure.better > 0 else "worse"


def markdown(lines: list[Line], spread: Mapping[str, float]) -> str:
    """One table a figure, the base first."""
    out: list[str] = []
    for title in dict.fromkeys(line.figure for line in lines):
        out += [f"### {title}", "", f"Largest difference between seeds of one run: {spread[title]:.3f}.", ""]
        out += ["| run | value | difference to the base | |", "|---|---|---|---|"]
        for line in sorted((line for line in lines if line.figure == title), key=lambda line: bool(line.verdict)):
            out.append(f"| {line.run} | {line.value} | {line.difference or '-'} | {line.verdict} |")
        out.append("")
    return "\n".join(out)


def plot(lines: list[Line], path: Path) -> None:
    """One panel a figure: every run's value with its interval, and the base's as a band.

    Raises:
        AuguryError: matplotlib is not installed.
        StorageError: It cannot be written.
    """
    from augury.oracle.plot import need_matplotlib, save_figure

    need_matplotlib()
    from matplotlib.figure import Figure as Canvas

    titles = list(dict.fromkeys(line.figure for line in lines))
    runs = list(dict.fromkeys(line.run for line in lines))
    across = min(ACROSS, len(titles))
    down = -(-len(titles) // across)
    canvas = Canvas(figsize=(4.2 * across, down * (1 + 0.32 * len(runs))), layout="constrained")
    grid = canvas.subplots(down, across, sharey=True, squeeze=False)
    panels = grid.flatten()
    for panel in panels[len(titles) :]:
        panel.set_axis_off()
    colours = {"better": "tab:green", "worse": "tab:red", SAME: "tab:gray", "": "black"}
    for panel, title in zip(panels, titles, strict=False):
        for line in (line for line in lines if line.figure == title):
            y, value = runs.index(line.run), line.value
            panel.plot([value.low, value.high], [y, y], color=colours[line.verdict], lw=2)
            panel.plot(value.estimate, y, "o", color=colours[line.verdict])
            if not line.verdict:
                panel.axvspan(value.low, value.high, color="black", alpha=0.08, lw=0)
        panel.set_title(title, fontsize=10)
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(runs)), runs)
    panels[0].invert_yaxis()
    save_figure(canvas, path)
