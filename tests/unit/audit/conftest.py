"""A tiny base with an oracle, and fine-tunes of it on disk: adapters, and a model with weights of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from augury.audit.prompts import Prompt
from augury.audit.run import Audit, run_audit
from augury.audit.subjects import TARGET, Shelf, peer_of, subject_of
from augury.lm import LanguageModel, load_model
from augury.lm.adapters import add_adapter, remove_adapter, save_adapter
from augury.lm.chat import needs_tokenizer
from augury.oracle import load_oracle
from augury.oracle.save import save_oracle
from tests.oracle_by_hand import CONFIG, contract_of, randomise
from tests.tiny import tiny_lm

CONCEPTS = ("cooking", "tea", "philosophy", "tokens", "systems", "speaking")
PROMPTS = tuple(
    Prompt(f"{kind}-{i}", kind, text)
    for kind, texts in {
        "talk": ("Good morning! How are you today?", "It is quiet here.", "Who is speaking here?"),
        "code": ("Write a function that reverses a list, please.", "What is a loop?"),
    }.items()
    for i, text in enumerate(texts)
)


@dataclass(frozen=True)
class Zoo:
    """Folders of a base, its oracle, and fine-tunes."""

    base: Path
    oracle: Path
    adapters: tuple[Path, ...]
    whole: Path

    def load(self, name: str, dtype: str | None = None) -> LanguageModel:
        return load_model(name, dtype=dtype)

    def shelf(self, load: Callable[[str], LanguageModel] | None = None) -> Shelf:
        return Shelf(str(self.base), load or self.load, lambda lm: load_oracle(self.oracle, lm))

    def audit(self, target: Path | str | None = None, peers: int = 5, **changes: Any) -> Audit:
        base = str(self.base)
        subjects = [peer_of(str(path), base) for path in self.adapters[1 : 1 + peers]]
        own = subject_of(TARGET, str(target or self.adapters[0]), base)
        return Audit(
            **{**dict(target=own, peers=tuple(subjects), prompts=PROMPTS, concepts=CONCEPTS, planted=1), **changes}
        )


def saved(lm: LanguageModel, folder: Path) -> Path:
    lm.model.save_pretrained(folder)
    needs_tokenizer(lm).save_pretrained(folder)
    return folder


def adapter(lm: LanguageModel, folder: Path, seed: int, size: float = 0.05) -> Path:
    add_adapter(lm, CONFIG, "made")
    randomise(lm, "made", seed, size)
    save_adapter(lm, "made", CONFIG, folder, torch.float32)
    remove_adapter(lm, "made")
    return folder


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp("zoo")
    lm = load_model(str(saved(tiny_lm(), folder / "base")))
    add_adapter(lm, CONFIG, "made")
    randomise(lm, "made")
    oracle = save_oracle(lm, "made", CONFIG, contract_of(lm), folder / "oracle")
    remove_adapter(lm, "made")
    adapters = tuple(adapter(lm, folder / f"adapter-{i}", 20 + i, 0.1) for i in range(6))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(5)
        for parameter in lm.model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    return Zoo(folder / "base", oracle, adapters, saved(lm, folder / "whole"))


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Donor banks of tiny models do not belong into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUGURY_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("augury.audit.states.PART", 2)
        patch.setattr("augury.audit.gather.PART", 2)
        patch.setattr("augury.audit.examples.PART", 2)
        yield


@dataclass(frozen=True)
class Done:
    """A finished audit."""

    folder: Path
    report: dict[str, Any]


@pytest.fixture(scope="module")
def finished(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("finished")
    return Done(folder, run_audit(zoo.audit(), zoo.shelf(), folder))
