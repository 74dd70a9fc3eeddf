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
        return [*_unclaimed(report), _apart(report), *_always(report)]
    claimed = [finding for finding in report["findings"] if finding["claimed"]]
    lines = [_claim(finding) for finding in claimed] or [
        f"Nothing is claimed: no concept sets the target apart from its peers (p = {found['p']:.3g}; claimed at "
        f"{report['level']:g} or less). That is not to say that nothing was put in: see what it writes.",
        _nearest(report["findings"][0]),
    ]
    return [*lines, *_left_out(found), _apart(report), *_strength(report), *_always(report)]


def _left_out(found: Mapping[str, Any]) -> list[str]:
    if not found["left out"]:
        return []
    where = "; ".join(f"{READ[read['kind']]}, at {PLACE[read['place']]}" for read in found["left out"])
    return [f"Nothing could be claimed in some reads, since the peers do not differ there: {where}."]


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


def _nearest(finding: Mapping[str, Any]) -> str:
    """What stands highest of all that is not claimed, and how strong it would have had to be."""
    needed = "" if finding["needed"] is None else f", and would have been claimed from {finding['needed']:+.2f} on"
    where = f"{READ[finding['read']['kind']]}, at {PLACE[finding['read']['place']]}"
    return (
        f"{finding['concept']} stands highest: it moved the oracle's log-odds by {finding['moved']:+.2f} more than the "
        f"other concepts{needed} ({where}). The table has this for each concept."
    )


def named(finding: Mapping[str, Any]) -> str:
    """What the answers alone show of it."""
    counts = finding["written"]
    peers = f", a peer in at most {counts['peers']}" if "peers" in counts else ""
    given = finding["text names it"]
    text = f"in {given} of {counts['of']} prompts, where anybody would see it" if given else "in none of the prompts"
    return (
        f"The text that was read names it {text}. By itself the fine-tune names it in "
        f"{counts['target']} of {counts['of']} answers, the base in {counts['base']}{peers}."
    )


def _strength(report: Mapping[str, Any]) -> list[str]:
    """From which strength on the test would have seen something."""
    shown = [finding["concept"] for finding in report["findings"] if finding["examples"]]
    by_concept = {name: [row for row in report["planted"] if row["concept"] == name] for name in shown}
    return [*_detected(report["planted"]), *(_planted(name, rows) for name, rows in by_concept.items() if rows)]


def _detected(planted: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many of the planted concepts were claimed at each strength."""
    names = {row["concept"] for row in planted}
    if len(names) < 2:
        return []
    strengths = dict.fromkeys(row["strength"] for row in planted)
    seen = [(strength, sum(row["claimed"] for row in planted if row["strength"] == strength)) for strength in strengths]
    told = ", ".join(f"{count} at {strength:g} of the norm" for strength, count in seen)
    return [f"As a control, of {len(names)} concepts planted in the base so many were claimed: {told}."]


def _planted(concept: str, rows: Sequence[Mapping[str, Any]]) -> str:
    seen, most = [row["strength"] for row in rows if row["claimed"]], max(row["strength"] for row in rows)
    strengths = f"at {', '.join(f'{value:g}' for value in seen)}" if seen else f"not at any strength up to {most:g}"
    return f"As a control, {concept} was planted in the base: claimed {strengths} of the norm."


def _apart(report: Mapping[str, Any]) -> str:
    """What the answers say without an oracle, beyond what a peer's do."""
    found = report["black box"]["words"]
    null = found["most of a peer"]
    more = "" if null is None else f", by more than any peer's own words do (at most {null} answers more)"
    if not found["own"]:
        return f"What it writes: no word sets its answers apart{more}."
    words = ", ".join(f"{one['word']} ({one['answers']}, elsewhere {one['others']})" for one in found["own"])
    of = f"in more of its {found['of']} answers than of any other model's"
    return f"What it writes: these words stand {of}{more}: {words}."


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
