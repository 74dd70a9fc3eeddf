"""What each part of a recipe buys: runs that differ in one thing, on one data set, at one budget."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from augury.activations import resolve_layers
from augury.data.recipe import check_files, explained
from augury.data.sources.base import Settings, nearest
from augury.errors import FormatError, InputError, NotFoundError
from augury.files import write_text
from augury.lm import LanguageModel, load_model
from augury.lm.adapters import adapter_parameters, remove_adapter
from augury.train.figures import Figure, FigureSize, from_json, measure, to_json
from augury.train.loop import ADAPTER
from augury.train.prepare import Prepared, Shared, prepare
from augury.train.recipe import Recipe, laid_over, read_recipe
from augury.train.run import Progress, start_run, train_run

FIGURES = "figures.json"
Sets = dict[str, Any]


class Variant(Settings):
    """One run of a grid.

    Attributes:
        set: What differs from the base recipe, by the path of its field (`injection.coefficient: 1`).
        ask: Injection coefficients that it is asked at; empty: its own.
        seeds: Of the training; one run each.
    """

    set: Sets = Field(default_factory=dict)
    ask: tuple[float, ...] = ()
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)


class Grid(Settings):
    """An ablation.

    Attributes:
        recipe: The recipe that all runs begin with, as a path beside the grid's file.
        base: The run that the others are compared with.
        runs: What is tried, by name.
        size: How many examples each figure asks.
    """

    recipe: Path
    base: str
    runs: dict[str, Variant] = Field(min_length=2)
    size: FigureSize = FigureSize()

    @field_validator("runs")
    @classmethod
    def _names(cls, value: dict[str, Variant]) -> dict[str, Variant]:
        for name in value:
            if not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"the name {name!r} is a folder's: use letters, digits, - and _")
        return value

    @model_validator(mode="after")
    def _base_is_there(self) -> Grid:
        if self.base not in self.runs:
            raise ValueError(f"base: there is no run {self.base!r}{nearest(self.base, self.runs)}")
        return self


@dataclass(frozen=True)
class Cell:
    """One training run of a grid.

    Attributes:
        name: The variant's.
        seed: Of the training.
        recipe: All of it.
        ask: Coefficients that it is asked at.
    """

    name: str
    seed: int
    recipe: Recipe
    ask: tuple[float, ...]

    @property
    def folder(self) -> str:
        """Where it lies among the grid's runs."""
        return f"{self.name}-{self.seed}"


def read_grid(path: Path) -> Grid:
    """A grid from a YAML file.

    Raises:
        NotFoundError: No such file.
        FormatError: No YAML, or no grid; the message names each field.
    """
    if not path.is_file():
        raise NotFoundError(f"There is no grid {path}.", "the file does not exist", "see recipes/ablations/grid.yaml")
    try:
        found = Grid.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is no YAML.", " ".join(str(error).split()), "mend the file") from error
    except ValidationError as error:
        raise explained(error, str(path)) from error
    return found.model_copy(update={"recipe": path.parent / found.recipe})


def cells_of(grid: Grid, settings: Sequence[str] = ()) -> list[Cell]:
    """Every run of the grid, its recipe checked, before any of them begins.

    Args:
        grid: What is tried.
        settings: `a.b=c`, laid over the recipe of all runs.

    Raises:
        FormatError: A variant sets what there is not.
        NotFoundError: The recipe, or a file that it reads, is not there.
    """
    base = read_recipe(grid.recipe, list(settings))
    found = []
    for name, variant in grid.runs.items():
        for seed in variant.seeds:
            recipe = laid_over(base, {**variant.set, "optimizer.seed": seed}, f"run {name} of the grid")
            check_files(recipe)
            found.append(Cell(name, seed, recipe, variant.ask or (recipe.injection.coefficient,)))
    _check_cells(grid, found)
    return found


