"""Whether an oracle is whole and reads activations, and which contract fits one that comes without."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from augury.contract import (
    SCHEMA_VERSION,
    Contract,
    Injection,
    PromptFormat,
    check_runs_on,
    percent_to_layer,
    read_contract,
)
from augury.contract.contract import Layout
from augury.contract.formats import AO_CONFIG_FILE, ORACLE_FILE
from augury.errors import ContractError
from augury.lm import LanguageModel
from augury.lm.adapters import load_adapter, moves_logits, remove_adapter
from augury.lm.chat import needs_tokenizer
from augury.oracle.doctor import Check, timed
from augury.oracle.doctor_lens import LensLosses, LensText, Losses, lens_losses, lens_texts, text_vectors
from augury.oracle.doctor_model import Verdict
from augury.oracle.hub import find_oracle, repository_name
from augury.oracle.load import new_adapter_name

PERCENTS: tuple[tuple[int, ...], ...] = ((25,), (50,), (62,), (75,), (25, 50, 75))
SCREENED = 5  # texts on which every candidate is tried
KEPT = 4  # candidates that are tried on all texts

Told = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class _Trial:
    """The oracle's adapter on the model, and whom to tell how far the work is."""

    lm: LanguageModel
    adapter: str
    tell: Told


@dataclass(frozen=True)
class Candidate:
    """A contract that an adapter without one may have been trained with, and how it reads under it."""

    contract: Contract
    losses: LensLosses

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.contract.layers or ((),))[0]

    def to_dict(self) -> dict[str, Any]:
        injection = self.contract.injection
        return {
            "operation": injection.operation,
            "block": injection.block,
            "layout": self.contract.prompt.layout,
            "layers": list(self.layers),
            "texts": self.losses.texts,
            "past": self.losses.past.to_dict(),
            "future": self.losses.future.to_dict(),
            "reads": self.losses.reads,
        }


@dataclass(frozen=True)
class OracleReport:
    """What was found out about an oracle.

    Attributes:
        checks: What was tried.
        candidates: For an adapter without a contract, or with one whose operation is a guess: every contract tried,
            the best first.
        offered: The best of them where it reads activations and is not the adapter's own; to be saved as `oracle.json`.
    """

    checks: tuple[Check, ...]
    candidates: tuple[Candidate, ...] = ()
    offered: Contract | None = None

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "checks": [check.to_dict() for check in self.checks],
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "offered": None if self.offered is None else _as_file(self.offered),
        }


def _as_file(contract: Contract) -> dict[str, Any]:
    """What may be saved as `oracle.json` as it is: only what is stated, and the schema's version."""
    return {"schema_version": SCHEMA_VERSION, **contract.model_dump(mode="json", exclude_unset=True)}


def check_oracle(lm: LanguageModel, source: str | Path, progress: Told | None = None) -> OracleReport:
    """Check an oracle on the model it is to run on; the adapter is taken off again.

    Args:
        lm: The model, with its tokenizer.
        source: The oracle: an alias, a folder or a hub id.
        progress: Called with (what, done, total).

    Raises:
        NotFoundError: There is no such oracle.
        FormatError: Its contract is there and cannot be read.
        InputError: The model has no tokenizer.
    """
    needs_tokenizer(lm)
    folder = oracle_folder(source)
    contract, unknown = _contract(folder, source, lm.n_layers)
    trial = _Trial(lm, new_adapter_name(lm), progress or (lambda what, done, total: None))
    try:
        tensors = timed("tensors", lambda: _load(trial, folder))
        if not tensors.ok:
            return OracleReport((tensors,))
        stated = [] if contract is None else [contract]
        if contract is not None and _operation_guessed(folder, contract):
            stated.append(_other_operation(contract))
        if contract is None or contract.layers is None:
            return _try_candidates(trial, stated, tensors, unknown or "its contract does not state the layers")
        runs = timed("contract", lambda: _runs_on(contract, lm))
        report = OracleReport((tensors, runs, *_lens_checks(trial, contract)))
        return report if len(stated) == 1 else _with_operations(trial, stated, report)
    finally:
        remove_adapter(lm, trial.adapter)


