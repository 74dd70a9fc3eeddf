"""`--diff`: one question about three reads of the same tokens: the fine-tune's, the base's, and what lies between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from augury.cli.common import say, show_results, stdout, working, write_json
from augury.cli.options import ModelOptions
from augury.cli.sources import load_target, oracle_name, parse_layers, read_context
from augury.errors import InputError

if TYPE_CHECKING:
    from augury.activations import Activations
    from augury.audit.states import Context, Reads
    from augury.audit.subjects import Shelf, Subject
    from augury.cli.reading import Request, Verb
    from augury.contract import ModelIdentity
    from augury.lm import LanguageModel
    from augury.oracle import Oracle

READS = ("fine-tuned", "base", "difference")
SHOWN = 12  # positions on a line of norms
_HERE = "here"


@dataclass(frozen=True, eq=False)
class Plain:
    """What the base represents, and all that a fine-tune is set against it by: no model, so that the base may go.

    Attributes:
        identity: Of the base.
        context: What is read, and where.
        tokens: The tokens that are, as text.
        acts: What the base represents there.
        floor: The relative norm that equal models would show.
    """

    identity: ModelIdentity
    context: Context
    tokens: tuple[str, ...]
    acts: Activations
    floor: float

    @property
    def positions(self) -> tuple[int, ...]:
        """All that were named, in that order."""
        return self.context.places[_HERE]


def check_diff(request: Request) -> None:
    """Refuse `--diff` where there are no two models or no one context to read.

    Raises:
        InputError: With `--activations`, with `--jsonl`, or without a fine-tune.
    """
    if request.stored.activations is not None:
        why, instead = "stored activations are no model, so nothing can be captured anew", "pass the context itself"
        raise InputError("--diff does nothing beside --activations.", why, instead)
    if request.batch.jsonl is not None:
        why = "it reads one context, by a noise floor of its own"
        raise InputError("--diff does not go with --jsonl.", why, "run it once for each context, or `augury audit`")
    if request.models.adapter is None and request.oracles.target is None:
        why = "a difference is between a fine-tune and its base, --model"
        raise InputError("--diff needs a fine-tune.", why, "pass --adapter FOLDER or --target MODEL too")


def ask_three(verb: Verb, request: Request, as_json: bool) -> None:
    """Ask all questions about the three reads of the one context, and print what comes of it.

    Raises:
        InputError: The fine-tune is below the noise floor at all positions.
        ContractError: It is no fine-tune of the base.
    """
    from augury.audit.subjects import TARGET, subject_of
    from augury.cli.reading import asked

    source, base = read_context(request.context), request.models.model
    subject = subject_of(TARGET, request.oracles.target or base, base, request.models.adapter)
    shelf = _shelf(request)
    plain = _of_base(shelf, source, request, verb.positions)
    reads = _reads(subject, plain, _of_tuned(shelf, subject, plain))
    three = (reads.tuned, reads.base, reads.difference)
    results = asked(verb, shelf.oracle(), [(acts, question) for question in request.questions for acts in three])
    by_question = [results[start : start + len(READS)] for start in range(0, len(results), len(READS))]
    if as_json:
        write_json(_told(subject, plain, reads, request.questions, by_question))
    else:
        _show(plain, reads, by_question)


def _shelf(request: Request) -> Shelf:
    from augury.audit.subjects import Shelf
    from augury.oracle import load_oracle

    models, oracles = request.models, request.oracles
    name = oracle_name(models, oracles)
    bare = ModelOptions(models.model, None, models.dtype, models.device)

    def oracle_on(lm: LanguageModel) -> Oracle:
        with working(f"loading the oracle {name}"):
            return load_oracle(name, lm, off_contract=oracles.off_contract, reader=oracles.reader)

    return Shelf(models.model, lambda model: load_target(bare, model), oracle_on)


def _of_base(shelf: Shelf, source: Any, request: Request, default: str) -> Plain:
    """The base, and how far it is from itself in another batch."""
    from augury.activations import noise_floor, resolve, resolve_layers
    from augury.audit.states import SAFETY, Context, captured
    from augury.cli.sources import transcript
    from augury.oracle.reading import decoded, default_layers

    named, selector = parse_layers(request.context.layers), request.context.positions
    oracle = shelf.oracle()
    base = oracle.base
    layers = default_layers(oracle.contract) if named is None else resolve_layers(base.n_layers, named)
    read = transcript(base, source, request.context.end)
    positions = resolve(base, read, default if selector is None else selector)
    tokens = tuple(decoded(base, [read.token_ids[position]], special=True) for position in positions)
    context = Context("", read, {_HERE: positions})
    with working("capturing the base"):
        (acts,) = captured(base, [context], layers)
        floor = SAFETY * noise_floor(base, read, layers, positions)
    return Plain(base.identity, context, tokens, acts, floor)


def _of_tuned(shelf: Shelf, subject: Subject, plain: Plain) -> Activations:
    from augury.audit.states import captured
    from augury.audit.subjects import check_alike

    with shelf.opened(subject) as lm:
        check_alike(plain.identity, lm.identity)
        with working("capturing the fine-tune"):
            return captured(lm, [plain.context], plain.acts.layers)[0]


def _reads(subject: Subject, plain: Plain, tuned: Activations) -> Reads:
    from augury.audit.states import reads_of

    reads = reads_of(plain.context, _HERE, tuned, plain.acts, plain.acts.layers, plain.floor)
    if not reads.asked:
        raise InputError(
            f"{subject.name} is below the noise floor everywhere.",
            f"at none of {reads.left_out} positions does it differ from the base by more than {plain.floor:.1e} of the "
            "norm, as the base does from itself in another batch",
            "read other positions or another context, or name a fine-tune whose weights differ from the base's",
        )
    return reads


def _left_out(plain: Plain, reads: Reads) -> list[int]:
    kept = () if reads.tuned is None else reads.tuned.positions
    return [position for position in plain.positions if position not in kept]


# --- output --------------------------------------------------------------------------------------------------------


def _told(
    subject: Subject, plain: Plain, reads: Reads, questions: Sequence[str], by_question: Sequence[Sequence[Any]]
) -> dict[str, Any]:
    return {
        "kind": "difference",
        "base": plain.identity.name,
        "fine_tune": subject.name,
        "layers": list(plain.acts.layers),
        "positions": list(plain.positions),
        "tokens": list(plain.tokens),
        "relative_norms": reads.norms.tolist(),
        "noise_floor": plain.floor,
        "left_out": _left_out(plain, reads),
        "results": [
            {"question": question, **{name: one.to_dict() for name, one in zip(READS, three, strict=True)}}
            for question, three in zip(questions, by_question, strict=True)
        ],
    }


def _show(plain: Plain, reads: Reads, by_question: Sequence[Sequence[Any]]) -> None:
    from rich.text import Text

    for layer, norms in zip(plain.acts.layers, reads.norms.tolist(), strict=True):
        stdout().print(Text(_line(layer, norms, plain.tokens)), soft_wrap=True)
    named = [
        replace(one, question=f"{name}: {one.question}")
        for three in by_question
        for name, one in zip(READS, three, strict=True)
    ]
    show_results(named, as_json=False)
    if left_out := _left_out(plain, reads):
        where = f"{len(left_out)} of {len(plain.positions)} positions left out ({', '.join(map(str, left_out))})"
        say(f"note: {where}: the difference there is not above the noise floor, {plain.floor:.1e}", style="dim")


def _line(layer: int, norms: Sequence[float], tokens: Sequence[str]) -> str:
    """The largest norms of one layer, in the order they were read."""
    from augury.activations.show import visible

    largest = sorted(sorted(range(len(norms)), key=lambda i: -norms[i])[:SHOWN])
    among = "" if len(largest) == len(norms) else f" (the {SHOWN} largest of {len(norms)})"
    told = ", ".join(f"{visible(repr(tokens[i]))} {norms[i]:.2g}" for i in largest)
    return f"||difference|| / ||base|| at layer {layer}{among}: {told}"
