"""The report of a training run, for an oracle that exists already: every figure of docs/quality.md again.

Rollouts and activations are made as the recipe says (or found in the folder, where an earlier call was cut off); parts
that were measured before are kept. The probe is fitted on the training rollouts, so fewer of them make it weaker.

    python benchmarks/report.py recipes/smollm2.yaml --oracle smollm2 -o runs/report
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import augury
from augury.train.finish import write_report
from augury.train.recipe import read_recipe
from augury.train.report import make_report
from augury.train.report_tables import markdown
from augury.train.run import Progress, prepare_run


def told(phase: str, done: int, total: int) -> None:
    """One line a part, overwritten as it goes on."""
    print(f"\r\033[K{phase}: {done} of {total}", end="", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", type=Path, help="how the held-out rollouts are made")
    parser.add_argument("--oracle", required=True, help="a folder, a hub id or an alias")
    parser.add_argument("--out", "-o", type=Path, required=True, help="a folder for rollouts, activations and report")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="A.B=C", help="over the recipe")
    options = parser.parse_args()
    try:
        measure(options)
    except augury.AuguryError as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


def measure(options: argparse.Namespace) -> None:
    """Make the data, measure, and write report.json and report.md."""
    recipe = read_recipe(options.recipe, options.settings)
    prepared = prepare_run(recipe, options.out, Progress(phase=told))
    with augury.load_oracle(options.oracle, prepared.lm) as oracle:
        made = replace(prepared, contract=oracle.contract)
        report = make_report(
            made, oracle.contract, oracle.adapter, progress=told, kept=options.out / "report-parts.json"
        )
        write_report(report, oracle.contract, options.out)
    print(file=sys.stderr)
    print(markdown(report))


if __name__ == "__main__":
    sys.exit(main())