def oracle_folder(source: str | Path) -> Path:
    """Where an oracle's files lie."""
    return find_oracle(source)


def _contract(folder: Path, source: str | Path, n_layers: int) -> tuple[Contract | None, str]:
    """The oracle's contract, or None and why there is none."""
    try:
        return read_contract(folder, repository=repository_name(source), n_layers=n_layers), ""
    except ContractError as error:
        return None, error.why


def _operation_guessed(folder: Path, contract: Contract) -> bool:
    """Whether the operation was told from a date: `ao_config.json` never states it, and otherwise it adds."""
    sidecar = (folder / AO_CONFIG_FILE).is_file() and not (folder / ORACLE_FILE).is_file()
    return sidecar and contract.injection.operation == "replace"


def _other_operation(contract: Contract) -> Contract:
    """The same contract with the operation that was not guessed."""
    added = contract.injection.model_copy(update={"operation": "add"})
    return contract.model_copy(update={"injection": added})


def _with_operations(trial: _Trial, stated: Sequence[Contract], report: OracleReport) -> OracleReport:
    """The report with both operations compared, and the other one offered where the guess was wrong."""
    ranked: list[Candidate] = []

    def compare() -> Verdict:
        texts, layers = lens_texts(trial.lm, stated[0]), (stated[0].layers or ((),))[0]
        ranked.extend(_ranked(trial, stated, texts, {layers: text_vectors(trial.lm, texts, layers)}))
        return _compared(ranked, stated[0].injection.operation)

    check = timed("operation", compare)
    offered = ranked[0].contract if ranked and ranked[0].losses.reads and not check.ok else None
    return OracleReport((*report.checks, check), tuple(ranked), offered)


def _compared(ranked: Sequence[Candidate], guess: str) -> Verdict:
    right = ranked[0].contract.injection.operation == guess
    losses = ", ".join(f"{found.contract.injection.operation} {found.losses.real:.2f}" for found in ranked)
    told = "has the least loss" if right else "has more loss: the other one is likelier"
    return right, f"'{guess}' is taken from the date in {AO_CONFIG_FILE}, and {told} (nats per token: {losses})"


def _load(trial: _Trial, folder: Path) -> Verdict:
    """All tensors land in modules, all adapted modules are filled, and the result is not the base."""
    report = load_adapter(trial.lm, folder, trial.adapter)
    mapped = f", keys mapped over '{report.renamed}'" if report.renamed else ""
    said = f"all {report.tensors} tensors in place, in {report.modules} modules{mapped}"
    if moves_logits(trial.lm, [trial.adapter], []):
        return True, said
    return False, f"{said}, but the logits are the base's: this adapter changes nothing"


def _runs_on(contract: Contract, lm: LanguageModel) -> Verdict:
    notes = check_runs_on(contract, lm.identity)
    return True, "; ".join([f"runs on {contract.base_model or 'a base that is not named'}", *notes])


def _lens_checks(trial: _Trial, contract: Contract) -> list[Check]:
    """The lens in both directions, for every trained layer tuple."""
    checks: list[Check] = []
    tuples = contract.layers or ()
    for number, layers in enumerate(tuples):
        trial.tell("lens", number, len(tuples))
        checks += _lens_at(trial, contract, layers, f" at layers {list(layers)}" if len(tuples) > 1 else "")
    return checks


def _lens_at(trial: _Trial, contract: Contract, layers: tuple[int, ...], where: str) -> list[Check]:
    found: list[LensLosses] = []

    def measure() -> Verdict:
        texts = lens_texts(trial.lm, contract)
        vectors = text_vectors(trial.lm, texts, layers)
        found.append(lens_losses(trial.lm, contract, trial.adapter, layers, texts, vectors)[0])
        return True, ""

    both = timed(f"lens{where}", measure)
    if not both.ok:
        return [both]
    directions = (("past lens", found[0].past), ("future lens", found[0].future))
    return [Check(name + where, x.reads, _said(x, found[0].texts), both.seconds / 2) for name, x in directions]


