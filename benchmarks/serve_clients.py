"""The clients of `benchmarks/serve.py`: what each asks, and whether the reply is its own."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2

from augury.lm import transcript_of
from augury.oracle import Oracle

CLOSE, NEW_TOKENS, DONORS, EVERY = 1e-3, 16, 2, 6
WHO = (
    "A baker", "The old sailor", "A chess player from Riga", "My neighbour's daughter", "A surgeon",
    "The night train", "A colony of bees", "The committee that met on Monday",
)  # fmt: skip
DOES = (
    "gets up before dawn.", "has lost the way home and asks a stranger.", "counts what is left.",
    "will not say a word about the money.", "waits for the rain to stop, as on every day of this long week.",
)  # fmt: skip
QUESTIONS = ("What is this about?", "Who is it about?", "What happens here?", "Where is this?", "What comes next?")
YES_NO = ("Is this about food?", "Is this about a person?", "Is this about travel?", "Is this sad?", "Is it night?")
MIX = {
    "ask": 6, "ask, kept": 5, "ask, streamed": 2, "ask, controls": 1, "score": 3, "score, kept": 2, "scan": 1,
    "capture": 3, "tokenize": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A text with its questions, and what the oracle answers about it."""

    text: str
    question: str
    yes_no: str
    answer: str
    margin: float
    scan: tuple[float, ...]
    token_ids: tuple[int, ...]
    controls: dict[str, str] | None

    @property
    def reading(self) -> dict[str, Any]:
        return {"context": {"text": self.text}}


def cases(oracle: Oracle) -> list[Case]:
    """Forty texts, no two alike, each with what is right about it; a few of them with their controls."""
    texts = [f"{who} {does}" for who in WHO for does in DOES]
    return [_case(oracle, number, text) for number, text in enumerate(texts)]


