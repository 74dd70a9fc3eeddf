"""Make docs/quickstart.ipynb from docs/quickstart.md and run it, so that its outputs are real.

    python docs/make_notebook.py [--plain]

Text becomes Markdown cells and Python blocks become code cells; `--plain` leaves them unexecuted. Needs the bundled
model and the shipped oracle, whose adapter's hash is noted: a test tells when the outputs are an older one's. The
pictures and files that the code writes go to a temporary folder.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from augury.oracle.hub import SHIPPED

DOCS = Path(__file__).resolve().parent
SOURCE, TARGET = DOCS / "quickstart.md", DOCS / "quickstart.ipynb"
SELF_LINK = "The same as a notebook with its outputs: [quickstart.ipynb](quickstart.ipynb).\n"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIMEOUT_S = 600


def notebook_of(markdown: str) -> NotebookNode:
    """The notebook of a page; cell ids are numbers, so that equal pages give equal notebooks."""
    cells = []
    for number, part in enumerate(BLOCK.split(markdown.replace(SELF_LINK, ""))):
        text = part.strip()
        if text:
            cell = (new_code_cell if number % 2 else new_markdown_cell)(text)
            cell["id"] = f"cell-{number}"
            cells.append(cell)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def execute(notebook: NotebookNode) -> None:
    """Run all cells in one kernel, in a temporary folder; an error in a cell is an error here."""
    adapter = SHIPPED["smollm2"] / "adapter_model.safetensors"
    notebook.metadata["augury"] = {"adapter_sha256": hashlib.sha256(adapter.read_bytes()).hexdigest()}
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=TIMEOUT_S, resources={"metadata": {"path": folder}})
        client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which differ from run to run
        if cell.cell_type == "code":
            # Bars and log lines tell of the machine that ran it.
            cell["outputs"] = [output for output in cell["outputs"] if output.get("name") != "stderr"]


def main() -> None:
    """Make the notebook, run it and write it."""
    parser = argparse.ArgumentParser(description="Make and run docs/quickstart.ipynb.")
    parser.add_argument("--plain", action="store_true", help="do not run it")
    plain = parser.parse_args().plain
    notebook = notebook_of(SOURCE.read_text(encoding="utf-8"))
    if not plain:
        execute(notebook)
    nbformat.validate(notebook)
    TARGET.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
