"""The layout of design: imports point downward only, and a few things never stand in the library."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import augury

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "augury"
ORDER = [
    "cli",
    "server",
    "audit",
    "bench",
    "train",
    "data",
    "oracle",
    "activations",
    "lm",
    "contract",
    "stats",
    "files",
    "errors",
]
TOP_LEVEL = ("__init__", "__main__", "_version")
TORCHLESS = ("contract", "stats", "files", "errors")
ONLY_IN_LM = ("transformers", "peft")


def room_of(path: Path) -> str:
    """The top-level room of a file: its folder under src/augury, or the module's own name."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[0]


def is_type_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imported(tree: ast.AST, package: str, *, types: bool = True, lazy: bool = True) -> Iterator[tuple[str, int]]:
    """Each imported dotted name with its line.

    Args:
        tree: What to walk.
        package: The dotted package of the file, against which relative imports are resolved.
        types: Whether imports under `if TYPE_CHECKING` count.
        lazy: Whether imports inside functions count.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)
        elif is_type_guard(node) and not types:
            for other in node.orelse:  # type: ignore[attr-defined]
                yield from imported(other, package, types=types, lazy=lazy)
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imported(node, package, types=types, lazy=lazy)


def target_room(name: str) -> str | None:
    """The room that an imported dotted name lies in; None for other packages and for names without a room."""
    parts = name.split(".")
    if parts[0] != "augury" or len(parts) == 1:
        return None
    home = augury._HOME_OF.get(parts[1], f"augury.{parts[1]}").split(".")[1]
    return home if home in ORDER else None


def upward(tree: ast.AST, room: str, package: str) -> list[str]:
    """Imports that do not point strictly downward."""
    rank = ORDER.index(room)
    found = []
    for name, line in imported(tree, package):
        if name == "augury" and room != "cli":
            found.append(f"line {line}: {room} imports the whole package, every room through it")
        target = target_room(name)
        if target is not None and target != room and ORDER.index(target) <= rank:
            found.append(f"line {line}: {room} imports {name}")
    return found


def foreign(tree: ast.AST, room: str, package: str) -> list[str]:
    """torch where arrays and data are enough; transformers and peft outside the one room that knows them."""
    banned = (("torch",) if room in TORCHLESS else ()) + (ONLY_IN_LM if room != "lm" else ())
    names = imported(tree, package, types=False)
    return [f"line {line}: {room} imports {name}" for name, line in names if name.split(".")[0] in banned]


def unsafe(tree: ast.AST, room: str, package: str) -> list[str]:
    """pickle in any of its clothes, and code from the network."""
    names = imported(tree, package)
    modules = ("pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
    found = [f"line {line}: imports {name}" for name, line in names if name.split(".")[0] in modules]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle") and is_true(node.value):
            found.append(f"line {node.value.lineno}: {node.arg}=True")
        if isinstance(node, ast.arguments):
            found.extend(f"line {arg.lineno}: {arg.arg}=True by default" for arg in unsafe_defaults(node))
    return found


def is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def unsafe_defaults(node: ast.arguments) -> Iterator[ast.arg]:
    positional = [*node.posonlyargs, *node.args]
    by_position = zip(reversed(positional), reversed(node.defaults), strict=False)  # the last ones have defaults
    by_name = zip(node.kwonlyargs, node.kw_defaults, strict=True)
    return (arg for arg, default in (*by_position, *by_name) if arg.arg == "trust_remote_code" and is_true(default))


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, node


def printing(tree: ast.AST, room: str, package: str) -> list[str]:
    """print() in the library."""
    return [f"line {node.lineno}: print" for name, node in calls(tree) if name == "print" and room != "cli"]


def probing(tree: ast.AST, room: str, package: str) -> list[str]:
    """hasattr and getattr with a name written out, outside lm/."""
    found = []
    for name, node in calls(tree):
        constant = len(node.args) > 1 and isinstance(node.args[1], ast.Constant)
        if name in ("hasattr", "getattr") and constant and room != "lm":
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


CHECKS: list[Callable[[ast.AST, str, str], list[str]]] = [upward, foreign, unsafe, printing, probing]
FILES = sorted(SOURCE.rglob("*.py"))
IN_ROOMS = [path for path in FILES if room_of(path) in ORDER]


def package_of(path: Path) -> str:
    return ".".join(["augury", *path.relative_to(SOURCE).parts[:-1]])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_library(check: Callable[[ast.AST, str, str], list[str]]) -> None:
    """One test per rule, so that a failure lists every place at once."""
    found = []
    for path in IN_ROOMS:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(ROOT)} {place}" for place in check(tree, room_of(path), package_of(path))]
    assert not found, "\n".join(found)


def test_every_file_has_a_room() -> None:
    strangers = [path for path in FILES if room_of(path) not in (*ORDER, *TOP_LEVEL)]
    assert not strangers, f"not in the layout: {strangers}"


def test_top_level_modules_import_rooms_lazily() -> None:
    for path in FILES:
        if path.parent == SOURCE and room_of(path) not in ORDER:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            eager = {target_room(name) for name, _ in imported(tree, "augury", types=False, lazy=False)}
            assert eager <= {None, "errors"}, f"{path.name} eagerly imports {eager}"


@pytest.mark.parametrize(
    ("check", "room", "source"),
    [
        (upward, "lm", "from augury.oracle import Oracle"),
        (upward, "lm", "def f():\n    import augury.activations.capture"),
        (upward, "lm", "from ..train import loop"),
        (upward, "oracle", "import augury"),
        (upward, "lm", "from augury import load_oracle"),
        (upward, "stats", "from __future__ import annotations\nif TYPE_CHECKING:\n    from augury import contract"),
        (foreign, "oracle", "import transformers"),
        (foreign, "stats", "from torch import nn"),
        (foreign, "contract", "def f():\n    import peft.utils"),
        (unsafe, "lm", "import pickle"),
        (unsafe, "lm", "x = torch.load(path)"),
        (unsafe, "lm", "AutoModel.from_pretrained(name, trust_remote_code=True)"),
        (unsafe, "lm", "def load(name, *, trust_remote_code=True): ..."),
        (unsafe, "lm", "def load(name, trust_remote_code=True): ..."),
        (printing, "oracle", "print(1)"),
        (probing, "oracle", "hasattr(model, 'model')"),
        (probing, "train", "getattr(model, 'config', None)"),
    ],
)
def test_a_breach_is_seen(check: Callable[[ast.AST, str, str], list[str]], room: str, source: str) -> None:
    assert len(check(ast.parse(source), room, f"augury.{room}")) == 1


@pytest.mark.parametrize(
    ("check", "room", "source"),
    [
        (upward, "oracle", "from augury.lm import load\nfrom augury.oracle.prompt import x\nfrom . import inject"),
        (upward, "oracle", "from augury import __version__\nfrom augury._version import __version__\nimport torch"),
        (foreign, "lm", "import transformers, peft, torch"),
        (foreign, "oracle", "if TYPE_CHECKING:\n    from transformers import PreTrainedModel\nimport torch"),
        (unsafe, "lm", "def load(name, *, trust_remote_code=False): f(trust_remote_code=trust_remote_code)"),
        (printing, "cli", "print(1)"),
        (probing, "lm", "hasattr(model, 'model')"),
        (probing, "oracle", "getattr(model, name)"),
    ],
)
def test_what_is_allowed_passes(check: Callable[[ast.AST, str, str], list[str]], room: str, source: str) -> None:
    assert check(ast.parse(source), room, f"augury.{room}") == []
