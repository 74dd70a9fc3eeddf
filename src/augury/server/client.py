"""`augury.Remote`: an oracle that runs elsewhere, with the same methods, types and errors as one that runs here."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import httpx2
from torch import Tensor

from augury import errors
from augury.activations import Activations, resolve_layers
from augury.activations.positions import RoleSelector, TextSelector
from augury.activations.store import dump
from augury.errors import AuguryError, InputError, NetworkError
from augury.lm import Message, Transcript
from augury.lm.chat import End, Span, as_messages, is_conversation
from augury.lm.values import is_whole
from augury.oracle.answers import Answer, Scan, Score
from augury.oracle.choices import YES_NO
from augury.oracle.wire import AnswerOut, ScanOut, ScoreOut
from augury.server import refused
from augury.server.schemas import CapturedOut, GeneratedOut, InfoOut

DONORS = 32
RETRIED = (429, 502, 503)  # 502: a proxy whose service is being started again
LONGEST_WAIT = 30.0
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
        headers = {} if self.token is None else {"authorization": f"Bearer {self.token}"}
        self._http = httpx2.Client(base_url=self.url, headers=headers, timeout=self.timeout)

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
        try:
            with self._http.stream("POST", "/v1/ask", json=body) as reply:
                if reply.status_code != 200:
                    reply.read()
                    raise _error(reply)
                for what, row in _events(reply):
                    if what == "error":
                        raise _refusal(row)
                    if what == "answer":
                        yield _result("answer", row["answer"], Answer)
        except httpx2.HTTPError as error:
            raise self._unreached(error) from error

    def capture(self, source: Any, layers: Any = None, positions: Any = "all", target: str | None = None) -> Kept:
        """Let the service capture a context and keep its activations.

        Args:
            source: Text, messages, token ids or a `Transcript`.
            layers: Layer indices; None: those that the oracle reads.
            positions: A selector.
            target: Which of its targets reads it; None: the base.
        """
        wanted = _positions(source, positions)
        body = {"context": _context(source), "layers": self._layers(layers), "positions": wanted}
        return _kept(self._post("/v1/capture", json={**body, "target": target, "oracle": self.name}))

    def diff(self, finetuned: Kept, base: Kept) -> Kept:
        """As `augury.diff`, of activations that lie there; so does the difference."""
        return _kept(self._post("/v1/diff", json={"finetuned": finetuned.handle, "base": base.handle}))

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
        context = {**_context(messages), **({} if end is None else {"end": end})}
        sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
        found = self._post("/v1/generate", json={"context": context, "target": target, **sampling})
        told = GeneratedOut.model_validate(found)
        spans = tuple(Span(**vars(span)) for span in told.spans)
        if isinstance(messages, Transcript):  # its token ids were sent, and not its turns
            return replace(messages, token_ids=told.token_ids, spans=(*messages.spans, spans[-1]), end=None)
        turns = as_messages(messages) if is_conversation(messages) else ()
        return Transcript(told.token_ids, spans, turns)

    def forget(self, kept: Kept) -> None:
        """Let the service forget what it keeps."""
        self._call("DELETE", f"/v1/activations/{kept.handle}")

    def info(self) -> InfoOut:
        """What the service offers."""
        return InfoOut.model_validate(self._call("GET", "/v1/info").json())

    def close(self) -> None:
        """End the connection."""
        self._http.close()

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
            return self._post(f"/v1/{verb}", json=body)
        finally:
            if isinstance(acts, Tensor):  # sent for this question alone
                self._call("DELETE", f"/v1/activations/{body['reading']['handle']}")

    def _expired(self, acts: Any) -> bool:
        """Whether what was sent before is not kept any more, so that it is sent again."""
        handle = self._sent.get(id(acts), (None, None))[1]
        if handle is None:
            return False
        try:
            self._call("DELETE", f"/v1/activations/{handle}")
        except errors.NotFoundError:
            del self._sent[id(acts)]
            return True
        del self._sent[id(acts)]
        return False

    def _body(self, acts: Any, question: str, layers: Any, positions: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
        reading: dict[str, Any] = {"layers": self._layers(layers), "positions": _positions(acts, positions)}
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
            reading["context"] = _context(acts)
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
        return CapturedOut.model_validate(self._post("/v1/activations", content=dump(acts))).handle

    def _post(self, path: str, **body: Any) -> Any:
        return self._call("POST", path, **body).json()

    def _call(self, method: str, path: str, **body: Any) -> httpx2.Response:
        """A request, and again where the service is busy, as late as it says."""
        for tried in itertools.count():
            try:
                reply = self._http.request(method, path, **body)
            except httpx2.HTTPError as error:
                raise self._unreached(error) from error
            if reply.is_success:
                return reply
            if reply.status_code not in RETRIED or tried >= self.retries:
                raise _error(reply)
            told = reply.headers.get("retry-after", "")
            time.sleep(min(LONGEST_WAIT, float(told) if re.fullmatch(r"[0-9.]+", told) else 2.0**tried))
        raise AssertionError("the loop ends by itself")

    def _unreached(self, error: Exception) -> NetworkError:
        why = f"{type(error).__name__}: {error}"[:300]
        return NetworkError(f"{self.url} gives no reply.", why, "check the address, and whether the service runs")


def _result(what: str, row: Any, kind: type[R]) -> R:
    found = _KINDS[what].model_validate(row).result()
    assert isinstance(found, kind)
    return found


def _kept(row: Any) -> Kept:
    found = CapturedOut.model_validate(row)
    return Kept(found.handle, found.layers, found.positions, found.tokens.tokens if found.tokens else ())


def _context(source: Any) -> dict[str, Any]:
    """A context as the service takes it.

    Raises:
        InputError: It is none of these.
    """
    if isinstance(source, Transcript):
        return {"token_ids": list(source.token_ids)}
    if isinstance(source, str):
        return {"text": source}
    if is_conversation(source):
        return {"messages": [asdict(turn) if isinstance(turn, Message) else dict(turn) for turn in source]}
    if isinstance(source, Sequence) and source and all(map(is_whole, source)):
        return {"token_ids": [int(token) for token in source]}
    why = f"it is a {type(source).__name__}"
    raise InputError("There is nothing to read.", why, "pass text, messages, token ids, a Transcript or activations")


def _positions(source: Any, given: Any) -> Any:
    """A selector as it is sent; of a `Transcript` roles are resolved here, since its turns are not sent."""
    role = re.fullmatch(r"role\((.+)\)", str(given).strip())
    if role is None or not isinstance(source, Transcript):
        return _selector(given)
    name = role[1].strip("'\"")
    found = [i for span in source.spans if span.role == name for i in range(span.start, span.stop)]
    if not found:
        why = f"the context has turns of {', '.join(dict.fromkeys(s.role for s in source.spans)) or 'nobody'}"
        raise InputError(f"The selector {given!s} matches no token.", why, "choose a role that is there")
    return found


def _selector(given: Any) -> Any:
    """A selector as text or indices."""
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, TextSelector | RoleSelector):
        return str(given)
    if isinstance(given, slice):
        ends = ("" if end is None else str(end) for end in (given.start, given.stop))
        return ":".join(ends) + ("" if given.step is None else f":{given.step}")
    return [int(given)] if is_whole(given) else [int(position) for position in given]


def _events(reply: httpx2.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in reply.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


_CLASSES = {
    kind.code: kind
    for room in (errors, refused)
    for kind in vars(room).values()
    if isinstance(kind, type) and issubclass(kind, AuguryError)
}


def _error(reply: httpx2.Response) -> AuguryError:
    """The service's refusal as the error that it was there."""
    try:
        return _refusal(reply.json())
    except (ValueError, TypeError, KeyError):
        why = f"it answered with status {reply.status_code} and no words of augury's"
        return NetworkError("This is no service of augury.", why, "check the address, and what stands before it")


def _refusal(row: Mapping[str, Any]) -> AuguryError:
    kind = _CLASSES.get(row["code"], AuguryError)
    return kind(str(row["what"]), str(row["why"]), str(row["instead"]))
