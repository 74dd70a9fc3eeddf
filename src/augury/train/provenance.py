"""What a run was made with: the model of its data, seeds, versions, commit, machine, and the steps so far."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from augury.activations.versions import versions
from augury.contract import Contract, TrainedOn
from augury.data.bank import topics_of
from augury.data.contexts import BANK, RolloutSettings, TextSettings
from augury.data.sources.base import SourceSettings
from augury.files import write_text
from augury.lm import LanguageModel
from augury.train.metrics import StepReport
from augury.train.recipe import Recipe
from augury.train.start import begun_with


def write_environment(run: Path, recipe: Recipe, lm: LanguageModel) -> None:
    """`env.json` of a run: the model, seeds, versions, commit and machine that it goes on with, and when.

    Raises:
        StorageError: It cannot be written.
    """
    found = {
        "model": lm.identity.model_dump(mode="json"),
        "seeds": {"data": recipe.data_seed, "training": recipe.optimizer.seed},
        "python": platform.python_version(),
        "versions": versions(),
        "git_commit": commit(),
        "hardware": _hardware(lm),
        "threads": torch.get_num_threads(),
        "processes": recipe.optimizer.processes,
        "started": _now(),
    }
    write_text(run / "env.json", json.dumps(found, indent=1) + "\n")


def described(contract: Contract, recipe: Recipe, lm: LanguageModel, data_fingerprint: str) -> Contract:
    """The contract with what training starts from."""
    trained = TrainedOn(
        recipe=recipe.name,
        data=_data(recipe),
        data_fingerprint=data_fingerprint,
        hardware=_of_all(_hardware(lm), recipe.optimizer.processes),
        seed=recipe.optimizer.seed,
    )
    return contract.model_copy(update={"trained_on": trained, "versions": versions(), "git_commit": commit()})


def _data(recipe: Recipe) -> str:
    """The data in a sentence, for the card."""
    sets = [_set(settings) for settings in recipe.contexts.values()]
    sets += [_own(source) for source in recipe.sources.values() if not source.contexts]
    drawn = recipe.drawn
    shares = [
        f"{name.replace('_', ' ')} {100 * count / sum(drawn.values()):.0f}%" for name, count in drawn.items() if count
    ]
    begun = [begun_with(recipe.init_from)] if recipe.init_from else []
    return f"{'; '.join([*begun, *sets])}; questions: {', '.join(shares)}"


def _set(settings: RolloutSettings | TextSettings) -> str:
    if isinstance(settings, TextSettings):
        return f"texts of {settings.path.name}"
    sampling = (
        f"at most {settings.max_new_tokens} tokens, temperature {settings.temperature:g}, top-p {settings.top_p:g}"
    )
    prompts = Path(settings.prompts).name
    if settings.prompts == BANK:
        prompts = f"requests made from templates and {len(topics_of('train'))} topics"
    return f"{settings.train:,} answers of the base itself ({sampling}) to {prompts}"


def _own(source: SourceSettings) -> str:
    path = dict(source).get("path")
    return f"rows of {Path(path).name}" if path else "rows of its own"


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


def _of_all(hardware: str, processes: int) -> str:
    return hardware if processes == 1 else f"{processes} processes, each on {hardware}"


def _hardware(lm: LanguageModel) -> str:
    if lm.device.type == "cuda":
        return torch.cuda.get_device_name(lm.device)
    threads = torch.get_num_threads()
    return f"{lm.device.type}, {threads} thread{'s' if threads > 1 else ''} ({platform.machine()})"
