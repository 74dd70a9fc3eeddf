"""A tiny model, a random oracle on it, and small runs of the bench."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from augury.bench.profile import Profile
from augury.bench.run import Bench, run_bench
from augury.bench.summary import Summary
from augury.lm import LanguageModel
from augury.lm.adapters import add_adapter
from augury.oracle import Oracle, load_oracle
from augury.oracle.save import save_oracle
from tests.oracle_by_hand import CONFIG, contract_of, randomise
from tests.tiny import tiny_lm

SMALL = Profile("small", None, 24, 2, sweep=True, made=24)
MEASURABLE = (
    "planted", "same_window", "missing_info", "classification", "classification_new", "past_lens", "future_lens"
)  # fmt: skip


@pytest.fixture(scope="session")
def lm() -> LanguageModel:
    return tiny_lm()


@pytest.fixture(scope="session")
def oracle(lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    made = tiny_lm()
    add_adapter(made, CONFIG, "made")
    randomise(made, "made")
    folder = save_oracle(made, "made", CONFIG, contract_of(made), tmp_path_factory.mktemp("oracle") / "o")
    with load_oracle(folder, lm) as loaded:
        yield loaded


Runs = Callable[..., Summary]


@pytest.fixture
def run(oracle: Oracle, tmp_path: Path) -> Runs:
    """Run the small bench in a folder."""

    def of(*tasks: str, out: Path = tmp_path / "run", profile: Profile = SMALL, **settings) -> Summary:
        return run_bench(oracle, Bench(profile, tasks or MEASURABLE), out, **settings)

    return of
