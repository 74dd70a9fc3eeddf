"""The documentation does what it says: every block is run, every link leads somewhere, every table is the code's."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

import augury
from augury.lm.bundled import REVISION
from augury.oracle.hub import SHIPPED
from tests.conftest import ROOT, require
from tests.docs.blocks import PYTHON, SHELL, Block, anchors_of, blocks_of, commands_of, links_of, table_after

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md"))]
IDS = [str(path.relative_to(ROOT)) for path in PAGES]
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = [page for page in PAGES if any(b.lang in (*PYTHON, *SHELL) and b.no_test is None for b in blocks_of(page))]
# What a reader would do in a shell and a test must not: it is checked instead.
CHECKED = ("make", "pip", "python", "git")


# --- blocks that are run -------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a checkout to commands that name its files."""
    for name in ("recipes", "tests", "examples"):
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shipped(smollm2: Any) -> None:
    """The bundled model, and the oracle that ships for it."""
    whole = (SHIPPED["smollm2"] / "adapter_model.safetensors").is_file()
    require(whole, "the shipped oracle smollm2 is not in this checkout")


@pytest.mark.slow
@pytest.mark.bundled
@pytest.mark.timeout(1800)  # a page loads the model for each of its command lines
@pytest.mark.usefixtures("shipped", "place")
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_blocks_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.no_test is not None:
            continue
        if block.lang in PYTHON:
            run_python(block, namespace)
        elif block.lang in SHELL:
            for command in commands_of(block):
                if command[0] == "augury":
                    run_augury(command[1:], block)


def run_python(block: Block, namespace: dict[str, Any]) -> None:
    """Run a block; line numbers in a traceback are the page's."""
    padded = "\n" * (block.line - 1) + block.code
    exec(compile(padded, str(block.path), "exec"), namespace)


def run_augury(arguments: Sequence[str], block: Block) -> None:
    """Run a command line in this process; it must end well and say something."""
    from typer.testing import CliRunner

    result = CliRunner().invoke(cli_app(), list(arguments))
    shown = f"{block.where}: augury {' '.join(arguments)}\n{result.output}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(shown) from result.exception
    assert result.exit_code == 0, shown
    assert result.output.strip(), shown


def cli_app() -> Any:
    """The command line's typer application."""
    from augury.cli import app

    return app


def test_a_broken_block_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", encoding="utf-8")
    namespace: dict[str, Any] = {}
    good, bad = blocks_of(page)
    run_python(good, namespace)
    with pytest.raises(AssertionError) as caught:
        run_python(bad, namespace)
    assert (bad.line, caught.traceback[-1].lineno + 1) == (8, 8)


# --- blocks that are checked ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.lang in PYTHON], ids=lambda b: b.where)
def test_python_parses(block: Block) -> None:
    ast.parse(block.code, block.where)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.lang in SHELL], ids=lambda b: b.where)
def test_shell_names_what_exists(block: Block) -> None:
    commands = commands_of(block)
    assert commands, f"{block.where} holds no command"
    for command in commands:
        if command[0] == "make":
            check_make(command[1:])
        elif command[0] == "pip":
            check_pip(command[1:])
        elif command[0] == "python":
            check_script(command[1:])
        elif command[0] == "torchrun":
            assert "-m augury train" in " ".join(command), f"{block.where}: {command} starts something else"
        else:
            assert command[0] in ("augury", *CHECKED), f"{block.where}: nobody checks '{command[0]}'"


