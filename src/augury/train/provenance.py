"""What a run was made with: the model of its data, seeds, versions, commit, machine, and the steps so far."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from augury.activations.versions import versions
from augury.contract import Contract, ModelIdentity, TrainedOn
from augury.data.bank import topics_of
from augury.errors import FormatError, InputError
from augury.files import write_text
from augury.lm import LanguageModel
from augury.train.metrics import StepReport
from augury.train.recipe import Recipe

_SAME = ("d_model", "n_layers", "tokenizer_hash", "weights_fingerprint", "chat_template_hash")


class RunData(BaseModel):
    """`data.json`: what the rollouts, activations, metrics and curve of a run's folder come from.

    Attributes:
        model: The target, with its revision and the hashes of its weights, tokenizer and chat template.
        seeds: Of the prompts and rollouts, and of the training.
        versions: Package versions when the data was begun.
        git_commit: Commit of the code then.
        created: When that was (ISO 8601).
        data_fingerprint: SHA-256 over the data settings and the rollouts; None until all of them are there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelIdentity
    seeds: dict[str, int]
    versions: dict[str, str]
    git_commit: str | None
    created: str
    data_fingerprint: str | None = None


def claim_data(recipe: Recipe, run: Path, lm: LanguageModel) -> RunData:
    """The run's `data.json`, written where there is none yet.

    Raises:
        InputError: The run's data comes from another model than `lm`.
        FormatError: The file is there and cannot be read.
        StorageError: It cannot be written.
    """
    kept = _kept(run / "data.json")
    if kept is None:
        seeds = {"rollouts": recipe.rollouts.seed, "training": recipe.optimizer.seed}
        kept = RunData(model=lm.identity, seeds=seeds, versions=versions(), git_commit=commit(), created=_now())
        _write(run, kept)
    others = [name for name in _SAME if getattr(kept.model, name) != getattr(lm.identity, name)]
    if others:
        raise InputError(
            f"The data in {run} comes from another model than {lm.name}.",
            f"it differs in {', '.join(others)} from what data.json names",
            "load the model that the run was begun with, or name a new folder with -o",
        )
    return kept


def seal_data(recipe: Recipe, run: Path, data: RunData) -> RunData:
    """The same with the fingerprint of the rollouts that are now all there."""
    sealed = data.model_copy(update={"data_fingerprint": fingerprint(recipe, run)})
    if sealed != data:
        _write(run, sealed)
    return sealed


def _write(run: Path, data: RunData) -> None:
    write_text(run / "data.json", data.model_dump_json(indent=1) + "\n")


def _kept(path: Path) -> RunData | None:
    if not path.exists():
        return None
    try:
        return RunData.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        why = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise FormatError(f"{path} cannot be read.", why, "restore the file, or name a new folder with -o") from error


def fingerprint(recipe: Recipe, run: Path) -> str:
    """SHA-256 over the recipe's data settings and the rollouts' bytes."""
    digest = hashlib.sha256(recipe.rollouts.model_dump_json().encode())
    for split in ("heldout", "train"):
        digest.update((run / f"rollouts-{split}.jsonl").read_bytes())
    return digest.hexdigest()


def described(contract: Contract, recipe: Recipe, lm: LanguageModel, data_fingerprint: str) -> Contract:
    """The contract with what training starts from."""
    trained = TrainedOn(
        recipe=recipe.name,
        data=_data(recipe),
        data_fingerprint=data_fingerprint,
        hardware=_hardware(lm),
        seed=recipe.optimizer.seed,
    )
    return contract.model_copy(update={"trained_on": trained, "versions": versions(), "git_commit": commit()})


def _data(recipe: Recipe) -> str:
    """The data in a sentence, for the card."""
    made, tasks = recipe.rollouts, sorted({t for stage in recipe.stages for t, w in stage.mix.weights.items() if w})
    sampling = f"at most {made.max_new_tokens} tokens, temperature {made.temperature:g}, top-p {made.top_p:g}"
    return (
        f"{made.train:,} rollouts of the base itself ({sampling}) to requests made from templates and "
        f"{len(topics_of('train'))} topics; tasks: {', '.join(tasks).replace('_', ' ')}; answers from the request's "
        "labels and the rollout's tokens"
    )


def counted(contract: Contract, steps: Sequence[StepReport]) -> Contract:
    """The contract with the steps that were done so far."""
    done = {
        "tokens": sum(step.tokens for step in steps),
        "examples": sum(step.examples for step in steps),
        "steps": steps[-1].step if steps else 0,
        "seconds": round(sum(step.seconds for step in steps)),
    }
    trained = (contract.trained_on or TrainedOn()).model_copy(update=done)
    return contract.model_copy(update={"trained_on": trained, "created": _now()})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit() -> str | None:
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
