"""`augury serve` under many clients, beside one client that asks one thing at a time: speed, right answers, memory.

Every request asks about a text of its own, and its reply is compared with what an oracle in this process answered
before. Requests that are refused for their number are sent again, and counted. Both sides get a server of their own.

    python benchmarks/serve.py --json serve.json
    python benchmarks/serve.py --seconds 20 --alone 10
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from serve_clients import MIX, Case, Client, Tally, cases

import augury

BAR, DRIFT, TOKENS = 2.0, 0.05, 4
# The server with one more line on stderr when it stops: how many steps it took, in how many batches.
SERVE = """
import json, sys
from augury.server.engine import Engine
stop = Engine.stop
def counted(self, within):
    stop(self, within)
    print(json.dumps({"jobs": self.jobs, "batches": self.batches}), file=sys.stderr, flush=True)
Engine.stop = counted
from augury.cli import main
main()
"""


@dataclass
class Server:
    """`augury serve` in a process of its own.

    Attributes:
        url: Where.
        tokens: Its callers'.
        counts: After it has stopped: `jobs` and `batches` of its engine.
    """

    url: str
    tokens: list[str]
    process: subprocess.Popen[str]
    counts: dict[str, int] = field(default_factory=dict)

    def resident(self) -> float:
        """Its memory, in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def serving(options: argparse.Namespace) -> Iterator[Server]:
    """A server as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = [f"a-token-of-caller-{number}" for number in range(TOKENS)]
        path = Path(folder) / "tokens"
        path.touch(0o600)
        path.write_text("".join(f"caller-{number}: {token}\n" for number, token in enumerate(tokens)))
        command = [sys.executable, "-c", SERVE, "serve", "--model", options.model, "--oracle", options.oracle]
        with open(Path(folder) / "log", "w+") as log:
            process = subprocess.Popen(
                [*command, "--port", "0", "--json", "--token-file", str(path)],
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
            assert process.stdout is not None
            try:
                line = process.stdout.readline()
                if not line:
                    log.seek(0)
                    why, instead = log.read()[-500:], "see what `augury serve` says by itself"
                    raise augury.AuguryError("The server did not start.", why, instead)
                server = Server(json.loads(line)["url"], tokens, process)
                yield server
                process.send_signal(signal.SIGTERM)
                process.wait(30)
                log.seek(0)
                rows = [json.loads(line) for line in log if line.startswith('{"jobs"')]
                server.counts.update(rows[0])
            finally:
                process.kill()


def load(server: Server, clients: int, seconds: float, known: list[Case]) -> tuple[Tally, list[float]]:
    """What so many clients get in this time, and the server's memory at every second of it."""
    tally = Tally()
    until = time.monotonic() + seconds
    rows = []
    for number in range(clients):
        http = httpx2.Client(base_url=server.url, timeout=300)
        tokens = [server.tokens[number % TOKENS]] if clients > 1 else server.tokens
        rows.append(Client(http, tokens, known, tally, random.Random(number)))
    threads = [threading.Thread(target=one.go_on, args=(until,), daemon=True) for one in rows]
    for thread in threads:
        thread.start()
    memory = []
    while time.monotonic() < until:
        memory.append(server.resident())
        time.sleep(1)
    for one, thread in zip(rows, threads, strict=True):
        thread.join(300)
        if thread.is_alive():
            tally.lost.append("a client that never ended")
        one.http.close()
    return tally, memory


def side(options: argparse.Namespace, clients: int, seconds: float, known: list[Case]) -> dict[str, Any]:
    """One server under so many clients; every kind of request has been sent once before the clock starts."""
    with serving(options) as server:
        with httpx2.Client(base_url=server.url, timeout=300) as http:
            first = Client(http, server.tokens, known, Tally(), random.Random(0))
            for kind in MIX:
                first.one(kind)
        began = time.monotonic()
        tally, memory = load(server, clients, seconds, known)
        took = time.monotonic() - began
        last = max(1, min(60, len(memory) // 3))
        found = {
            "clients": clients, "seconds": took, "requests": tally.answered, "per_second": tally.answered / took,
            "kinds": {kind: _quantiles(times) for kind, times in tally.seconds.items() if times},
            "refused": sum(tally.refused.values()), "lost": tally.lost, "wrong": tally.wrong,
            "resident": [statistics.mean(memory[:last]), statistics.mean(memory[-last:])],
        }  # fmt: skip
    return {**found, **server.counts, "batch": server.counts["jobs"] / server.counts["batches"]}


def _quantiles(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99
    return {"count": len(times), "p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with augury.load_oracle(options.oracle, augury.load_model(options.model)) as oracle:
        known = cases(oracle)
    print(f"{len(known)} texts, {len({one.answer for one in known})} different answers", file=sys.stderr, flush=True)
    many = side(options, options.clients, options.seconds, known)
    one = side(options, 1, options.alone, known)
    first, last = many["resident"]
    return {
        "many": many, "one": one, "times": many["per_second"] / one["per_second"], "bar": BAR,
        "drift": last / first - 1, "drift_bar": DRIFT,
    }  # fmt: skip


def show(found: dict[str, Any]) -> None:
    """The table, and what it comes to."""
    from rich.console import Console
    from rich.table import Column, Table

    heads = [Column(name, justify="right") for name in ("requests", "p50, s", "p95, s", "p99, s", "alone: p50, s")]
    table = Table("request", *heads)
    for kind, row in found["many"]["kinds"].items():
        alone = found["one"]["kinds"].get(kind)
        cells = [f"{row[name]:.2f}" for name in ("p50", "p95", "p99")]
        table.add_row(kind, str(row["count"]), *cells, f"{alone['p50']:.2f}" if alone else "")
    console = Console()
    console.print(table)
    for name in ("many", "one"):
        row = found[name]
        told = f"{row['per_second']:.2f} requests/s, {row['requests']} in {row['seconds']:.0f} s"
        bad = f"lost {len(row['lost'])}, wrong {len(row['wrong'])}, refused {row['refused']}"
        console.print(f"clients {row['clients']}: {told}; batches of {row['batch']:.2f}; {bad}")
        for line in (row["lost"] + row["wrong"])[:10]:
            console.print(f"  {line}", markup=False)
    first, last = found["many"]["resident"]
    console.print(f"{found['times']:.2f} times (bar: {BAR:g})")
    console.print(f"memory: {first:.0f} MiB at first, {last:.0f} at last, {found['drift']:+.1%} (bar: {DRIFT:.0%})")


def passed(found: dict[str, Any]) -> bool:
    clean = not any(found[name][what] for name in ("many", "one") for what in ("lost", "wrong"))
    return clean and found["times"] >= BAR and abs(found["drift"]) <= DRIFT


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--oracle", default="smollm2")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=180, help="of the many clients")
    parser.add_argument("--alone", type=float, default=30, help="seconds of the one client")
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    try:
        found = measure(options)
    except augury.AuguryError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if passed(found) else 2


if __name__ == "__main__":
    sys.exit(main())
