"""One text, read by several organisms, each asked about what all of them hold."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from augury.bench.item import Item, State
from augury.bench.organisms import Organism, facts_of
from augury.bench.task import NO, YES
from augury.lm import LanguageModel, transcript_of
from augury.lm.adapters import load_target_adapter, remove_adapter

POSITIONS = 20


def asked_both_ways(lm: LanguageModel, found: Sequence[Organism], fact: str, text: str) -> Iterator[Item]:
    """No reader of the text can tell these items' answers apart.

    Args:
        lm: The target.
        found: Organisms that hold two things or more between them.
        fact: What is asked about.
        text: What is read.
    """
    transcript = transcript_of(lm, [{"role": "user", "content": text}], "generation")
    ids, spans = transcript.token_ids, tuple((span.role, span.start, span.stop) for span in transcript.spans)
    forms = facts_of(fact)
    values = dict.fromkeys(one.secret.facts[fact] for one in found)
    for one, asked in itertools.product(found, values):
        questions = {f"ask{i}": form.format(value=asked) for i, form in enumerate(forms.get("yes_no", ()))}
        yield Item(
            id=f"{fact}-{one.secret.name}-{asked}-{text}",
            problem=text,
            token_ids=ids,
            positions=tuple(range(max(0, len(ids) - POSITIONS), len(ids))),
            facts={
                "truth": YES if asked == one.secret.facts[fact] else NO,
                "asked": asked,
                "held": one.secret.facts[fact],
                "fact": fact,
                "open": forms.get("open", ""),
                **questions,
            },
            state=State(organism=one.secret.name),
            spans=spans,
            cluster=one.secret.name,
        )


@contextmanager
def loaded_organisms(lm: LanguageModel, found: Sequence[Organism]) -> Iterator[dict[str, LanguageModel]]:
    """The target as each organism, by name."""
    with ExitStack() as stack:
        models = {}
        for one in found:
            models[one.secret.name] = loaded = load_target_adapter(lm, one.folder)
            stack.callback(remove_adapter, lm, loaded.target_adapters[-1])
        yield models
