"""The oracle: a LoRA adapter on its base, asked about activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch

from augury.activations import Activations
from augury.contract import MAX_COEFFICIENT, Contract
from augury.errors import InputError, NotFoundError
from augury.lm import LanguageModel
from augury.lm.adapters import remove_adapter
from augury.lm.locks import alone
from augury.lm.values import is_number, is_whole
from augury.oracle.answers import Answer, Scan, Score, Source, Unavailable
from augury.oracle.asking import ask_items, new_tokens, settings_of
from augury.oracle.choices import YES_NO, prefixed, spell
from augury.oracle.controls import Item
from augury.oracle.donors import donor_bank
from augury.oracle.passes import Row, Runner
from augury.oracle.prompt import build_prompt, check_question
from augury.oracle.reading import Read, as_activations, check, read_text, without_target
from augury.oracle.scanning import Scanning
from augury.oracle.scoring import score_items

LAST_8, ALL = "last 8", "all"
DONORS = 32
_REMEMBERED = 256

Pair = tuple[Any, str]
Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(eq=False)
class Oracle:
    """An oracle that is loaded on the model it runs on.

    Threads may share an oracle, or several on one model: one is answered at a time, and the others wait.

    `acts` is everywhere one of: `Activations`; a context (text, messages, token ids, `Transcript`), which is captured
    from the base at the contract's layers; or a plain tensor `[n, d_model]` with `layers=`.

    Attributes:
        lm: The model it runs on. Whatever adapters it carries otherwise are off while the oracle answers.
        contract: How it must be used.
        adapter: The name of its adapter on the model.
        name: What it was loaded as.
        config: The adapter's PEFT configuration.
        off_contract: Whether what the contract refuses is only warned of.
        notes: What could not be checked when it was loaded.
        reader: The name of the trained reader's adapter on the model, which answers the text controls; None: the plain
            base answers them.
    """

    lm: LanguageModel
    contract: Contract
    adapter: str
    name: str
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    off_contract: bool = False
    notes: tuple[str, ...] = ()
    reader: str | None = None
    _memo: dict[Any, Any] = field(default_factory=dict, repr=False)
    _unloaded: bool = field(default=False, repr=False)

    @cached_property
    def base(self) -> LanguageModel:
        """The model it runs on, without a target's own adapters."""
        return without_target(self.lm)

    def ask(
        self,
        acts: Any,
        question: str,
        *,
        samples: int | None = None,
        temperature: float = 1.0,
        max_new_tokens: int | None = None,
        coefficient: float | None = None,
        controls: bool = False,
        seed: int = 0,
        layers: Any = None,
        positions: Any = None,
        donors: int = DONORS,
    ) -> Answer:
        """Ask a question and get an answer in words.

        Args:
            acts: What to read (see the class).
            question: The question; it goes into the prompt as it is.
            samples: None or 0 gives the greedy answer; a number gives as many samples over one shared prefill, of which
                `Answer.text` is the first of the largest group.
            temperature: Of the samples.
            max_new_tokens: At most this many tokens an answer; None takes the contract's
                `generation.max_new_tokens`, or 24 where it has none.
            coefficient: Of the injection, instead of the contract's.
            controls: Ask the same under every control. Donors answer greedily.
            seed: Of the sampling.
            layers: Layers to read, where `acts` is a context or a tensor, or a selection among its layers.
            positions: Which tokens to read; None takes the last 8 of a context and all of `Activations`, of which
                others select by their place in the context. A tensor has no tokens to select.
            donors: How many donors the control `shuffled` asks, at least 2.

        Raises:
            InputError: An empty question, or activations that cannot be injected.
            ContractError: Activations that this oracle was not trained to read.
        """
        return self.ask_batch(
            [(acts, question)],
            samples=samples,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            coefficient=coefficient,
            controls=controls,
            seed=seed,
            layers=layers,
            positions=positions,
            donors=donors,
        )[0]

    def ask_batch(
        self,
        pairs: Sequence[Pair],
        *,
        samples: int | None = None,
        temperature: float = 1.0,
        max_new_tokens: int | None = None,
        coefficient: float | None = None,
        controls: bool = False,
        seed: int = 0,
        layers: Any = None,
        positions: Any = None,
        donors: int = DONORS,
        batch_size: int = 16,
        progress: Progress | None = None,
    ) -> list[Answer]:
        """`ask` for many `(acts, question)`; greedy answers are decoded in batches of similar length.

        The control `shuffled` takes the activations of another problem of the batch (one fixed derangement), and the
        donor bank where there is no other of the same layers and count.
        """
        limit = new_tokens(self.contract, max_new_tokens)
        settings = settings_of(samples, temperature, limit, seed)
        asked = [(acts, check_question(question)) for acts, question in _pairs(pairs)]
        wanted = _donors(donors, least=2) if controls else None
        with alone(self.lm.model):
            items = self._items(asked, layers, positions)
            self.check_fits(items, limit)
            runner = self.runner(coefficient, batch_size)
            return ask_items(self, items, runner, settings, donors=wanted, done=_counting(len(items), progress))

    def score(
        self,
        acts: Any,
        question: str,
        *,
        choices: Sequence[str] = YES_NO,
        controls: bool = False,
        coefficient: float | None = None,
        layers: Any = None,
        positions: Any = None,
        donors: int = DONORS,
    ) -> Score:
        """Score a question with given choices; a yes/no question gets the contract's prefix.

        Args:
            acts: What to read (see the class).
            question: The question.
            choices: Two or more; `margin`, `probability` and `percentile` are about the first.
            controls: Score the same under every control.
            coefficient: Of the injection, instead of the contract's.
            layers: As in `ask`.
            positions: As in `ask`.
            donors: How many donors give `percentile` and the control `shuffled`, at least 2; 0 leaves the percentile
                out. Their margins are remembered, so that only the first such question costs the time.

        Raises:
            InputError: An empty question, choices that cannot be scored, or activations that cannot be injected.
            ContractError: Activations that this oracle was not trained to read.
        """
        return self.score_batch(
            [(acts, question)],
            choices=choices,
            controls=controls,
            coefficient=coefficient,
            layers=layers,
            positions=positions,
            donors=donors,
        )[0]

    def score_batch(
        self,
        pairs: Sequence[Pair],
        *,
        choices: Sequence[str] = YES_NO,
        controls: bool = False,
        coefficient: float | None = None,
        layers: Any = None,
        positions: Any = None,
        donors: int = 0,
        batch_size: int = 16,
        progress: Progress | None = None,
    ) -> list[Score]:
        """`score` for many `(acts, question)`, in batches of similar length.

        There are no percentiles unless `donors` is set.
        The control `shuffled` is as in `ask_batch`.
        """
        with alone(self.lm.model):
            spelled = spell(self.base, self.contract, choices)
            asked = [(acts, prefixed(self.contract, check_question(q), spelled.choices)) for acts, q in _pairs(pairs)]
            items = self._items(asked, layers, positions)
            self.check_fits(items, spelled.new_tokens)
            return score_items(
                self,
                items,
                self.runner(coefficient, batch_size),
                spelled,
                donors=_donors(donors),
                controls=controls,
                done=_counting(len(items), progress),
            )

    def scan(
        self,
        acts: Any,
        question: str,
        *,
        window: int = 1,
        coefficient: float | None = None,
        layers: Any = None,
        positions: Any = None,
        donors: int = DONORS,
        batch_size: int = 32,
        progress: Progress | None = None,
    ) -> Scan:
        """Score one yes/no question at every position, less the donors' median.

        Args:
            acts: What to read (see the class); of a context every position, unless told.
            question: A yes/no question.
            window: How many positions each score reads: this one and those left of it.
            coefficient: Of the injection, instead of the contract's.
            layers: As in `ask`.
            positions: As in `ask`, but None takes all of a context.
            donors: How many donors give the median, at least 2; 0 shows raw margins.
            batch_size: Positions in a forward pass.
            progress: Called with (positions done, positions in all).
        """
        with alone(self.lm.model):
            asked, runner = check_question(question), self.runner(coefficient, batch_size)
            read = self.read([acts], layers, positions, window=_positive(window, "window"))[0]
            scanning = Scanning.of(self, read, asked, runner, window=window, donors=_donors(donors))
            scanning.go_on(scanning.left, progress)
            return scanning.scan()

    def read(self, sources: Sequence[Any], layers: Any, positions: Any, window: int | None = None) -> list[Read]:
        """What is given as activations that this oracle may read. With `window`, so many positions go in at once."""
        self._check_loaded()
        default = LAST_8 if window is None else ALL
        found = as_activations(self.base, self.contract, sources, layers, positions, default)
        return [self._checked(source, acts, window) for source, acts in zip(sources, found, strict=True)]

    def _checked(self, source: Any, acts: Activations, window: int | None) -> Read:
        read = check(self.base, self.contract, acts, self.off_contract, window)
        found = [*self.notes, *read.notes]
        if self.lm.target_adapters and not isinstance(source, Activations) and acts.transcript is not None:
            names = ", ".join(self.lm.target_adapters)
            found.append(f"read from the base without its adapter {names}: capture(model, ...) reads the model with it")
        return replace(read, notes=tuple(dict.fromkeys(found)))

    def item(self, read: Read, question: str) -> Item:
        """One question about one reading, its prompt rendered."""
        prompt = build_prompt(self.base, self.contract, read.acts.layers, len(read.acts), question)
        return Item(read.acts, question, prompt, read.notes)

    def _items(self, pairs: Sequence[Pair], layers: Any, positions: Any) -> list[Item]:
        reads = self.read([acts for acts, _ in pairs], layers, positions)
        return [self.item(read, question) for read, (_, question) in zip(reads, pairs, strict=True)]

    def check_fits(self, items: Sequence[Item], new_tokens: int) -> None:
        """Refuse prompts that leave no room for so many new tokens."""
        longest = self.lm.max_positions
        needed = max((len(item.prompt.token_ids) for item in items), default=0) + new_tokens
        if longest is not None and needed > longest:
            why = f"it needs {needed} tokens and {self.lm.name} takes {longest}"
            instead = "ask about fewer positions (in a scan, a smaller window), or ask a shorter question"
            raise InputError("The prompt is too long.", why, instead)

    def runner(self, coefficient: float | None = None, batch_size: int = 16) -> Runner:
        """Who answers: exactly this oracle's adapter on."""
        self._check_loaded()
        used = self.contract.injection.coefficient if coefficient is None else coefficient
        if not is_number(used) or not 0 < abs(used) <= MAX_COEFFICIENT:
            why = f"it is {used!r}, which would inject nothing or nonsense"
            instead = f"pass a number other than 0 and at most {MAX_COEFFICIENT:g}, or use controls"
            raise InputError("The coefficient cannot be used.", why, instead)
        size = _positive(batch_size, "batch_size")
        return Runner(self.base, self.contract, (self.adapter,), float(used), size)

    def source_of(self, acts: Activations, runner: Runner) -> Source:
        """What stands in an answer about where it comes from."""
        return Source(
            oracle=self.name,
            layers=acts.layers,
            positions=acts.positions,
            coefficient=runner.coefficient,
            trained_coefficient=self.contract.injection.coefficient,
            provenance=acts.provenance,
            text=read_text(self.base, acts),
            adapters=runner.adapters,
        )

    def donor_rows(self, item: Item, donors: int) -> list[Row] | Unavailable:
        """The item's prompt with the activations of the bank's donors, captured once per model and layers."""
        layers = item.acts.layers
        bank = self.remember(("bank", layers), lambda: donor_bank(self.base, layers))
        vectors = bank.take(donors or DONORS, len(item.acts))
        if len(vectors) < 2:
            return Unavailable(f"the longest donor has {bank.longest} tokens, and {len(item.acts)} were read")
        return [Row(item.prompt, vector) for vector in vectors]

    def remember(self, key: Any, make: Callable[[], T]) -> T:
        """What donors answered before, or now."""
        if key not in self._memo:
            made = make()
            if len(self._memo) >= _REMEMBERED:
                self._memo.pop(next(iter(self._memo)))
            self._memo[key] = made
        return self._memo[key]

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write the oracle as a PEFT folder with its contract and model card (see `augury.oracle.save`).

        Args:
            folder: Where to; of an oracle that lies there only the files that augury writes are replaced.
            dtype: Of the tensors. Default: as they are in memory, so that the saved oracle answers exactly the same.
        """
        from augury.oracle.save import save_oracle

        with alone(self.lm.model):
            self._check_loaded()
            return save_oracle(self.base, self.adapter, self.config, self.contract, Path(folder), dtype=dtype)

    def unload(self) -> None:
        """Take the adapter off the model. A second time does nothing."""
        with alone(self.lm.model):
            if not self._unloaded:
                remove_adapter(self.lm, self.adapter)
                if self.reader is not None:
                    remove_adapter(self.lm, self.reader)
                self._unloaded = True
                self._memo.clear()

    def _check_loaded(self) -> None:
        if self._unloaded:
            raise NotFoundError(f"The oracle {self.name} is not loaded.", "it was unloaded", "load it again")

    def __enter__(self) -> Oracle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unload()


def _pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs, or a refusal of what is none: a text would fall apart into its letters."""
    listed = list(pairs) if isinstance(pairs, Iterable) else [pairs]
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in listed):
        why = f"{pairs!r:.80} is no list of pairs"
        raise InputError("There is nothing to ask.", why, "pass a list of (acts, question)")
    return [(acts, question) for acts, question in listed]


def _positive(value: int, name: str, least: int = 1) -> int:
    if not is_whole(value) or value < least:
        raise InputError(f"{name} cannot be {value!r}.", f"it is a number of at least {least}", "pass such a number")
    return int(value)


def _donors(value: int, least: int = 0) -> int:
    """One donor alone is no comparison: there is no place among one, and no most common answer."""
    if value == 0 and not isinstance(value, bool) and least == 0:
        return 0
    return _positive(value, "donors", 2)


def _counting(total: int, progress: Progress | None) -> Callable[[int], None] | None:
    if progress is None:
        return None
    seen = 0

    def done(count: int) -> None:
        nonlocal seen
        seen += count
        progress(seen, total)

    return done
