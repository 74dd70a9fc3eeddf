"""A whole training run in one folder: rollouts, reads, adapter, report, oracle. Every part resumes by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from augury.activations import resolve_layers
from augury.contract import Contract, Positions
from augury.data.prompts import make_prompts
from augury.data.rollouts import Rollout, generate_rollouts, read_rollouts
from augury.errors import AuguryError, InputError, NotFoundError
from augury.files import locked, write_text
from augury.lm import LanguageModel, Sampling, load_model
from augury.lm.pretrained import parse_dtype
from augury.train.checks import check_recipe
from augury.train.loop import train_adapter
from augury.train.metrics import StepReport, read_metrics
from augury.train.provenance import claim_data, counted, described, fingerprint, seal_data
from augury.train.question_report import BINARY
from augury.train.reads import Reads, capture_reads
from augury.train.recipe import Recipe, read_recipe

DATE = "01 Jan 2026"  # for templates that print the day: one and the same in training and ever after


@dataclass(frozen=True)
class Progress:
    """Where a run tells how far it is: (phase, done, total), and every training step."""

    phase: Callable[[str, int, int], None] = lambda phase, done, total: None
    step: Callable[[StepReport], None] = lambda report: None
    stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Prepared:
    """A run's data, made or found."""

    lm: LanguageModel
    contract: Contract
    rollouts: dict[str, list[Rollout]]
    reads: dict[str, Reads]
    kinds: tuple[tuple[str, ...], ...]  # the yes/no kinds of each stage


def start_run(recipe: Recipe, run: Path, resume: bool = False) -> None:
    """Claim the folder of a run: its recipe is kept there and may not change on a resume, but for the total.

    Raises:
        AuguryError: The closing report needs scikit-learn, which is not installed.
        InputError: The folder holds a run already and `resume` is false, or of another recipe, or it is worked on.
        NotFoundError: There is no run to resume.
        StorageError: The folder cannot be written.
    """
    _check_probe(recipe)
    path = run / "recipe.json"
    if resume and not path.is_file():
        raise NotFoundError(f"There is no run in {run}.", "it holds no recipe.json", "start one with -o")
    with one_run(run):
        if path.exists():
            _check_same(recipe, run, path, resume)
        write_text(path, recipe.model_dump_json(indent=1))


def _check_same(recipe: Recipe, run: Path, path: Path, resume: bool) -> None:
    if not resume:
        raise InputError(
            f"{run} holds a run already.", "its recipe.json is there", f"go on with `augury train --resume {run}`"
        )
    if _comparable(read_recipe(path)) != _comparable(recipe):
        raise InputError(
            f"{run} was started with another recipe.",
            "only optimizer.examples, decay, checkpoint_every and autocast may change on a resume",
            "name a new folder with -o",
        )


def _check_probe(recipe: Recipe) -> None:
    """The report stands at the end: what it lacks is told before hours of training."""
    binary = sorted({kind for stage in recipe.stages for kind in stage.mix.yes_no} & BINARY.keys())
    if binary and find_spec("sklearn") is None:
        raise AuguryError(
            "The closing report cannot be made.",
            f"the linear probe beside {', '.join(binary)} needs scikit-learn, which is not installed",
            "pip install 'augury[train]', or take these kinds out of yes_no in the recipe",
        )


def _comparable(recipe: Recipe) -> dict[str, Any]:
    found = recipe.model_dump(mode="json")
    for name in ("examples", "decay", "checkpoint_every", "autocast"):
        found["optimizer"].pop(name)
    return found


def prepare_run(recipe: Recipe, run: Path, progress: Progress) -> Prepared:
    """Make or find the rollouts of both splits and capture their activations.

    Raises:
        ContractError: The model's tokenizer or chat template does not take the recipe's prompt.
        InputError: The recipe does not fit the model, or the folder's data comes from another.
        FormatError: A file of the run is broken.
        StorageError: The disk is full.
    """
    with one_run(run):
        return _prepare(recipe, run, progress)


