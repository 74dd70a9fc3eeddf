"""What `ask`, `score` and `scan` have in common: one context from the command line, or many from a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from augury.cli.common import Tell, progress_bar, show_results, working
from augury.cli.options import BatchOptions, ContextOptions, ModelOptions, OracleOptions, StoredOptions
from augury.cli.sources import capture_one, check_stored, check_text, load, load_stored, parse_layers, read_context
from augury.errors import InputError

if TYPE_CHECKING:
    from augury.oracle import Oracle

Pair = tuple[Any, str]


@dataclass(frozen=True)
class Verb:
    """One way of asking.

    Attributes:
        name: Of the verb.
        positions: What is read where nothing is said.
        settings: Everything that decides a result besides the context and the question.
        run: Asks the oracle about pairs of activations and questions.
        chunk: How many questions of a file are asked together. It decides who is whose donor, so it is part of the
            result.
        shown: Called with the results about one context after they were printed.
    """

    name: str
    positions: str
    settings: dict[str, Any]
    run: Callable[[Oracle, Sequence[Pair], Tell], list[Any]]
    chunk: int = 32
    shown: Callable[[Sequence[Any]], None] = lambda results: None


@dataclass(frozen=True)
class Request:
    """What was said on the command line."""

    context: ContextOptions
    stored: StoredOptions
    models: ModelOptions
    oracles: OracleOptions
    batch: BatchOptions
    questions: tuple[str, ...]
    diff: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """What names the models and the reading in a row of results."""
        return {**asdict(self.models), **asdict(self.oracles), "layers": self.context.layers, "end": self.context.end}


def carry_out(verb: Verb, request: Request, as_json: bool) -> None:
    """Do what was said and print it."""
    _check(verb, request)
    _check_donors(verb)
    if request.batch.jsonl is not None:
        from augury.cli.jsonl import run_file

        run_file(verb, request, as_json)
        return
    if request.diff:
        from augury.cli.differing import ask_three

        ask_three(verb, request, as_json)
        return
    results = run_single(verb, request)
    show_results(results, as_json)
    verb.shown(results)


def _check(verb: Verb, request: Request) -> None:
    """Refuse what cannot be meant, before anything slow is done."""
    if any(not question.strip() for question in request.questions):
        raise InputError("A question is empty.", "there is nothing to ask", 'pass --question "What is this about?"')
    _check_texts(verb, request)
    check_stored(request.stored, request.context, request.models, request.oracles.target)
    if request.diff:
        from augury.cli.differing import check_diff

        check_diff(request)
    if request.batch.jsonl is not None:
        _check_batch(request)
    elif request.batch.out is not None:
        why = "a single result goes to stdout"
        raise InputError("--out belongs to --jsonl.", why, "pass --jsonl FILE too, or redirect stdout")
    elif not request.questions:
        raise InputError("There is no question.", "none was passed", 'pass --question "What is this about?"')


def _check_texts(verb: Verb, request: Request) -> None:
    """Text on the command line that is none; the context is looked at where it is read."""
    texts = {
        "A question": request.questions,
        "--positions": request.context.positions,
        "--layers": request.context.layers,
    }
    for what, value in {**texts, "--choices": verb.settings.get("choices")}.items():
        check_text(what, value)


def _check_donors(verb: Verb) -> None:
    if verb.settings.get("donors") == 1:
        why = "one donor is no comparison: there is no place among one"
        raise InputError("--donors cannot be 1.", why, "pass 2 or more, or 0 for none")


def _check_batch(request: Request) -> None:
    context = request.context
    given = {"TEXT": context.text, "--chat": context.chat, "--tokens": context.tokens}
    named = [
        name for name, value in {**given, "--activations": request.stored.activations}.items() if value is not None
    ]
    if named:
        why = "with --jsonl every line brings its own context"
        raise InputError(f"{named[0]} does nothing beside --jsonl.", why, "leave one of the two out")
    if request.batch.out is None:
        raise InputError("--jsonl needs a place for its results.", "--out was not given", "pass -o OUT.jsonl")


def run_single(verb: Verb, request: Request) -> list[Any]:
    """Ask all questions about the one context."""
    stored = request.stored.activations
    source = None if stored is not None else read_context(request.context)
    acts = load_stored(stored, request.context.layers) if stored is not None else None
    layers, selector = parse_layers(request.context.layers), request.context.positions
    loaded = load(request.models, request.oracles)
    if acts is None:
        positions = verb.positions if selector is None else selector
        with working("capturing"):
            acts = capture_one(loaded, source, request.context.end, layers, positions)
    return asked(verb, loaded.oracle, [(acts, question) for question in request.questions])


def asked(verb: Verb, oracle: Oracle, pairs: Sequence[Pair]) -> list[Any]:
    """What the oracle says to each pair, while a spinner or a bar tells of it."""
    if len(pairs) == 1 and verb.chunk > 1:  # a bar would stand at its end while the controls are asked
        with working(f"{verb.name}: {pairs[0][1]}"):
            return verb.run(oracle, pairs, lambda done, total: None)
    with progress_bar(verb.name) as tell:
        return verb.run(oracle, pairs, tell)
