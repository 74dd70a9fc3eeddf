"""A run's summary in words: what the terminal, the page and the Markdown table say alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from augury.oracle.controls import TEXT_ALL, TEXT_WINDOW

COMPARATORS = {"same window": TEXT_WINDOW}  # of a tier, where it is not the reader of the whole text
BETTER = {1: "", -1: " (less is better)", 0: " (neither is better)"}
READ_OR_INFER = "read-or-infer, from 0 (chance) to 1 (always right)"
GLOSSARY = {
    "items": "readings that count, and in parentheses the independent problems among them, over which intervals are: "
    "texts, pairs of concepts, or organisms; below six there is none",
    "chance": "what knowing nothing gives, where that is known",
    "none": "the oracle with nothing injected",
    "shuffled": "the oracle with another problem's activations",
    "text-window": "a reader without activations that sees the read tokens as text",
    "text-all": "the same reader with all of the text up to the last token that is read",
    "untrained": "the base with the same prompt and injection, the oracle's adapter off",
    "probe": "a linear probe on the same activations, where there are 200 items to train it on",
    "auc": "how often a true statement gets a higher margin of Yes over No than a false one",
    "matches the model": "where the model is wrong: how often the answer is the model's own",
    "matches the truth": "where the model is wrong: how often the answer is the true one: inferred, not read",
    "exact": "share of tokens that were the likeliest ones, each behind the true ones before it",
    "nats": "loss per token of the true text",
}


def lead_of(task: Mapping[str, Any]) -> str:
    """The reader of the text that a task's oracle is compared with."""
    return COMPARATORS.get(str(task["tier"]), TEXT_ALL)


def items_of(measure: Mapping[str, Any]) -> str:
    """How many items count, and how many problems these are."""
    own = measure["raters"].get("oracle")
    return str(measure["counted"]) if own is None else f"{measure['counted']} ({own['clusters']})"


def measure_of(name: str, measure: Mapping[str, Any]) -> str:
    """A measure's name, and where less of it is better."""
    return f"{name}{BETTER[measure['better']]}"


def headline(summary: Mapping[str, Any]) -> list[str]:
    """The run's headline, or what there is of it, and AObench's aggregate."""
    found = []
    known = {tier: value for tier, value in summary["tiers"].items() if value is not None}
    if summary["headline"] is not None:
        found.append(f"{READ_OR_INFER}: {told(summary['headline'])} ({_tiers(known)})")
    elif known:
        found.append(f"{READ_OR_INFER}, takes two tiers, and one was measured: {_tiers(known)}")
    mean = summary["aobench"]
    if mean["value"] is not None:
        parts = len(mean["of"]) + len(mean["missing"])
        lacks = f" (it lacks {', '.join(mean['missing'])})" if mean["missing"] else ""
        found.append(f"AObench's aggregate over {len(mean['of'])} of its {parts} tasks: {told(mean['value'])}{lacks}")
        found.append(_comparable(summary))
    return found


def _comparable(summary: Mapping[str, Any]) -> str:
    """How that figure stands to the published ones."""
    own = "its items are this model's own, so it does not compare with published figures"
    same = "numbers count only where the model is wrong and means are over problems, so published figures differ"
    return same if summary.get("data") else own


def _tiers(known: Mapping[str, Any]) -> str:
    return ", ".join(f"{tier} {told(value)}" for tier, value in known.items())


def told(figure: Mapping[str, Any]) -> str:
    """A figure with its interval, in one line."""
    if figure["low"] is None:
        return f"{figure['estimate']:.2f}"
    return f"{figure['estimate']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def remarks(name: str, task: Mapping[str, Any]) -> list[str]:
    """What belongs to a task's figures: why there are none, what the organisms know, how much is planted, the judge."""
    lines = []
    if task["not measurable"]:
        counts = ", ".join(f"{what} {count}" for what, count in task["items"]["counts"].items())
        lines.append(f"not measurable on this model, since {task['not measurable']} ({counts})")
    elif not task["measures"]:
        lines.append("not judged")
    if task.get("known") is not None:
        guessed = task["known by chance"]
        chance = "" if guessed is None else f" (chance {guessed:.0%})"
        lines.append(f"the organisms themselves know {task['known']:.0%} of it{chance}; the rest does not count")
    if "strength at 75%" in task:
        lines.append(_strength(task["strength at 75%"]))
    if task["mass"] is not None and task["mass"] < 0.5:
        lines.append(f"the oracle answers with one of the choices only {task['mass']:.0%} of the time")
    if task.get("judge"):
        judge = task["judge"]
        lines.append(f"judged by {judge['model']}, {judge['failed']} of {judge['answers']} failed")
    lines += [
        f"{one['confidence']} has an expected calibration error of {one['ece']:.2f} (chance alone gives up to "
        f"{one['ece_by_chance']:.2f}); less the share that is right it is {told(one['gap'])} on average"
        for one in task.get("calibration", ())
    ]
    return [f"{name}: {line}" for line in lines]


def _strength(dose: Mapping[str, Any]) -> str:
    if not dose["tried"]:
        return "at what strength three of four pairs are told apart takes more items of each strength"
    ends = tuple("above all that were tried" if end is None else f"{end:.3f}" for end in (dose["low"], dose["high"]))
    if dose["strength"] is None:
        lower = "" if dose["low"] is None else f" (by the upper ends of the intervals from {ends[0]} on)"
        return f"three of four pairs are told apart at no strength that was tried{lower}"
    at, between = f"{dose['strength']:.3f}", f"[{ends[0]}, {ends[1]}]"
    return f"three of four pairs are told apart from at most {at} {between} of the residual norm on"
