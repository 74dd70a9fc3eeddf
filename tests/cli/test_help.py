"""Help and misuse: light, with examples, and never a traceback."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import pytest

import augury

VERBS = (
    *("ask", "score", "scan", "capture", "train", "ablate", "data", "bench", "audit", "models", "hub", "serve"),
    "doctor",
)
HEAVY = ("torch", "transformers", "peft", "numpy", "yaml")


def augury_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "augury", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_help_of_every_verb_loads_nothing_heavy() -> None:
    code = f"""
import sys
from augury.cli import main
SUB = (("models", "add"), ("hub", "push"), ("hub", "pull"), ("data", "build"), ("data", "show"))
for verb in ((), *((verb,) for verb in {VERBS!r}), *SUB):
    sys.argv = ["augury", *verb, "--help"]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, (verb, ended.code)
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert 'augury ask "' in done.stdout and all(verb in done.stdout for verb in VERBS)


def test_help_takes_less_than_half_a_second() -> None:
    """Of processor time, which other work on the machine does not change; the best of three."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    taken = []
    for _ in range(3):
        before = spent()
        assert augury_command("--help").returncode == 0
        taken.append(spent() - before)
    assert min(taken) < 0.5, taken


def test_version() -> None:
    done = augury_command("--version")
    assert (done.returncode, done.stdout) == (0, f"augury {augury.__version__}\n")


@pytest.mark.parametrize("arguments", [["--nonsense"], ["nonsense"], ["ask", "--nonsense"], ["ask", "--samples", "-1"]])
def test_misuse_exits_with_2(arguments: list[str]) -> None:
    done = augury_command(*arguments)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr


def test_misuse_with_json() -> None:
    done = augury_command("ask", "--nonsense", "--json")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 2 and error["code"] == "input" and "--nonsense" in error["what"]
    assert error["why"] and error["instead"]


def test_misuse_with_json_names_the_option() -> None:
    for option, value in (("--samples", "-1"), ("--seed", "99999999999999999999"), ("--end", "never")):
        error = json.loads(augury_command("ask", "tea", option, value, "--json").stdout)["error"]
        assert option in error["what"], error


def test_the_wait_policy_is_set_and_the_users_wins() -> None:
    code = (
        "import os; from augury.cli.common import prepare_environment as p; p(); print(os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    for given, wanted in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**environment, **given}, check=True
        )
        assert done.stdout.strip() == wanted


def test_a_closed_pipe_is_quiet() -> None:
    """A reader that goes away before anything is written to it."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "augury", "--help"], stdout=write, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(write)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