def _check_cells(grid: Grid, cells: Sequence[Cell]) -> None:
    models = sorted({cell.recipe.model for cell in cells})
    if len(models) > 1:
        why = f"its runs name {', '.join(models)}"
        raise FormatError("The grid has several models.", why, "write a grid for each: data and examples are shared")
    base = next(cell for cell in cells if cell.name == grid.base)
    if base.recipe.injection.coefficient not in base.ask:
        why = f"it is asked at {', '.join(f'{c:g}' for c in base.ask)} and trained at "
        why += f"{base.recipe.injection.coefficient:g}"
        raise FormatError(f"There is nothing to compare with {grid.base}.", why, "add its own coefficient to its `ask`")


def run_grid(
    grid: Grid,
    cells: list[Cell],
    out: Path,
    progress: Callable[[Cell], Progress],
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train and measure every cell that is not measured yet; each resumes by itself.

    Contexts and activations are shared, at all layers that any run reads.

    Args:
        grid: What is tried.
        cells: Its runs.
        out: Where the data and the runs go.
        progress: What each run tells.
        stop: Asked between runs and after every step.

    Returns:
        Whether all of it is measured.
    """
    lm = load_model(cells[0].recipe.model)
    layers = {layer for c in cells for group in c.recipe.layers for layer in resolve_layers(lm.n_layers, list(group))}
    shared = Shared(out, tuple(sorted(layers)), lm)
    for cell in cells:
        run = out / "runs" / cell.folder
        if not _is_measured(grid, cell, run) and not _run_cell(grid, cell, run, shared, progress(cell)):
            return False
        if stop():
            break
    return all((out / "runs" / cell.folder / FIGURES).exists() for cell in cells)


def _is_measured(grid: Grid, cell: Cell, run: Path) -> bool:
    """Whether the run's figures are there; other ones than the grid asks for are refused, not shown as these."""
    path = run / FIGURES
    if not path.exists():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))["of"]
    wanted = _asked(grid, cell)
    if found != wanted:
        raise InputError(
            f"{run} holds the figures of another run.",
            f"they differ in {', '.join(name for name in wanted if found.get(name) != wanted[name])} from the grid",
            "name a new folder with -o, or remove this one",
        )
    return True


def _asked(grid: Grid, cell: Cell) -> dict[str, Any]:
    """What a run's figures follow from, JSON-ready."""
    made = {"recipe": cell.recipe.model_dump(mode="json"), "ask": list(cell.ask), "size": asdict(grid.size)}
    return json.loads(json.dumps(made))


def _run_cell(grid: Grid, cell: Cell, run: Path, shared: Shared, progress: Progress) -> bool:
    """Train one cell and measure it at each coefficient; False where it was stopped before its end."""
    recipe, lm = cell.recipe, shared.lm
    start_run(recipe, run, resume=(run / "config.yaml").exists())
    prepared = prepare(recipe, run, progress.phase, shared=shared)
    try:
        contract = train_run(recipe, run, prepared, progress)
        if contract.trained_on is None or contract.trained_on.steps != recipe.optimizer.steps:
            return False
        found = {f"{asked:g}": to_json(_figures(grid, prepared, lm, asked)) for asked in cell.ask}
        write_text(run / FIGURES, json.dumps({"of": _asked(grid, cell), "asked": found}) + "\n")
    finally:
        if adapter_parameters(lm.model, ADAPTER):
            remove_adapter(lm, ADAPTER)
    return True


def _figures(grid: Grid, prepared: Prepared, lm: LanguageModel, asked: float) -> dict[str, Figure]:
    injection = prepared.contract.injection.model_copy(update={"coefficient": asked})
    return measure(prepared, prepared.contract.model_copy(update={"injection": injection}), ADAPTER, grid.size)


def read_figures(cells: list[Cell], out: Path) -> Mapping[tuple[str, int, float], dict[str, Figure]]:
    """What was measured so far, by run, seed and coefficient."""
    found = {}
    for cell in cells:
        path = out / "runs" / cell.folder / FIGURES
        if path.exists():
            for asked, rows in json.loads(path.read_text(encoding="utf-8"))["asked"].items():
                found[cell.name, cell.seed, float(asked)] = from_json(rows)
    return found
