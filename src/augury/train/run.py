"""A whole training run in one folder: rollouts, reads, adapter, report, oracle. Every part resumes by itself."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from augury._version import __version__
from augury.activations import resolve_layers
from augury.contract import Contract, Positions, TrainedOn
from augury.data.prompts import make_prompts
from augury.data.rollouts import Rollout, generate_rollouts, read_rollouts
from augury.errors import InputError, StorageError
from augury.lm import LanguageModel, Sampling, load_model
from augury.train.loop import StepReport, train_adapter
from augury.train.reads import Reads, capture_reads
from augury.train.recipe import Recipe

log = logging.getLogger(__name__)
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
        InputError: The folder holds a run already and `resume` is false, or of another recipe.
        StorageError: The folder cannot be written.
    """
    path = run / "recipe.json"
    if path.exists():
        if not resume:
            raise InputError(
                f"{run} holds a run already.", "its recipe.json is there", f"go on with `augury train --resume {run}`"
            )
        kept = Recipe.model_validate_json(path.read_text(encoding="utf-8"))
        if _comparable(kept) != _comparable(recipe):
            raise InputError(
                f"{run} was started with another recipe.",
                "only optimizer.examples, decay, checkpoint_every and autocast may change on a resume",
                "name a new folder with -o",
            )
    _write(path, recipe.model_dump_json(indent=1))


def _comparable(recipe: Recipe) -> dict[str, Any]:
    found = recipe.model_dump(mode="json")
    for name in ("examples", "decay", "checkpoint_every", "autocast"):
        found["optimizer"].pop(name)
    return found


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(
            f"{path} could not be written.", str(error), "free some space, or choose another -o"
        ) from error


def prepare_run(recipe: Recipe, run: Path, progress: Progress) -> Prepared:
    """Make or find the rollouts of both splits and capture their activations."""
    with _one_run(run):
        return _prepare(recipe, run, progress)


def _prepare(recipe: Recipe, run: Path, progress: Progress) -> Prepared:
    settings = recipe.rollouts
    sampling = Sampling(settings.max_new_tokens, settings.temperature, settings.top_p, settings.seed)
    counts = {"heldout": settings.heldout, "train": settings.train}
    paths = {split: run / f"rollouts-{split}.jsonl" for split in counts}
    lm = load_model(recipe.model)
    for split, count in counts.items():
        prompts = make_prompts(count, split, settings.seed)  # type: ignore[arg-type]
        seeded = replace(sampling, seed=settings.seed + (1_000_000 if split == "train" else 0))
        if _rows(paths[split]) < count:
            sampler = lm if settings.dtype == "float32" else load_model(recipe.model, dtype=settings.dtype)
            generate_rollouts(
                sampler, prompts, paths[split], seeded, batch_size=settings.batch_size,
                progress=lambda done, total, split=split: progress.phase(f"rollouts ({split})", done, total),
            )  # fmt: skip
    contract = contract_of(recipe, lm)
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


def _rows(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def contract_of(recipe: Recipe, lm: LanguageModel) -> Contract:
    """The contract of the oracle that a recipe makes for a model."""
    identity = lm.identity
    longest = max(max(stage.mix.max_window, stage.mix.lens_window) for stage in recipe.stages)
    layers = tuple(resolve_layers(lm.n_layers, list(group)) for group in recipe.layers)
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
        positions=Positions(pattern="contiguous", max_slots=longest * max(map(len, layers))),
        generation={"max_new_tokens": 24},
        chat_template_kwargs={"date_string": DATE},
    )


def train_run(recipe: Recipe, run: Path, prepared: Prepared, progress: Progress) -> Contract:
    """Train, or go on training; returns the contract with what it was trained on."""
    lm = prepared.lm
    with _one_run(run):
        steps = train_adapter(
            lm, prepared.contract, recipe, prepared.rollouts["train"], prepared.reads["train"], run,
            on_step=progress.step, stop=progress.stop,
        )  # fmt: skip
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    trained = TrainedOn(
        recipe=recipe.name,
        data_fingerprint=fingerprint(recipe, run),
        tokens=sum(row["tokens"] for row in metrics),
        examples=sum(row["examples"] for row in metrics),
        steps=steps,
        seconds=round(sum(row["seconds"] for row in metrics)),
        hardware=_hardware(lm),
        seed=recipe.optimizer.seed,
    )
    packages = {name: version(name) for name in ("torch", "transformers", "peft")}
    return prepared.contract.model_copy(
        update={
            "trained_on": trained,
            "versions": {"augury": __version__, **packages},
            "git_commit": _commit(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )


def fingerprint(recipe: Recipe, run: Path) -> str:
    """SHA-256 over the recipe's data settings and the rollouts' bytes."""
    digest = hashlib.sha256(recipe.rollouts.model_dump_json().encode())
    for split in ("heldout", "train"):
        digest.update((run / f"rollouts-{split}.jsonl").read_bytes())
    return digest.hexdigest()


@contextmanager
def _one_run(run: Path) -> Iterator[None]:
    """Only one process works in a run's folder; the lock goes with the process, however it ends."""
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{run} is being worked on already.", "another process holds its lock", "wait for it, or choose another -o"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _commit() -> str | None:
    """The commit of this package's source, where it runs from a checkout."""
    here = Path(__file__)
    try:
        subprocess.run(
            ["git", "ls-files", "--error-unmatch", here.name], cwd=here.parent, check=True, capture_output=True
        )
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here.parent, check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _hardware(lm: LanguageModel) -> str:
    if lm.device.type == "cuda":
        return torch.cuda.get_device_name(lm.device)
    return f"{lm.device.type}, {torch.get_num_threads()} threads ({platform.machine()})"