def _prepare(recipe: Recipe, run: Path, progress: Progress) -> Prepared:
    settings = recipe.rollouts
    sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, settings.seed)
    counts = {"heldout": settings.heldout, "train": settings.train}
    paths = {split: run / f"rollouts-{split}.jsonl" for split in counts}
    lm = load_model(recipe.model)
    contract = contract_of(recipe, lm)
    check_recipe(lm, recipe, contract)
    data = claim_data(recipe, run, lm)
    sampler = None
    for split, count in counts.items():
        prompts = make_prompts(count, split, settings.seed)  # type: ignore[arg-type]
        seeded = replace(sampling, seed=settings.seed + (1_000_000 if split == "train" else 0))
        if _rows(paths[split]) < count:
            sampler = sampler or _sampler(recipe, lm)
            generate_rollouts(
                sampler, prompts, paths[split], seeded, batch_size=settings.batch_size,
                progress=lambda done, total, split=split: progress.phase(f"rollouts ({split})", done, total),
            )  # fmt: skip
    del sampler  # a second model's memory, where there was one
    seal_data(recipe, run, data)
    layers = sorted({layer for layers in contract.layers or () for layer in layers})
    rollouts = {split: list(read_rollouts(path))[: counts[split]] for split, path in paths.items()}
    reads = {
        split: capture_reads(
            lm, rollouts[split], layers, run / "reads",
            progress=lambda done, total, split=split: progress.phase(f"activations ({split})", done, total),
        )
        for split in counts
    }  # fmt: skip
    kinds = tuple(tuple(stage.mix.yes_no) for stage in recipe.stages)
    return Prepared(lm, contract, rollouts, reads, kinds)


def _sampler(recipe: Recipe, lm: LanguageModel) -> LanguageModel:
    """The target in the dtype that the recipe samples in: a GPU loads it as bfloat16 where nothing is said."""
    dtype = recipe.rollouts.dtype
    return lm if lm.dtype == parse_dtype(dtype) else load_model(recipe.model, dtype=dtype)


def _rows(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def contract_of(recipe: Recipe, lm: LanguageModel) -> Contract:
    """The contract of the oracle that a recipe makes for a model.

    Raises:
        InputError: The model has no such layers, or no block to inject at.
    """
    identity = lm.identity
    layers = tuple(resolve_layers(lm.n_layers, list(group)) for group in recipe.layers)
    _check_block(recipe, lm)
    return Contract(
        base_model=identity.name,
        revision=identity.revision,
        d_model=identity.d_model,
        n_layers=identity.n_layers,
        tokenizer_hash=identity.tokenizer_hash,
        weights_fingerprint=identity.weights_fingerprint,
        chat_template_hash=identity.chat_template_hash,
        layers=layers,
        injection=recipe.injection,
        prompt=recipe.prompt,
        positions=Positions(pattern="contiguous", max_slots=recipe.longest_window * max(map(len, layers))),
        generation={"max_new_tokens": 24},
        chat_template_kwargs={"date_string": DATE},
    )


def _check_block(recipe: Recipe, lm: LanguageModel) -> None:
    block = recipe.injection.block or 0
    if block >= lm.n_layers:
        raise InputError(
            f"The recipe injects at block {block}, which {lm.name} does not have.",
            f"its blocks run from 0 to {lm.n_layers - 1}",
            "set injection.block to an early one; 1 is usual",
        )


def train_run(recipe: Recipe, run: Path, prepared: Prepared, progress: Progress) -> Contract:
    """Train, or go on training; returns the contract with what it was trained on."""
    lm = prepared.lm
    with one_run(run):
        contract = described(prepared.contract, recipe, lm, fingerprint(recipe, run))
        train_adapter(
            lm, contract, recipe, prepared.rollouts["train"], prepared.reads["train"], run,
            on_step=progress.step, stop=progress.stop,
        )  # fmt: skip
        return counted(contract, read_metrics(run))


@contextmanager
def one_run(run: Path) -> Iterator[None]:
    """Only one process works in a run's folder; what holds the lock may take it again.

    Raises:
        InputError: Another process works there.
        StorageError: The folder cannot be written.
    """
    why = "another process holds its lock"
    busy = InputError(f"{run} is being worked on already.", why, "wait for it, or choose another -o")
    with locked(run.resolve() / ".lock", busy):
        yield