def _case(oracle: Oracle, number: int, text: str) -> Case:
    question, yes_no = QUESTIONS[number % len(QUESTIONS)], YES_NO[number // len(DOES) % len(YES_NO)]
    controls = number % EVERY == 0
    answer = oracle.ask(text, question, controls=controls, max_new_tokens=NEW_TOKENS, donors=DONORS)
    return Case(
        text=text,
        question=question,
        yes_no=yes_no,
        answer=answer.text,
        margin=oracle.score(text, yes_no, donors=0).margin,
        scan=oracle.scan(text, yes_no, donors=0).margins,
        token_ids=transcript_of(oracle.base, text).token_ids,
        controls=_shown(answer.to_dict()) if controls else None,
    )


def _shown(row: dict[str, Any]) -> dict[str, str]:
    """The controls of an answer, each as text or as why it is not available."""
    return {name: json.dumps(one.get("text", one)) for name, one in row["controls"].items()}


@dataclass
class Tally:
    """What came of one side's requests."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in MIX})
    refused: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return sum(map(len, self.seconds.values()))


@dataclass
class Client:
    """One that sends a request when the one before has been answered.

    Attributes:
        http: Its connection.
        tokens: Sent in turn.
        known: The texts that it may ask about.
        tally: What all of its side write into.
        chance: Which it asks next.
    """

    http: httpx2.Client
    tokens: list[str]
    known: list[Case]
    tally: Tally
    chance: random.Random
    kept: dict[str, tuple[Case, str]] = field(default_factory=dict)
    deck: list[str] = field(default_factory=list)
    sent: int = 0

    def go_on(self, until: float) -> None:
        """Ask until then."""
        while time.monotonic() < until:
            kind = self._next()
            try:
                self.one(kind)
            except Exception as error:  # whatever it is, its reply was not right
                self.tally.lost.append(f"{kind}: {error!r}")

    def _next(self) -> str:
        """Dealt from a shuffled deck, so that few requests are the same mix as many."""
        if not self.deck:
            self.deck = list(Counter(MIX).elements())
            self.chance.shuffle(self.deck)
        return self.deck.pop()

    def one(self, kind: str) -> None:
        """One request, until it is let in; its reply against what is right."""
        case = self.chance.choice([one for one in self.known if kind != "ask, controls" or one.controls])
        path, body = _request(kind, case)
        self.sent += 1
        token = self.tokens[self.sent % len(self.tokens)]
        headers = {"authorization": f"Bearer {token}"}
        if kind.endswith("kept"):
            case, handle = self._kept(token, headers)
            path, body = _request(kind, case)
            body["reading"] = {"handle": handle}
        reply, seconds = self._send(kind, path, headers, body)
        if reply.status_code != 200:
            self.tally.lost.append(f"{kind}: {reply.status_code} {reply.text[:200]}")
            return
        self.tally.seconds[kind].append(seconds)
        why = _wrong(kind, case, reply)
        if why:
            self.tally.wrong.append(f"{kind}: {case.text!r}: {why}")
        if kind == "capture":
            self.http.delete(f"/v1/activations/{reply.json()['handle']}", headers=headers)

    def _kept(self, token: str, headers: dict[str, str]) -> tuple[Case, str]:
        """A text of this client's own that is kept there."""
        if token not in self.kept:
            case = self.chance.choice(self.known)
            body = {"context": {"text": case.text}, "positions": "last 8"}
            reply, _ = self._send("capture", "capture", headers, body)
            self.kept[token] = case, reply.json()["handle"]
        return self.kept[token]

    def _send(
        self, kind: str, path: str, headers: dict[str, str], body: dict[str, Any]
    ) -> tuple[httpx2.Response, float]:
        """The reply, and the seconds of the attempt that was let in."""
        while True:
            began = time.perf_counter()
            reply = self.http.post(f"/v1/{path}", headers=headers, json=body)
            if reply.status_code != 429:
                return reply, time.perf_counter() - began
            self.tally.refused[kind] += 1
            time.sleep(int(reply.headers["retry-after"]))


def _request(kind: str, case: Case) -> tuple[str, dict[str, Any]]:
    if kind == "tokenize":
        return kind, {"context": {"text": case.text}}
    if kind == "capture":
        return kind, {"context": {"text": case.text}, "positions": "last 8"}
    verb = kind.partition(",")[0]
    if verb == "ask":
        settings = {"max_new_tokens": NEW_TOKENS, "stream": kind.endswith("streamed"), "donors": DONORS}
        question = case.question
        return verb, {**settings, "reading": case.reading, "questions": [question], "controls": "controls" in kind}
    return verb, {"reading": case.reading, "questions": [case.yes_no], "donors": 0}


def _wrong(kind: str, case: Case, reply: httpx2.Response) -> str:
    """What is not this request's own in a reply; empty: nothing."""
    if kind in ("tokenize", "capture"):
        found = reply.json()["tokens"] if kind == "capture" else reply.json()
        return "" if tuple(found["token_ids"]) == case.token_ids else "other tokens"
    verb = kind.partition(",")[0]
    if kind.endswith("streamed"):
        events = re.findall(r"event: answer\ndata: (.*)", reply.text)
        if not events or "event: done" not in reply.text:
            return f"a broken stream: {reply.text[-200:]}"
        row = json.loads(events[-1])["answer"]
    else:
        (row,) = reply.json()[f"{verb}s" if verb != "ask" else "answers"]
    if verb == "ask":
        wanted = (case.question, case.answer, case.controls if "controls" in kind else {})
        found = (row["question"], row["text"], _shown(row))
        return "" if found == wanted else f"{found} for {wanted}"
    margins, right = ([row["margin"]], [case.margin]) if verb == "score" else (row["margins"], list(case.scan))
    close = len(margins) == len(right) and all(abs(a - b) < CLOSE for a, b in zip(margins, right, strict=True))
    return "" if close and case.yes_no in row["question"] else f"{row['question']!r}: {margins} for {right}"