def check_make(words: Sequence[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    assert phony is not None
    targets = [word for word in words if "=" not in word]
    assert targets
    assert set(targets) <= set(phony[1].split()), f"no such targets: {targets}"


def check_pip(words: Sequence[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert words[0] in ("install", "download"), f"pip {words[0]}"
    for word in words[1:]:
        if match := re.fullmatch(r"(?:\.|augury)\[([\w,]+)\]", word):
            unknown = set(match[1].split(",")) - set(project["optional-dependencies"])
            assert not unknown, f"no such extras: {unknown}"
        else:
            known = (".", "augury", REVISION)
            assert word.startswith("-") or word in known or re.fullmatch(r"torch(==[\d.]+)?", word), word


def check_script(words: Sequence[str]) -> None:
    """A script of the repository that takes these options."""
    script = ROOT / words[0]
    assert script.is_file(), f"there is no {words[0]}"
    told = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True).stdout
    unknown = {word for word in words[1:] if word.startswith("-") and not re.search(rf"(?<!\S){word}\b", told)}
    assert not unknown, f"{words[0]} takes no {unknown}"


AUGURY_LINES = [
    (b, command[1:]) for b in BLOCKS if b.lang in SHELL for command in commands_of(b) if command[0] == "augury"
]


@pytest.mark.parametrize(
    ("block", "words"), AUGURY_LINES, ids=[f"{block.where}-{' '.join(words[:2])}" for block, words in AUGURY_LINES]
)
def test_command_lines_parse(block: Block, words: list[str]) -> None:
    """Verbs and options exist, in lines that are not run too."""
    import typer

    command: Any = typer.main.get_command(cli_app())
    rest = list(words)
    while rest and getattr(command, "commands", None):
        verb = rest.pop(0)
        assert verb in command.commands, f"{block.where}: there is no verb '{verb}'"
        command = command.commands[verb]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options = {word.partition("=")[0] for word in rest if re.match(r"--\w|-[a-z]$", word)}
    assert options <= {*known, "--help"}, f"{block.where}: unknown options {options - known}"


def test_untested_blocks_say_why() -> None:
    untested = [block for block in BLOCKS if block.no_test is not None]
    for block in untested:
        assert block.lang in (*PYTHON, *SHELL), f"{block.where}: there is nothing to run"
        assert len(block.no_test or "") > 8, f"{block.where} gives no reason"
    print(*(f"{block.where}: {block.no_test}" for block in untested), sep="\n")


def test_every_block_names_its_language() -> None:
    known = {*PYTHON, *SHELL, "text", "json", "yaml", "jsonl"}
    unknown = [f"{block.where}: {block.lang!r}" for block in BLOCKS if block.lang not in known]
    assert unknown == []


def test_fences_are_balanced() -> None:
    for page in PAGES:
        fences = [line for line in page.read_text(encoding="utf-8").splitlines() if line.lstrip().startswith("```")]
        assert len(fences) == 2 * len(blocks_of(page)), page


# --- links ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [link for link in links_of(page) if not leads_somewhere(page, link)]
    assert broken == []


def leads_somewhere(page: Path, link: str) -> bool:
    if re.match(r"https?://", link):
        return True  # the network is not asked
    target, _, anchor = link.partition("#")
    file = (page.parent / target).resolve() if target else page
    if not file.exists():
        return False
    return not anchor or (file.suffix == ".md" and anchor in anchors_of(file))


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title\n[a](#a-title) [b](#none) [c](other.md) <!-- [d](gone.md) -->\n", encoding="utf-8")
    assert [link for link in links_of(page) if not leads_somewhere(page, link)] == ["#none", "other.md"]


def test_markers_are_paired() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        begun, ended = (re.findall(rf"<!-- (\w+):{end} -->", text) for end in ("begin", "end"))
        assert begun == ended, page


# --- tables that copy the code -------------------------------------------------------------------------------------


def test_error_codes_are_the_codes() -> None:
    kinds = errors_of(ROOT / "src" / "augury")
    wanted = [(kind.code, kind.__name__, standard_error(kind), str(kind.exit_code)) for kind in kinds]
    rows = table_after((DOCS / "errors.md").read_text(encoding="utf-8"), "<!-- codes -->")
    assert sorted(tuple(row[:4]) for row in rows) == sorted(wanted)


def errors_of(source: Path) -> list[type[augury.AuguryError]]:
    """The refusals that any module defines, found in its text."""
    known, found = {"AuguryError"}, []
    for path in [source / "errors.py", *sorted(set(source.rglob("*.py")) - {source / "errors.py"})]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            bases = {base.id for base in getattr(node, "bases", ()) if isinstance(base, ast.Name)}
            if isinstance(node, ast.ClassDef) and bases & known:
                known.add(node.name)
                module = ".".join(path.relative_to(source.parent).with_suffix("").parts)
                found.append(getattr(import_module(module), node.name))
    return found


def standard_error(kind: type[augury.AuguryError]) -> str:
    return next(base.__name__ for base in kind.__mro__ if base.__module__ == "builtins")


def documented(name: str) -> list[str]:
    text = (DOCS / "formats.md").read_text(encoding="utf-8")
    return [row[0] for row in table_after(text, f"<!-- fields: {name} -->")]


@pytest.mark.parametrize("name", ["Contract", "Injection", "PromptFormat", "Positions", "TrainedOn"])
def test_contract_fields_are_the_models(name: str) -> None:
    import augury.contract

    assert documented(name) == list(getattr(augury.contract, name).model_fields)


def test_activations_fields_are_those_written(tmp_path: Path) -> None:
    import json

    import torch
    from safetensors import safe_open

    acts = augury.Activations.from_tensor(torch.ones(2, 4), layers=3)
    with safe_open(acts.save(tmp_path / "acts.safetensors"), framework="pt") as file:
        index = json.loads(file.metadata()["augury"])
    assert (index["format"], index["version"], set(index)) == (
        "augury-activations",
        1,
        {"format", "version", "single", "items"},
    )
    assert set(documented("activations index")) == set(index["items"][0])


def test_batch_fields_are_those_read() -> None:
    from augury.cli import rows

    assert set(documented("batch")) == rows._FIELDS
    assert tuple(documented("batch")[:3]) == rows._CONTEXTS


def test_data_fields_are_the_dataclasses() -> None:
    from augury.data.example import Context, Example

    assert documented("Context") == list(Context.__dataclass_fields__)
    assert documented("Example") == list(Example.__dataclass_fields__)


def test_metrics_fields_are_the_dataclass() -> None:
    from augury.train.loop import StepReport

    assert documented("StepReport") == list(StepReport.__dataclass_fields__)


def test_ao_config_fields_are_those_read_and_written() -> None:
    from augury.contract import Contract, Injection, ao_config, ao_config_from_contract

    text = (DOCS / "formats.md").read_text(encoding="utf-8")
    part = text[text.index("## `ao_config.json`") : text.index("## Activations")]
    needed, others = documented("ao_config, needed"), documented("ao_config, read")
    assert set(needed) == set(ao_config._NEEDED)
    assert {*needed, *others} - {"layer_combinations"} == ao_config._TAKEN
    contract = Contract(base_model="owner/name", n_layers=30, layers=((18,),), injection=Injection())
    for field in ao_config_from_contract(contract, {}):
        assert f"`{field}`" in part, field


def test_layer_table_is_the_code() -> None:
    from augury.contract import percent_to_layer

    text = (DOCS / "concepts.md").read_text(encoding="utf-8")
    assert '`"62%"` is layer 18, which is `hidden_states[19]`' in text
    assert percent_to_layer(30, 62) == 18


# --- the notebook and the built site -------------------------------------------------------------------------------


def test_notebook_is_the_quickstart() -> None:
    import json

    notebook = json.loads((DOCS / "quickstart.ipynb").read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    wanted = [b.code.strip() for b in blocks_of(DOCS / "quickstart.md") if b.lang in PYTHON and b.no_test is None]
    assert code == wanted, "run python docs/make_notebook.py"


def test_notebook_was_run() -> None:
    import json

    notebook = json.loads((DOCS / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    require(all(cell["execution_count"] for cell in cells), "the notebook waits for python docs/make_notebook.py")
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert str(Path.home()) not in json.dumps(outputs)
    shipped = hashlib.sha256((SHIPPED["smollm2"] / "adapter_model.safetensors").read_bytes()).hexdigest()
    told = notebook["metadata"]["augury"]["adapter_sha256"]
    assert told == shipped, "its answers are an older oracle's: run python docs/make_notebook.py"


def test_quality_tells_the_shipped_report() -> None:
    """The page's tables, the package's report and the contract's figures are those of one measurement."""
    import json

    from augury.train.report import PARTS, Report
    from augury.train.report_tables import markdown

    folder = SHIPPED["smollm2"]
    told = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    contract = json.loads((folder / "oracle.json").read_text(encoding="utf-8"))
    report = TypeAdapter(Report).validate_python({name: told[name] for name in PARTS})
    assert contract["evaluation"] == json.loads(json.dumps(report.headline()))
    assert contract["trained_on"] == told["trained_on"]
    page = (DOCS / "quality.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in markdown(report).splitlines() if line.startswith("|")]
    assert [row for row in rows if row not in page] == []


def test_the_bench_of_the_shipped_oracle_is_one_measurement() -> None:
    """Its page, the model card and the report that programs read; and it is about the oracle that ships."""
    import json

    from augury.bench.markdown import markdown

    summary = json.loads((DOCS / "bench" / "summary.json").read_text(encoding="utf-8"))
    contract = json.loads((SHIPPED["smollm2"] / "oracle.json").read_text(encoding="utf-8"))
    assert summary["oracle"]["contract"]["trained_on"] == contract["trained_on"]
    told = markdown(summary)
    for page in (DOCS / "bench" / "index.md", SHIPPED["smollm2"] / "README.md"):
        assert told.strip() in page.read_text(encoding="utf-8"), page
    figure = summary["headline"]
    headline = f"{figure['estimate']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
    assert headline in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "<h1>smollm2 on" in (DOCS / "bench" / "report.html").read_text()


@pytest.mark.slow
def test_site_builds_strictly(tmp_path: Path) -> None:
    require(shutil.which("mkdocs", path=str(Path(sys.executable).parent)), "mkdocs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES) - 1
    outside = {
        url
        for page in pages
        for url in re.findall(r'(?:src|rel="stylesheet" href)="(https?://[^"]+)"', page.read_text())
    }
    assert outside == set(), "pages load nothing from the network"
