"""What a run learns from and is measured on: the data set built, its activations captured or ready to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from augury.activations import resolve_layers
from augury.contract import Contract, Positions
from augury.data.bank import Split
from augury.data.build import SPLITS, Built, build
from augury.data.contexts import BANK, RolloutSettings
from augury.data.example import Context, Example
from augury.data.mix import Order
from augury.data.readers import DATE
from augury.data.sources.custom import CustomSettings
from augury.data.sources.questions import QuestionSettings
from augury.data.store import Table
from augury.lm import LanguageModel, load_model
from augury.train.batching import TrainingData
from augury.train.checks import check_block, check_recipe, check_unloaded
from augury.train.ranks import ALONE, Ranks
from augury.train.reads import LiveReads, Reads, TextReads, cache_reads
from augury.train.recipe import Recipe

DATA, READS = "data", "reads"
Told = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class BankSet:
    """Answers to the prompt bank, about which the closing report asks.

    Attributes:
        rollouts: The contexts of each split.
        reads: Their activations.
        kinds: The yes/no kinds that were trained.
    """

    rollouts: Mapping[Split, Sequence[Context]]
    reads: Mapping[Split, Reads]
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """A run's data, made or found.

    Attributes:
        lm: The target, which the oracle runs on too.
        contract: Of the oracle to come.
        data: What it learns from.
        heldout: Each source's held-out examples.
        contexts: The held-out contexts of each set.
        reads: Their activations.
        bank: What the closing report asks about; None where no set answers the bank's held-out prompts.
        fingerprint: Of the data set.
    """

    lm: LanguageModel
    contract: Contract
    data: TrainingData
    heldout: Mapping[str, Sequence[Example]]
    contexts: Mapping[str, Sequence[Context]]
    reads: Mapping[str, Reads]
    bank: BankSet | None
    fingerprint: str


@dataclass(frozen=True)
class Shared:
    """What the runs of an ablation have in common.

    Attributes:
        folder: Where contexts and activations lie.
        layers: All that any of them reads.
        lm: The target, loaded once.
    """

    folder: Path
    layers: tuple[int, ...]
    lm: LanguageModel


def prepare(
    recipe: Recipe,
    run: Path,
    told: Told,
    ranks: Ranks = ALONE,
    shared: Shared | None = None,
) -> Prepared:
    """Build the data set (or find it) and capture its activations where the recipe says so.

    Args:
        recipe: What to make.
        run: The run's folder.
        told: Called with what is being made, how much of it is there, and of how much.
        ranks: The first process builds; the others find what it has made.
        shared: What lies elsewhere, for several runs.

    Raises:
        ContractError: The model's tokenizer or chat template does not take the recipe's prompt.
        InputError: The recipe does not fit the model, or the folder holds other data.
        FormatError: A file is broken.
        StorageError: The disk is full.
    """
    check_unloaded(recipe, recipe.data or run / DATA)
    lm = shared.lm if shared else load_model(recipe.model)
    contract = contract_of(recipe, lm)
    check_recipe(lm, recipe, contract)
    with ranks.first_alone():
        common = shared.folder if shared else None
        built = build(
            lm, recipe, recipe.data or run / DATA, recipe.drawn, told,
            alone=ranks.first, contexts_in=common / DATA if common else None,
        )  # fmt: skip
        contract = contract.model_copy(update={"positions": _positions(recipe, built)})
        layers = shared.layers if shared else tuple(sorted({k for group in contract.layers or () for k in group}))
        folder = (common or run) / READS
        reads = {key: _reads(lm, recipe, layers, key, table, folder, told) for key, table in built.contexts.items()}
    of = {split: {name: found for (name, own), found in reads.items() if own == split} for split in SPLITS}
    data_of = TrainingData(_split(built.examples, "train"), order_of(recipe, built), of["train"])
    contexts = _split(built.contexts, "heldout")
    bank = _bank(recipe, built, reads)
    return Prepared(
        lm, contract, data_of, _split(built.examples, "heldout"), contexts, of["heldout"], bank, built.fingerprint
    )


def order_of(recipe: Recipe, built: Built) -> Order:
    """Which training examples come when."""
    settings = recipe.optimizer
    units = {name: table.column("unit") for name, table in _tables(built, "train").items()}
    pool = settings.pool * settings.batch_size
    return Order(recipe.stages, units, pool, settings.steps * settings.batch_size, settings.seed)


def _tables(built: Built, split: Split) -> dict[str, Table[Example]]:
    return {name: table for (name, own), table in built.examples.items() if own == split}


def _split(tables: Mapping[tuple[str, Split], Table], split: Split) -> dict[str, Table]:
    return {name: table for (name, own), table in tables.items() if own == split}


def _reads(
    lm: LanguageModel,
    recipe: Recipe,
    layers: Sequence[int],
    key: tuple[str, Split],
    table: Table[Context],
    folder: Path,
    told: Told,
) -> Reads:
    """What a user's file points to is read from there, so such a set is never captured as a whole."""
    name, split = key
    if recipe.reads == "text":
        return TextReads(lm, table)
    if not recipe.cache_activations or isinstance(recipe.sources.get(name), CustomSettings):
        return LiveReads(lm, table, tokens=recipe.optimizer.pass_tokens)
    what = f"activations: {name} ({split})"
    return cache_reads(
        lm, table, layers, folder, f"{name}-{split}", tokens=recipe.optimizer.pass_tokens,
        progress=lambda done, total: told(what, done, total),
    )  # fmt: skip


def _bank(recipe: Recipe, built: Built, reads: Mapping[tuple[str, Split], Reads]) -> BankSet | None:
    """The first set of answers to the bank that has held-out ones."""
    for name, settings in recipe.contexts.items():
        if isinstance(settings, RolloutSettings) and settings.prompts == BANK and settings.heldout:
            asking = [s for s in recipe.sources.values() if isinstance(s, QuestionSettings) and s.contexts == name]
            kinds = sorted({kind for source in asking for kind, weight in source.yes_no.items() if weight})
            rollouts: dict[Split, Sequence[Context]] = {split: built.contexts[name, split] for split in SPLITS}
            return BankSet(rollouts, {split: reads[name, split] for split in SPLITS}, tuple(kinds))
    return None


def contract_of(recipe: Recipe, lm: LanguageModel) -> Contract:
    """The contract of the oracle that a recipe makes for a model.

    Raises:
        InputError: The model has no such layers, or no block to inject at.
    """
    identity = lm.identity
    layers = tuple(resolve_layers(lm.n_layers, list(group)) for group in recipe.layers)
    check_block(recipe, lm.n_layers)
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
        generation={"max_new_tokens": 24},
        chat_template_kwargs={"date_string": DATE},
    )


def _positions(recipe: Recipe, built: Built) -> Positions:
    """How positions were chosen, and the most slots of an example."""
    samplers = {dict(source).get("positions", "contiguous") for source in recipe.sources.values()}
    most = max((table.longest_product("positions", "layers") for table in _tables(built, "train").values()), default=0)
    return Positions(pattern=", ".join(sorted(samplers)), max_slots=most or None)