def _said(losses: Losses, texts: int) -> str:
    values = f"real {losses.real:.2f}, shuffled {losses.shuffled:.2f}, none {losses.none:.2f}"
    saved = f"real saves {losses.reference - losses.real:.2f} ± {losses.error:.2f}"
    verdict = "" if losses.reads else ", which may be luck: this oracle does not read activations"
    return f"{values} nats per token on {texts} texts; {saved}{verdict}"


def _try_candidates(trial: _Trial, stated: Sequence[Contract], tensors: Check, why: str) -> OracleReport:
    """The candidates, or only a failed check where the model cannot be asked, for want of a template for example."""
    found: list[Candidate] = []

    def rank() -> Verdict:
        found.extend(_best_first(trial, stated))
        told = "the best one is offered, state it as oracle.json"
        told = told if found[0].losses.reads else "under none of them activations are read"
        return False, f"none: {why}. {len(found)} candidates were tried; {told}"

    check = timed("contract", rank)
    if not found:
        check = replace(check, detail=f"none: {why}. Candidates cannot be tried: {check.detail}")
    offered = found[0].contract if found and found[0].losses.reads else None
    return OracleReport((tensors, check), tuple(found), offered)


def _best_first(trial: _Trial, stated: Sequence[Contract]) -> list[Candidate]:
    """Every usual contract, tried on a few texts, and the best of them on all."""
    contracts = candidate_contracts(trial.lm, stated)
    texts = lens_texts(trial.lm, stated[0] if stated else None)
    sets = list(dict.fromkeys(layers for contract in contracts for layers in contract.layers or ()))
    vectors = {layers: text_vectors(trial.lm, texts, layers) for layers in sets}
    screened = _ranked(trial, contracts, texts[:SCREENED], vectors)
    best = [candidate.contract for candidate in screened[:KEPT]]
    again = replace(trial, tell=lambda what, done, total: trial.tell("best candidates", done, total))
    return [*_ranked(again, best, texts, vectors), *(other for other in screened if other.contract not in best)]


def candidate_contracts(lm: LanguageModel, stated: Sequence[Contract] = ()) -> list[Contract]:
    """The usual ways to train an oracle: operation, block, layout, layers; of stated contracts only the layers."""
    layers = [tuple(percent_to_layer(lm.n_layers, percent) for percent in percents) for percents in PERCENTS]
    sets = [found for found in dict.fromkeys(layers) if len(set(found)) == len(found)]
    if stated:
        return [contract.model_copy(update={"layers": (found,)}) for contract in stated for found in sets]
    operations: tuple[Literal["add", "replace"], ...] = ("add", "replace")
    layouts: tuple[Layout, ...] = ("blocks", "inline")
    return [
        _candidate(lm, Injection(block=block, operation=operation), layout, found)
        for operation, block, layout, found in itertools.product(operations, (1, 0), layouts, sets)
        if block < lm.n_layers
    ]


def _candidate(lm: LanguageModel, injection: Injection, layout: Layout, layers: tuple[int, ...]) -> Contract:
    known = lm.identity
    return Contract(
        base_model=known.name,
        d_model=known.d_model,
        n_layers=known.n_layers,
        layers=(layers,),
        injection=injection,
        prompt=PromptFormat.model_validate({"layout": layout}),
    )


def _ranked(
    trial: _Trial,
    contracts: Sequence[Contract],
    texts: Sequence[LensText],
    vectors: Mapping[tuple[int, ...], Sequence[Tensor]],
) -> list[Candidate]:
    """The contracts by their loss with real activations, the least first: the oracle is likeliest under it."""
    without: dict[tuple[str, tuple[int, ...]], list[Tensor]] = {}
    found = []
    for number, contract in enumerate(contracts):
        trial.tell("candidates", number, len(contracts))
        layers = (contract.layers or ((),))[0]
        key = (contract.prompt.layout, layers)  # without activations the injection does not matter
        read = vectors[layers][: len(texts)]
        losses, without[key] = lens_losses(trial.lm, contract, trial.adapter, layers, texts, read, without.get(key))
        found.append(Candidate(contract, losses))
    return sorted(found, key=lambda candidate: candidate.losses.real)
