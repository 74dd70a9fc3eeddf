"""What is served: targets, oracles on the base, and the engine; requests become jobs, and their parts come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from augury.activations import Activations, resolve_layers
from augury.errors import InputError, NotFoundError
from augury.lm import LanguageModel
from augury.oracle import Oracle
from augury.oracle.asking import new_tokens, settings_of
from augury.oracle.reading import default_layers
from augury.server.engine import DONE, ERROR, Engine
from augury.server.limits import Gate, Limits
from augury.server.queue import Job, Queue, stopping
from augury.server.refused import LateError, StoppedError, foreseen
from augury.server.schemas import (
    AskIn,
    CapturedOut,
    CaptureIn,
    ContextIn,
    GenerateIn,
    InfoOut,
    LimitsOut,
    OracleOut,
    ReadingIn,
    ScanIn,
    ScoreIn,
    ServedOut,
    TokensOut,
)
from augury.server.steps import Steps
from augury.server.store import Store, bytes_of
from augury.server.telling import Mail, Part
from augury.server.work import Ask, Capture, Context, Generate, Scan, ScoreAll, Select, Step, Tokenize

LAST_8, ALL = "last 8", "all"
_LOOK = 0.5  # seconds between looks whether a caller has gone

Gone = Callable[[], Any]  # awaitable: whether nobody waits any more


@dataclass(eq=False)
class Service:
    """The rooms behind the HTTP interface.

    Attributes:
        targets: By name; the first is the base, without any adapter, which is read where none is named.
        oracles: By name; the first is asked where none is named.
        limits: What callers may ask for.
    """

    targets: Mapping[str, LanguageModel]
    oracles: Mapping[str, Oracle]
    limits: Limits = field(default_factory=Limits)
    stopping: bool = False

    def __post_init__(self) -> None:
        self.store, self.gate = Store(self.limits), Gate(self.limits)
        steps = Steps(self.targets, self.oracles, most_bytes=self.limits.caller_bytes)
        self.engine = Engine(steps.run, Queue(self.limits.queued))

    def stop(self, within: float) -> None:
        """End what is under way, or tell it."""
        self.stopping = True
        self.engine.stop(within)

    @contextmanager
    def let_in(self, caller: str) -> Iterator[None]:
        """One request of a caller, as long as it is under way.

        Raises:
            StoppedError: The service is stopping.
            BusyError: The caller's limits are reached.
        """
        if self.stopping:
            raise stopping()
        with self.gate.through(caller):
            yield

    async def parts(self, caller: str, step: Step, gone: Gone) -> AsyncGenerator[Part]:
        """What a job gives, part by part.

        Raises:
            LateError: It took longer than it may.
            AuguryError: What it failed with.
        """
        mail = Mail(asyncio.get_running_loop())
        job = Job(caller, step.key, step, mail.tell, time.monotonic() + self.limits.seconds)
        self.engine.queue.put(job)
        watch = _Watch(gone)
        try:
            while True:
                what, value = await self._part(mail, job, watch)
                if what == ERROR:
                    raise foreseen(value)
                if what == DONE:
                    return
                yield what, value
        finally:
            job.gone.set()

    async def _part(self, mail: Mail, job: Job, watch: _Watch) -> Part:
        while True:
            left = job.until - time.monotonic()
            if left <= 0:
                why = f"it took longer than {self.limits.seconds:g} s"
                raise LateError("The request took too long.", why, "ask for less at once")
            await watch.look()
            with suppress(TimeoutError):
                return await asyncio.wait_for(mail.get(), min(left, _LOOK))

    async def all_parts(self, caller: str, step: Step, gone: Gone, name: str) -> list[Any]:
        """The values of all parts of a name; of several with one number the last."""
        found: dict[int, Any] = {}
        async for what, value in self.parts(caller, step, gone):
            if what == name:
                number, result = value if isinstance(value, tuple) else (len(found), value)
                found[number] = result
        return [found[number] for number in sorted(found)]

    @property
    def base(self) -> LanguageModel:
        """The model that oracles run on, without any adapter."""
        return next(iter(self.targets.values()))

    def target(self, name: str | None) -> str:
        """The name of a target; the base's where none is named.

        Raises:
            NotFoundError: It is not served.
        """
        return _among(self.targets, name, "target")

    def oracle(self, name: str | None) -> tuple[str, Oracle]:
        """An oracle by its name; the first where none is named.

        Raises:
            NotFoundError: It is not served.
        """
        if not self.oracles:
            raise NotFoundError("No oracle is served.", "the service was started without one", "start it with --oracle")
        chosen = _among(self.oracles, name, "oracle")
        return chosen, self.oracles[chosen]

    def context(self, given: ContextIn) -> Context:
        """What the target is to read."""
        messages = [{"role": turn.role, "content": turn.content} for turn in given.messages or ()]
        source = given.text if given.text is not None else messages or list(given.token_ids or ())
        return Context(source, given.end, self.limits.context_tokens)

    def reading(self, caller: str, given: ReadingIn, oracle: Oracle, positions: str, then: Callable[..., Step]) -> Step:
        """The first step about what is read: the question itself where it is kept here whole, else its capture."""
        wanted, named = _selector(given.positions), given.layers

        def go_on(acts: Activations) -> tuple[Any, Step]:
            step = then(acts)
            return step.key, step

        if given.handle is not None:
            kept = self.store.get(caller, given.handle)
            some = None if named is None else resolve_layers(self.base.n_layers, named)
            return then(kept) if some is None and wanted is None else Select(kept, some, wanted, go_on)
        assert given.context is not None
        layers = default_layers(oracle.contract) if named is None else named
        chosen_layers, selector = resolve_layers(self.base.n_layers, layers), positions if wanted is None else wanted
        return Capture(self.target(given.target), self.context(given.context), chosen_layers, selector, go_on)

    def asked(self, caller: str, given: AskIn) -> Step:
        """The first step of questions in words.

        Raises:
            AuguryError: What can be refused before anything is run.
        """
        name, oracle = self.oracle(given.oracle)
        limit = new_tokens(oracle.contract, given.max_new_tokens)
        self._bounded(given.questions, given.samples, limit)
        settings = settings_of(given.samples, given.temperature, limit, given.seed)
        donors = _donors(given.donors, least=2) if given.controls else None
        return self.reading(
            caller, given.reading, oracle, LAST_8,
            lambda acts: Ask(name, acts, given.questions, settings, given.coefficient, donors, given.stream),
        )  # fmt: skip

    def scored(self, caller: str, given: ScoreIn) -> Step:
        """The first step of questions with choices; errors as `asked`."""
        name, oracle = self.oracle(given.oracle)
        self._bounded(given.questions)
        donors = _donors(given.donors, least=2 if given.controls else 0)
        settings = (given.choices, given.coefficient, donors, given.controls, given.stream)
        return self.reading(
            caller, given.reading, oracle, LAST_8, lambda acts: ScoreAll(name, acts, given.questions, *settings)
        )

    def scanned(self, caller: str, given: ScanIn) -> Step:
        """The first step of questions at every position; errors as `asked`."""
        name, oracle = self.oracle(given.oracle)
        self._bounded(given.questions)
        donors = _donors(given.donors)
        return self.reading(
            caller, given.reading, oracle, ALL,
            lambda acts: Scan(name, acts, given.questions, given.window, given.coefficient, donors),
        )  # fmt: skip

    def captured(self, given: CaptureIn) -> Capture:
        """A context whose activations are to be kept."""
        named = given.oracle is not None or bool(self.oracles)
        own = default_layers(self.oracle(given.oracle)[1].contract) if named else "62%"
        layers = resolve_layers(self.base.n_layers, given.layers or own)
        return Capture(self.target(given.target), self.context(given.context), layers, _selector(given.positions))

    def generated(self, given: GenerateIn) -> Step:
        """A context that the target goes on from."""
        self._bounded((), 0, given.max_new_tokens)
        settings = given.model_dump(include={"max_new_tokens", "temperature", "top_p", "seed"})
        return Generate(self.target(given.target), self.context(given.context), settings, given.stream)

    def _bounded(self, questions: tuple[str, ...], samples: int = 0, tokens: int = 1) -> None:
        limits = self.limits
        rows = (("questions", len(questions), limits.questions), ("samples", samples, limits.samples))
        for what, given, most in (*rows, ("new tokens", tokens, limits.new_tokens)):
            if given > most:
                raise InputError(
                    f"There are too many {what}.", f"{given} were asked for, and {most} may be", "ask less"
                )

    async def keep_shown(self, caller: str, acts: Activations, gone: Gone) -> CapturedOut:
        """Keep activations whose context has not been shown; as `keep`."""
        context = None if acts.transcript is None else Context(acts.transcript, None, self.limits.context_tokens)
        found = [] if context is None else await self.all_parts(caller, Tokenize(context), gone, "tokens")
        return self.keep(caller, acts, found[0] if found else None)

    def keep(self, caller: str, acts: Activations, tokens: TokensOut | None, target: str | None = None) -> CapturedOut:
        """Keep activations; what the caller is told of them."""
        handle = self.store.put(caller, acts)  # last: what fails after it would be kept under a handle nobody knows
        return CapturedOut(
            handle=handle,
            layers=acts.layers,
            positions=acts.positions,
            d_model=acts.vectors.shape[-1],
            bytes=bytes_of(acts),
            seconds=self.limits.kept_seconds,
            tokens=tokens,
            target=target,
            relative_norms=_listed(acts.relative_norms),
            noise_floor=acts.noise_floor,
        )

    def info(self, version: str) -> InfoOut:
        """What is served."""
        oracles = tuple(
            OracleOut(
                name=name,
                layers=None if oracle.contract.layers is None else tuple(map(tuple, oracle.contract.layers)),
                max_slots=None if oracle.contract.positions is None else oracle.contract.positions.max_slots,
                coefficient=oracle.contract.injection.coefficient,
                notes=oracle.notes,
                yes_no_prefix=oracle.contract.prompt.yes_no_prefix,
                max_new_tokens=new_tokens(oracle.contract, None),
            )
            for name, oracle in self.oracles.items()
        )
        limits = LimitsOut(**{name: getattr(self.limits, name) for name in LimitsOut.model_fields})
        model, targets = (
            self.base.identity,
            tuple(ServedOut(name=name, model=lm.name) for name, lm in self.targets.items()),
        )
        chats = model.chat_template_hash is not None
        return InfoOut(version=version, model=model, chats=chats, targets=targets, oracles=oracles, limits=limits)


@dataclass
class _Watch:
    """Looks now and then whether the caller has gone, also while parts come without a pause."""

    gone: Gone
    looked: float = field(default_factory=time.monotonic)

    async def look(self) -> None:
        """Look, if the last time is long ago.

        Raises:
            StoppedError: It has.
        """
        if time.monotonic() - self.looked < _LOOK:
            return
        self.looked = time.monotonic()
        if await self.gone():
            raise StoppedError("The request was taken back.", "its caller has gone", "ask again")


def _among(served: Mapping[str, Any], name: str | None, what: str) -> str:
    """A name that is served; the first where none is given."""
    chosen = next(iter(served)) if name is None else name
    if chosen not in served:
        why = f"served are {', '.join(served) or 'none'}"
        raise NotFoundError(f"There is no {what} {chosen[:80]!r} here.", why, "name one of these")
    return chosen


def _listed(norms: Tensor | None) -> tuple[tuple[float, ...], ...] | None:
    return None if norms is None else tuple(map(tuple, norms.tolist()))


def _selector(given: Any) -> Any:
    return list(given) if isinstance(given, tuple) else given


def _donors(value: int, least: int = 0) -> int:
    if value == 1 or value < least:
        raise InputError("So few donors are no comparison.", f"there would be {value}", "pass 2 or more")
    return value
