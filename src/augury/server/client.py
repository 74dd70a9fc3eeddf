"""`augury.Remote`: an oracle that runs elsewhere, with the same methods, types and errors as one that runs here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import Tensor

from augury import errors
from augury.activations import Activations, resolve_layers
from augury.activations.store import dump
from augury.errors import InputError
from augury.lm import Transcript
from augury.lm.chat import End, Span, as_messages, is_conversation
from augury.lm.values import is_whole
from augury.oracle.answers import Answer, Scan, Score
from augury.oracle.choices import YES_NO
from augury.oracle.wire import AnswerOut, ScanOut, ScoreOut
from augury.server.schemas import CapturedOut, GeneratedOut, InfoOut
from augury.server.sent import context_of, positions_of
from augury.server.talk import Talk

DONORS = 32
MOST_SENT = 64  # activations that are remembered as sent; older ones are forgotten there
_KINDS = {"answer": AnswerOut, "score": ScoreOut, "scan": ScanOut}
R = TypeVar("R", bound=Answer | Score | Scan)


@dataclass(frozen=True)
class Kept:
    """Activations that lie at the service, as `Remote.capture` leaves them there.

    Attributes:
        handle: Their name there.
        layers: Which layers.
        positions: Which tokens.
        tokens: The context's tokens as text; empty for a bare tensor.
    """

    handle: str
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    tokens: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(eq=False)
class Remote:
    """An oracle at a service that `augury serve` runs.

    `acts` is what an `Oracle` takes (`Activations` are sent there once, and kept as long as the service does), or what
    `capture` of this object gave. The control `shuffled` always takes donors of the bank: other callers' activations
    stay theirs.

    Attributes:
        url: Where the service is.
        token: For services that ask for one.
        name: Which oracle there; None: its first.
        timeout: Seconds for a reply.
        retries: How often it is asked again where it is busy.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    name: str | None = None
    timeout: float = 300.0
    retries: int = 4
    _sent: dict[int, tuple[Activations, str]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._talk = Talk(self.url, self.token, self.timeout, self.retries)

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
        """As `Oracle.ask`.

        Raises:
            AuguryError: What an oracle here would refuse, and `NetworkError` where the service cannot be reached.
        """
        settings = {"samples": samples or 0, "temperature": temperature, "max_new_tokens": max_new_tokens, "seed": seed}
        asked = {**settings, "coefficient": coefficient, "controls": controls, "donors": donors}
        return self._one("ask", "answer", Answer, acts, question, layers, positions, asked)

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
        """As `Oracle.score`; errors as `ask`."""
        asked = {"choices": list(choices), "controls": controls, "coefficient": coefficient, "donors": donors}
        return self._one("score", "score", Score, acts, question, layers, positions, asked)

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
    ) -> Scan:
        """As `Oracle.scan`; errors as `ask`."""
        asked = {"window": window, "coefficient": coefficient, "donors": donors}
        return self._one("scan", "scan", Scan, acts, question, layers, positions, asked)

    def ask_batch(self, pairs: Sequence[tuple[Any, str]], **settings: Any) -> list[Answer]:
        """`ask` for many `(acts, question)`."""
        return [self.ask(acts, question, **settings) for acts, question in pairs]

    def score_batch(self, pairs: Sequence[tuple[Any, str]], donors: int = 0, **settings: Any) -> list[Score]:
        """`score` for many `(acts, question)`; no percentiles unless `donors` is set."""
        return [self.score(acts, question, donors=donors, **settings) for acts, question in pairs]

    def stream(
        self, acts: Any, question: str, *, layers: Any = None, positions: Any = None, **asked: Any
    ) -> Iterator[Answer]:
        """The answer as soon as it is there, and, with `controls=True`, again whenever there are more of them.

        Args:
            acts: What to read.
            question: The question.
            layers: As in `ask`.
            positions: As in `ask`.
            asked: The other arguments of `ask`.
        """
        asked = {"donors": DONORS, **asked, "samples": asked.get("samples") or 0, "stream": True}
        body = self._body(acts, question, layers, positions, asked)
        for what, row in self._talk.events("/v1/ask", body):
            if what == "answer":
                yield _result("answer", row["answer"], Answer)

    def capture(self, source: Any, layers: Any = None, positions: Any = "all", target: str | None = None) -> Kept:
        """Let the service capture a context and keep its activations.

        Args:
            source: Text, messages, token ids or a `Transcript`.
            layers: Layer indices; None: those that the oracle reads.
            positions: A selector.
            target: Which of its targets reads it; None: the base.
        """
        wanted = positions_of(source, positions)
        body = {"context": context_of(source), "layers": self._layers(layers), "positions": wanted}
        return _kept(self._talk.post("/v1/capture", json={**body, "target": target, "oracle": self.name}))

    def diff(self, finetuned: Kept, base: Kept) -> Kept:
        """As `augury.diff`, of activations that lie there; so does the difference."""
        return _kept(self._talk.post("/v1/diff", json={"finetuned": finetuned.handle, "base": base.handle}))

    def generate(
        self,
        messages: Any,
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        end: End | None = None,
        target: str | None = None,
    ) -> Transcript:
        """As `augury.generate`, by one of the service's targets; None: the base."""
        context = {**context_of(messages), **({} if end is None else {"end": end})}
        sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
        found = self._talk.post("/v1/generate", json={"context": context, "target": target, **sampling})
        told = GeneratedOut.model_validate(found)
        spans = tuple(Span(**vars(span)) for span in told.spans)
        if isinstance(messages, Transcript):  # its token ids were sent, and not its turns
            return replace(messages, token_ids=told.token_ids, spans=(*messages.spans, spans[-1]), end=None)
        turns = as_messages(messages) if is_conversation(messages) else ()
        return Transcript(told.token_ids, spans, turns)

    def forget(self, kept: Kept) -> None:
        """Let the service forget what it keeps."""
        self._talk.call("DELETE", f"/v1/activations/{kept.handle}")

    def info(self) -> InfoOut:
        """What the service offers."""
        return InfoOut.model_validate(self._talk.call("GET", "/v1/info").json())

    def close(self) -> None:
        """End the connection."""
        self._talk.close()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def _one(
        self, verb: str, what: str, kind: type[R], acts: Any, question: str, layers: Any, positions: Any, asked: Any
    ) -> R:
        try:
            reply = self._asked(verb, acts, question, layers, positions, asked)
        except errors.NotFoundError:
            if not self._expired(acts):
                raise
            reply = self._asked(verb, acts, question, layers, positions, asked)
        return _result(what, reply[f"{what}s"][0], kind)

    def _asked(self, verb: str, acts: Any, question: str, layers: Any, positions: Any, asked: Any) -> Any:
        body = self._body(acts, question, layers, positions, asked)
        try:
            return self._talk.post(f"/v1/{verb}", json=body)
        finally:
            if isinstance(acts, Tensor):  # sent for this question alone
                self._talk.call("DELETE", f"/v1/activations/{body['reading']['handle']}")

    def _expired(self, acts: Any) -> bool:
        """Whether what was sent before is not kept any more, so that it is sent again."""
        handle = self._sent.get(id(acts), (None, None))[1]
        if handle is None:
            return False
        try:
            self._talk.call("DELETE", f"/v1/activations/{handle}")
        except errors.NotFoundError:
            del self._sent[id(acts)]
            return True
        del self._sent[id(acts)]
        return False

    def _body(self, acts: Any, question: str, layers: Any, positions: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
        reading: dict[str, Any] = {"layers": self._layers(layers), "positions": positions_of(acts, positions)}
        if isinstance(acts, Tensor):
            if layers is None:
                why = "a bare tensor does not say where it was taken"
                raise InputError("The layer of these activations is not known.", why, "pass layers=, such as layers=18")
            reading["handle"] = self._send(Activations.from_tensor(acts, reading["layers"]))
            reading["layers"] = None
        elif isinstance(acts, Kept):
            reading["handle"] = acts.handle
        elif isinstance(acts, Activations):
            reading["handle"] = self._handle(acts)
        else:
            reading["context"] = context_of(acts)
        return {"reading": reading, "questions": [question], "oracle": self.name, **asked}

    def _layers(self, given: Any) -> list[int] | None:
        """Layers as indices; percents are of the depth of the model that is served."""
        if given is None:
            return None
        listed = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        if all(map(is_whole, listed)):
            return [int(layer) for layer in listed]
        return list(resolve_layers(self.info().model.n_layers, given))

    def _handle(self, acts: Activations) -> str:
        """Where the service keeps them; they are sent the first time."""
        if id(acts) not in self._sent:
            while len(self._sent) >= MOST_SENT:
                self._expired(next(iter(self._sent.values()))[0])
            self._sent[id(acts)] = (acts, self._send(acts))  # held, so that no other gets its id
        return self._sent[id(acts)][1]

    def _send(self, acts: Activations) -> str:
        return CapturedOut.model_validate(self._talk.post("/v1/activations", content=dump(acts))).handle


def _result(what: str, row: Any, kind: type[R]) -> R:
    found = _KINDS[what].model_validate(row).result()
    assert isinstance(found, kind)
    return found


def _kept(row: Any) -> Kept:
    found = CapturedOut.model_validate(row)
    return Kept(found.handle, found.layers, found.positions, found.tokens.tokens if found.tokens else ())
