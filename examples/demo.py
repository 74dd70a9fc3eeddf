"""What `make demo` shows: a model's activations, asked three questions, with what says whether to believe the answers.

Run it by itself with `python examples/demo.py [--oracle FOLDER] [--out FOLDER]`. It needs the bundled model, which
`augury models add smollm2` fetches, and no GPU, account or model hub.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")  # transformers shows a bar for weights that load in no time

from rich.console import Console
from rich.table import Table

import augury
from augury.lm import LanguageModel
from augury.lm.bundled import smollm2_folder
from augury.lm.chat import needs_tokenizer
from augury.oracle.hub import find_oracle
from augury.oracle.plot import heat_map, is_special

REQUEST = "Explain in a few sentences how to bake a simple loaf of bread."
QUESTIONS = (
    "What is this about?",
    "What was the model asked to do?",
    "What will the model say next?",
)
YES_NO = "Is this about cooking?"
DECOY = "Is this about football?"


def main() -> int:
    """Run the demonstration; 1 where it could not."""
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        show(console, options.oracle, options.out)
    except augury.AuguryError as error:
        Console(stderr=True, highlight=False).print(f"demo: {error}", markup=False)
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ask the bundled model's activations three questions.")
    parser.add_argument(
        "--oracle", default="smollm2", help="an oracle for the bundled model (default: the shipped one)"
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where the picture goes (default: demo)")
    return parser.parse_args()


def show(console: Console, oracle_name: str, out: Path) -> None:
    """Read, ask, score and scan, and say where everything lies."""
    started = time.perf_counter()
    model = augury.load_model("smollm2")
    oracle = augury.load_oracle(oracle_name, model)
    layers = oracle.contract.layers[0] if oracle.contract.layers else "62%"

    heading(console, "1. The model answers a request, and its activations are captured")
    transcript = augury.generate(model, [{"role": "user", "content": REQUEST}], max_new_tokens=27)
    request, reply = transcript.spans[0], transcript.spans[-1]
    # From the user's turn on: the system prompt before it is the same in every conversation.
    everything = augury.capture(model, transcript, layers=layers, positions=slice(request.start, None))
    read = everything[request.stop - request.start - 8 : request.stop - request.start]
    console.print(f"user:      {REQUEST}", markup=False)
    console.print(f"assistant: {words(model, transcript.token_ids[reply.start :])}", markup=False)
    console.print(
        f"\nThe oracle gets the activations of the request's last 8 tokens ({words(model, read.token_ids)!r}),",
        markup=False,
    )
    console.print(f"as vectors and without the text: {read!r}", markup=False)

    heading(console, "2. Three questions, each beside its controls")
    for question in QUESTIONS:
        answer = oracle.ask(read, question, samples=10, max_new_tokens=12, controls=True, donors=8)
        console.print(answers_table(answer), "")
    console.print(
        "none: nothing injected. shuffled: other texts' activations. untrained: the oracle's adapter off.\n"
        "text-window and text-all: the base reads the text instead. An answer that a control gives too is no evidence.",
        style="dim",
    )

    heading(console, "3. A yes/no question, scored")
    console.print(oracle.score(read, YES_NO, controls=True, donors=16))

    heading(console, "4. The same question at every token, beside one that should find nothing")
    scans = [oracle.scan(everything, question, donors=8) for question in (YES_NO, DECOY)]
    for scan in scans:
        console.print(scan)
        console.print(extremes(scan), style="dim", markup=False)

    picture = heat_map(scans, out / "heatmap.png")
    heading(console, "Where everything lies")
    console.print(places(oracle_name, picture, time.perf_counter() - started))


def words(model: LanguageModel, token_ids: Sequence[int]) -> str:
    """Token ids as text."""
    return needs_tokenizer(model).decode(list(token_ids)).strip()


def heading(console: Console, text: str) -> None:
    """A line between the parts."""
    console.print()
    console.rule(text, align="left", style="dim")


def answers_table(answer: augury.Answer) -> Table:
    """An answer and its agreement over ten samples, beside what the same question gets under each control."""
    table = Table(title=answer.question, title_justify="left", title_style="bold")
    table.add_column("evidence", no_wrap=True)
    table.add_column("most common answer", overflow="fold")
    table.add_column("agreement", justify="right")
    table.add_column("same as real", justify="right")
    table.add_row("real activations", answer.text, percent(answer.agreement), "", style="bold")
    for name, control in answer.controls.items():
        if isinstance(control, augury.Answer):
            table.add_row(name, control.text, percent(control.agreement), percent(control.same_as_real))
        else:
            table.add_row(name, str(control), "", "")
    return table


def percent(share: float | None) -> str:
    """A share for a table; nothing where there is none."""
    return "" if share is None else f"{share:.0%}"


def extremes(scan: augury.Scan, count: int = 5) -> str:
    """The tokens with the highest and the lowest values, for terminals without colours."""
    ordinary = [i for i, token in enumerate(scan.token_texts) if not is_special(token)]
    order = sorted(ordinary, key=lambda i: scan.values[i])
    named = [f"{scan.token_texts[i].strip()!r} {scan.values[i]:+.1f}" for i in order]
    return f"highest: {', '.join(reversed(named[-count:]))}\nlowest:  {', '.join(named[:count])}"


def places(oracle_name: str, picture: Path, seconds: float) -> Table:
    """Where the model, the oracle and the picture are."""
    table = Table(show_header=False, box=None)
    for name, value in (
        ("model", smollm2_folder()),
        ("oracle", find_oracle(oracle_name).resolve()),
        ("heat map", picture.resolve()),
        ("time taken", f"{seconds:.0f} s"),
    ):
        table.add_row(name, str(value))
    return table


if __name__ == "__main__":
    sys.exit(main())
