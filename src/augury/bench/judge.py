"""Judging open answers by a model behind an endpoint, and measuring that judge itself by planted answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from augury.bench.asks import Ask
from augury.bench.engine import ORACLE, Result
from augury.bench.rubrics import Given, Job, Rubric, given_in, request_of, rubrics, version
from augury.bench.task import Task
from augury.data.endpoint import Endpoint
from augury.data.requests import EndpointSettings
from augury.errors import FormatError, InputError, NotFoundError
from augury.files import write_text

RIGHT, WRONG, AGAIN = "right answers", "wrong answers", "asked again"
Results = Mapping[str, Sequence[Result | None]]


class JudgeSettings(EndpointSettings):
    """Who judges.

    Attributes:
        structured: Whether replies are held to their form by a JSON schema; not every endpoint can.
        controls: How many planted answers of each kind measure the judge, a task.
    """

    structured: bool = True
    controls: int = Field(default=24, ge=0)
    max_tokens: int = Field(default=300, gt=0)


def read_judge(source: str, model: str | None = None) -> JudgeSettings:
    """The judge of a YAML file, or of a URL and the name of a model there.

    Raises:
        NotFoundError: There is no such file.
        InputError: A field is unknown, missing or cannot be used.
    """
    import yaml

    if source.startswith(("http://", "https://")):
        row: Any = {"url": source, **({"model": model} if model else {})}
    else:
        path = Path(source)
        if not path.is_file():
            instead = "name a YAML file with `url` and `model`, or a URL with --judge-model"
            raise NotFoundError(f"There is no judge at {source}.", "the file does not exist", instead)
        try:
            row = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            why = " ".join(str(error).split())[:200]
            raise FormatError(f"{path} is no YAML.", why, "mend it: it holds `url`, `model` and so on") from error
        row = {**row, **({"model": model} if model else {})} if isinstance(row, dict) else row
    try:
        return JudgeSettings.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
        raise InputError(
            "This judge cannot be used.", why, "give it a url and a model; see docs/how-to/bench.md"
        ) from error


@dataclass(frozen=True)
class Judgement:
    """What the judge said of one answer.

    Attributes:
        place: Of the ask among the task's; of a pair the first.
        rater: Who answered; of a planted answer which kind it is.
        given: What it gave; None where its reply could not be read.
        expected: Of a planted answer whether it got what it should; None elsewhere, and where nothing was given.
        said: The reply that could not be read, its beginning.
    """

    place: int
    rater: str
    given: Given | None
    expected: bool | None = None
    said: str = ""


@dataclass(frozen=True)
class Judged:
    """A task's judgements.

    Attributes:
        about: Who judged: `model`, `version` of what it is told, and `tokens` and `cost` of it.
        answers: Of answers.
        planted: Of planted ones.
    """

    about: dict[str, Any]
    answers: list[Judgement]
    planted: list[Judgement]


@dataclass(frozen=True)
class _Asked:
    place: int
    rater: str
    job: Job


def judge_task(
    task: Task, asks: Sequence[Ask], results: Results, endpoint: Endpoint, told: Callable[[int, int], None]
) -> Judged:
    """Every answer at the task's own window, and planted ones, in an order that says nothing of who answered.

    Raises:
        NetworkError: The endpoint gives no reply after all retries; the replies so far are kept and not asked again.
    """
    settings = endpoint.settings
    assert isinstance(settings, JudgeSettings)
    rubric = rubrics()[_named(task)]
    answers = _answers(task, rubric, asks, results)
    planted = _planted(rubric, asks, answers, settings.controls)
    jobs = list(dict.fromkeys(asked.job for asked in (*answers, *planted)))
    jobs.sort(key=lambda job: hash_of(job))
    tokens = {"read": 0, "written": 0}
    given: dict[Job, tuple[Given | None, str]] = {}
    for done, (job, found) in enumerate(endpoint.each(lambda job: (job, _asked(endpoint, rubric, job)), jobs), 1):
        given[job] = (found.given, found.said)
        tokens["read"] += found.read
        tokens["written"] += found.written
        told(done, len(jobs))
    cost = settings.prices.cost(tokens["read"], tokens["written"]) if settings.prices else None
    about = {"model": settings.model, "version": version(), "rubric": rubric.name, "tokens": tokens, "cost": cost}
    return Judged(
        about,
        [Judgement(a.place, a.rater, given[a.job][0], None, given[a.job][1]) for a in answers],
        [_measured(rubric, a, given) for a in planted],
    )


def hash_of(job: Job) -> str:
    """An order that follows from the job alone."""
    return hashlib.sha256(json.dumps(asdict(job), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Reply:
    given: Given | None
    said: str
    read: int
    written: int


def _asked(endpoint: Endpoint, rubric: Rubric, job: Job) -> _Reply:
    """The judge's reply; one that cannot be read is asked for once more."""
    settings = endpoint.settings
    assert isinstance(settings, JudgeSettings)
    request = request_of(job, settings.structured)
    read = written = 0
    said = ""
    for seed in (None, 1):
        reply = endpoint.ask(
            request if seed is None else type(request)(request.messages, seed=seed, extra=request.extra)
        )
        read, written, said = read + (reply.prompt_tokens or 0), written + (reply.completion_tokens or 0), reply.text
        given = given_in(rubric, reply.text)
        if given is not None:
            return _Reply(given, "", read, written)
    return _Reply(None, said[:200], read, written)


