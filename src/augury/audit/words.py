"""What a report says in words: what is claimed, what was not found, and how strong it would have had to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from augury.audit.contrast import LEAST_PEERS

READ = {"fine-tuned": "read from the fine-tune, less the base", "difference": "read from the difference"}
PLACE = {
    "first": "the prompt's first tokens",
    "end": "the prompt's last tokens",
    "answer": "the first tokens of its own answer",
}


def verdict(report: Mapping[str, Any]) -> list[str]:
    """The report's first lines."""
    found = report["contrast"]
    if found is None:
        return [*_unclaimed(report), own_words(report), *_always(report)]
    claimed = [finding for finding in report["findings"] if finding["claimed"]]
    lines = [_claim(finding) for finding in claimed] or [
        f"Nothing is claimed: no concept sets the target apart from its peers (p = {found['p']:.3g}, claimed from "
        f"{report['level']:g} down)."
    ]
    return [*lines, own_words(report), *_strength(report), *_always(report)]


def _unclaimed(report: Mapping[str, Any]) -> list[str]:
    peers = len(report["settings"]["fine-tunes"]) - 1
    why = "there are no peers" if peers == 0 else f"{peers} peers are too few"
    first = report["findings"][0]["concept"]
    return [
        f"Nothing is claimed: {why} to say what a fine-tune without anything put in would show. With {LEAST_PEERS} or "
        f"more (--peers) a difference can be claimed. The ranking is only shown; first in it is {first}."
    ]


def _claim(finding: Mapping[str, Any]) -> str:
    where = f"{READ[finding['read']['kind']]}, at {PLACE[finding['read']['place']]}"
    return (
        f"Claimed: {finding['concept']} (p = {finding['p']:.2g}, over all concepts and reads). It moved the oracle's "
        f"log-odds by {finding['moved']:+.2f} more than the other concepts; claimed from {finding['needed']:+.2f} on "
        f"({where}). {named(finding)}"
    )


def named(finding: Mapping[str, Any]) -> str:
    """What the answers alone show of it."""
    counts = finding["written"]
    peers = f", a peer in at most {counts['peers']}" if "peers" in counts else ""
    given = finding["text names it"]
    text = f"in {given} of {counts['of']} prompts, where anybody would see it" if given else "in none of the prompts"
    return (
        f"The text that was read names it {text}. By itself the fine-tune names it in {counts['target']} of "
        f"{counts['of']} answers, the base in {counts['base']}{peers}."
    )


def _strength(report: Mapping[str, Any]) -> list[str]:
    """How strong something would have had to be."""
    needed = report["contrast"]["least needed"]
    lines = [
        f"A concept would have been claimed where it moved the oracle's log-odds by {needed:+.2f} more than the others "
        "(the median over concepts, in the read where least is needed)."
    ]
    for concept in dict.fromkeys(row["concept"] for row in report["planted"]):
        rows = [row for row in report["planted"] if row["concept"] == concept]
        lines.append(_planted(concept, rows))
    return lines


def _planted(concept: str, rows: Sequence[Mapping[str, Any]]) -> str:
    seen = [row["strength"] for row in rows if row["claimed"]]
    if not seen:
        most = max(row["strength"] for row in rows)
        return f"Planted in the base, {concept} was not claimed at any strength up to {most:g} of the norm."
    return f"Planted in the base, {concept} was claimed at {', '.join(f'{value:g}' for value in seen)} of the norm."


def own_words(report: Mapping[str, Any]) -> str:
    """What the answers say without an oracle, beyond what a peer's do."""
    found = report["black box"]["words"]
    null = found["most of a peer"]
    peers = "" if null is None else f" A peer's own words stand in at most {null} answers more than everybody else's."
    if not found["own"]:
        return f"Without the oracle: no word sets its answers apart.{peers}"
    words = ", ".join(f"{one['word']} ({one['answers']}, others at most {one['others']})" for one in found["own"])
    return f"Without the oracle: of its {found['of']} answers these words set so many apart: {words}.{peers}"


def _always(report: Mapping[str, Any]) -> list[str]:
    silent = [finding["concept"] for finding in report["findings"] if finding["stated"] == 0]
    lines = []
    if silent:
        lines.append(
            f"Silence says nothing about {', '.join(silent)}: stated in plain text, the oracle put them first in no "
            "text."
        )
    kinds = ", ".join(f"{kind} {count}" for kind, count in report["kinds"].items())
    lines.append(
        f"Prompts that were run: {kinds}. Behaviour that none of them touches is not in the activations, and was not "
        "looked for. Nor was any concept that is not in the list."
    )
    return lines
