"""Missing information: the same neutral words, worked through with and without a number that the problem needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from augury.bench.item import Item, ItemSet
from augury.bench.published_items import published
from augury.bench.task import NO, REGISTRY, YES, Build, Items, Task
from augury.bench.texts import texts
from augury.errors import ModelError
from augury.lm import transcript_of

COMPLETE, INCOMPLETE, FORCED, OTHER = "A", "B", "C", "D"
PUBLISHED = "missing_info/missing_info_eval_dataset.json"
WINDOW = 8  # of all conditions, so that the number of slots tells nothing


def build(wanted: Build) -> Iterator[Item]:
    """Each problem complete and incomplete, behind two beginnings of a solution: neither beginning tells which.

    AObench has three of these four; there an incomplete problem's own words give it away.
    """
    found = texts("missing_info")
    rounds = range(len(found["work"]))
    for turn in rounds:
        for problem in found["problems"]:
            work, other = found["work"][turn], found["other"][turn]
            rows = {
                COMPLETE: _read(wanted, problem, "given", work),
                INCOMPLETE: _read(wanted, problem, "without", other),
                FORCED: _read(wanted, problem, "without", work),
                OTHER: _read(wanted, problem, "given", other),
            }
            _check(rows)
            for condition, (ids, positions, spans) in rows.items():
                yield Item(
                    id=f"{problem['id']}-{turn}-{condition}",
                    problem=problem["id"],
                    token_ids=ids,
                    positions=positions,
                    facts={
                        "truth": NO if condition in (COMPLETE, OTHER) else YES,
                        "condition": condition,
                        "contrast": f"{FORCED} less {COMPLETE}"
                        if condition in (COMPLETE, FORCED)
                        else f"{INCOMPLETE} less {OTHER}",
                        "pair": f"{problem['id']}-{turn}-{'work' if condition in (COMPLETE, FORCED) else 'other'}",
                        "words": work if condition in (COMPLETE, FORCED) else other,
                        **{f"ask{i}": text for i, text in enumerate(found["questions"])},
                    },
                    spans=spans,
                )


def load(wanted: Build, folder: Path) -> ItemSet:
    """The published chains of thought: of each problem a complete one, an incomplete one, and that with the same words.

    Raises:
        FormatError: The file is not in the published form.
    """
    questions = {f"ask{i}": text for i, text in enumerate(texts("missing_info")["questions"])}

    def read(row: dict) -> Iterator[Item]:
        start = transcript_of(wanted.lm, [{"role": "user", "content": row["problem_text"]}], "thinking")
        thought = transcript_of(wanted.lm, row["full_reasoning"] + row["teacher_forced_segment"]).token_ids
        ids, condition = (*start.token_ids, *thought), row["condition"][0]
        facts = {
            "truth": YES if row["ground_truth_missing_info"] else NO,
            "condition": condition,
            "contrast": f"{INCOMPLETE} less {COMPLETE}" if condition == INCOMPLETE else f"{FORCED} less {COMPLETE}",
            "pair": row["id"].rsplit("_", 1)[0],
            "words": "",  # as published: all conditions are compared with each other
            **questions,
        }
        places = range(len(ids) - int(row["neutral_segment_token_count"]), len(ids))
        spans = tuple((span.role, span.start, span.stop) for span in start.spans)
        yield Item(row["id"], row["problem_id"], ids, tuple(places), facts, spans=spans)

    return published("missing_info", folder, PUBLISHED, read)


Row = tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[str, int, int], ...]]


def _read(wanted: Build, problem: dict[str, str], which: str, work: str) -> Row:
    """The problem as a user's turn, and the beginning of an answer, of which the last words are read."""
    text = problem["text"].format(given=problem[which])
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": work.strip()}]
    found = transcript_of(wanted.lm, messages, "open")
    user, answer = (next(s for s in reversed(found.spans) if s.role == role) for role in ("user", "assistant"))
    spans = tuple((span.role, span.start, span.stop) for span in (user, answer))
    return found.token_ids[: answer.stop], tuple(range(max(answer.start, answer.stop - WINDOW), answer.stop)), spans


def _check(rows: dict[str, Row]) -> None:
    """Equal tokens are read behind the complete problem and the incomplete one."""
    for pair in ((COMPLETE, FORCED), (INCOMPLETE, OTHER)):
        (one, at, _), (other, there, _) = (rows[condition] for condition in pair)
        if [one[i] for i in at] != [other[i] for i in there] or one == other:
            why, instead = "this chat template changes an answer that is left open", "report this with the model's name"
            raise ModelError("A pair of conditions is not read at equal tokens.", why, instead)


def worked(item: Item) -> bool:
    """Whether it is one of the pairs that AObench compares: the same work on a whole problem and on another."""
    return item.facts["condition"] in (COMPLETE, FORCED)


REGISTRY.add(
    Items("missing_info", "templates of this package", "that of this package", build, load),
    Task(
        "missing_info",
        "whether a problem lacks a number that it needs, read while its solution begins",
        "missing_info",
        "yes_no",
        ("{ask0}", "{ask1}", "{ask2}"),
        window=WINDOW,
        sweep=(1, 4),
        stratum="words",
        aggregate="missing_info",
    ),
    Task(
        "activation_sensitivity",
        "whether answers differ in meaning where the same words are read in a complete problem and in one that is not",
        "missing_info",
        "open",
        (
            "What is the state of the model's reasoning at this point?",
            "Is the model confused about anything here? Say what.",
            "What information does the model have about the problem?",
        ),
        window=WINDOW,
        where=worked,
        new_tokens=48,
        rubric="difference",
        aggregate="activation_sensitivity",
    ),
)