def _named(task: Task) -> str:
    assert task.rubric is not None
    return task.rubric


def _answers(task: Task, rubric: Rubric, asks: Sequence[Ask], results: Results) -> list[_Asked]:
    pairs = _pairs(task, asks) if rubric.pair else [(i,) for i, ask in enumerate(asks) if ask.window == task.window]
    found = []
    for rater, rows in results.items():
        for places in pairs:
            texts = [None if rows[i] is None else str(_known(rows[i])["text"]) for i in places]
            if None not in texts:
                first = asks[places[0]]
                reference = "" if rubric.pair else first.item.facts["reference"]
                answers = tuple(text for text in texts if text is not None)
                found.append(_Asked(places[0], rater, Job(rubric.name, first.question, answers, reference)))
    return found


def _known(result: Result | None) -> Result:
    assert result is not None
    return result


def _pairs(task: Task, asks: Sequence[Ask]) -> list[tuple[int, int]]:
    """Asks about equal tokens in two conditions: they agree in the fact `pair`, the wording and the question."""
    first: dict[tuple[str, int, str], int] = {}
    found = []
    for i, ask in enumerate(asks):
        if ask.window != task.window:
            continue
        key = (ask.item.facts["pair"], ask.wording, ask.question)
        if key not in first:
            first[key] = i
            continue
        one = asks[first[key]].item
        read = [[item.token_ids[p] for p in item.window(task.window)] for item in (one, ask.item)]
        if read[0] != read[1]:
            why = f"{one.id} and {ask.item.id} are read at other tokens"
            raise FormatError(
                f"The items of {task.name} are no pairs.", why, "make them again with `augury bench build`"
            )
        found.append((first[key], i))
    return found


def _planted(rubric: Rubric, asks: Sequence[Ask], answers: Sequence[_Asked], count: int) -> list[_Asked]:
    """Answers of which it is known what they should get, and some of the oracle's once more."""
    own = [asked for asked in answers if asked.rater == ORACLE]
    chosen = own[:: max(1, len(own) // count)][:count] if count else []
    found = [_Asked(a.place, AGAIN, replace(a.job, turn=1)) for a in chosen]
    for number, a in enumerate(chosen):
        if rubric.pair:
            right, wrong = tuple(rubric.planted), (a.job.answers[0],) * 2
        else:
            other = next((asks[b.place] for b in (*chosen[number:], *chosen) if _other(asks, a, b)), None)
            right = (a.job.reference,)
            wrong = (other.item.facts["reference"],) if other else ()
        kinds = ((RIGHT, right), (WRONG, wrong))
        found += [
            _Asked(a.place, kind, Job(rubric.name, a.job.question, said, a.job.reference))
            for kind, said in kinds
            if said
        ]
    return found


def _other(asks: Sequence[Ask], one: _Asked, other: _Asked) -> bool:
    return asks[one.place].item.problem != asks[other.place].item.problem and one.job.reference != other.job.reference


def _measured(rubric: Rubric, asked: _Asked, given: Mapping[Job, tuple[Given | None, str]]) -> Judgement:
    """Whether a planted answer got what it should."""
    told, said = given[asked.job]
    expected = None
    if told is not None and asked.rater == AGAIN:
        before, _ = given[replace(asked.job, turn=0)]
        expected = None if before is None else rubric.agree(before, told)
    elif told is not None:
        expected = rubric.is_right(told) if asked.rater == RIGHT else rubric.is_wrong(told)
    return Judgement(asked.place, asked.rater, told, expected, said)


def write_judged(path: Path, task: Task, asks: Sequence[Ask], found: Judged) -> None:
    """A line about the judge, then one for each judgement."""
    rows: list[dict[str, Any]] = [{"task": task.name, "judge": found.about}]
    for kind, judgements in (("answer", found.answers), ("planted", found.planted)):
        for judgement in judgements:
            ask = asks[judgement.place]
            about = {"item": ask.item.id, "problem": ask.item.problem, "wording": ask.wording, "rater": judgement.rater}
            told = {"given": judgement.given, "expected": judgement.expected, "said": judgement.said}
            rows.append({"of": kind, "place": judgement.place, **about, **told})
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_judged(path: Path, asks: Sequence[Ask]) -> Judged | None:
    """What `write_judged` wrote; None where nothing was judged.

    Raises:
        FormatError: The judgements are of other answers.
    """
    if not path.is_file():
        return None
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = Judged(lines[0]["judge"], [], [])
    for row in lines[1:]:
        ask = asks[row["place"]] if row["place"] < len(asks) else None
        if ask is None or (ask.item.id, ask.wording) != (row["item"], row["wording"]):
            why = f"there is no such question about {row['item']}"
            raise FormatError(f"{path} judges other answers.", why, "judge them again: `augury bench rejudge`")
        judgement = Judgement(row["place"], row["rater"], row["given"], row["expected"], row["said"])
        (found.answers if row["of"] == "answer" else found.planted).append(judgement)
    return found


def with_judgements(results: Results, found: Judged | None) -> dict[str, list[Result | None]]:
    """The results with what the judge gave to each."""
    merged: dict[str, list[Result | None]] = {rater: list(rows) for rater, rows in results.items()}
    for judgement in found.answers if found else ():
        result = merged[judgement.rater][judgement.place]
        if result is not None and judgement.given is not None:
            merged[judgement.rater][judgement.place] = {**result, "given": judgement.given}
    return merged
