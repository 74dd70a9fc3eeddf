"""What is read, from the command line and from files; and the models that read it."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augury.cli.common import say, working
from augury.cli.options import SHIPPED, ContextOptions, ModelOptions, OracleOptions, StoredOptions
from augury.errors import AuguryError, FormatError, InputError, NotFoundError
from augury.files import expanded

if TYPE_CHECKING:
    from augury.activations import Activations
    from augury.lm import LanguageModel
    from augury.oracle import Oracle

STDIN = "-"
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")  # ways to place a model on several devices
MOST_LAYERS = 10_000  # far above any model; a range is only compared with the model's depth when that is loaded
_RANGE = re.compile(r"(\d{1,18})-(\d{1,18})$")


# --- contexts ------------------------------------------------------------------------------------------------------


def read_context(context: ContextOptions) -> Any:
    """The one context that the options name: text, messages or token ids.

    Raises:
        InputError: None, more than one, or `--end` for something without turns.
        NotFoundError: A file that is not there.
        FormatError: A file that does not hold what it should.
    """
    given = {"TEXT": context.text, "--chat": context.chat, "--tokens": context.tokens}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        why = f"{' and '.join(named)} were given" if named else "no context was given"
        raise InputError("Exactly one context can be read.", why, "pass a TEXT, --chat FILE or --tokens FILE")
    if context.end is not None and context.chat is None:
        raise InputError(
            "--end is for conversations.", f"{named[0]} has no turns", "pass the messages with --chat FILE"
        )
    if context.chat is not None:
        return check_text(context.chat, messages_of(_json(context.chat), context.chat))
    if context.tokens is not None:
        return _token_ids(context.tokens)
    return check_text("The context", _file_text(STDIN) if context.text == STDIN else context.text)


def check_text(what: str, value: Any) -> Any:
    """The value, in which all text is text: neither bytes that are no UTF-8 nor half of a character.

    Raises:
        InputError: No tokenizer could take it, and no file could hold it.
    """
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except RecursionError as error:
        raise InputError(f"{what} cannot be read.", "it is nested too deep", "write it flatter") from error
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        # Python keeps a byte that is no UTF-8 as a surrogate between these.
        byte = f"the byte 0x{code - 0xDC00:02x}, which is no UTF-8" if 0xDC80 <= code <= 0xDCFF else None
        why = f"it holds {byte or f'half of a character (the lone surrogate U+{code:04X})'}"
        raise InputError(f"{what} is no text.", why, "write it as UTF-8, with whole characters") from error
    return value


def messages_of(value: Any, where: str) -> list[Any]:
    """Messages, alone or under the key `messages`."""
    found = value.get("messages") if isinstance(value, dict) else value
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise FormatError(
            f"{where} holds no conversation.", "it is no list of messages", 'write [{"role": "user", "content": "..."}]'
        )
    return found


def _token_ids(path: str) -> list[int]:
    text = _file_text(path).strip()
    try:
        found = json.loads(text if text.startswith("[") else f"[{','.join(text.replace(',', ' ').split())}]")
    except (ValueError, RecursionError):
        found = []
    if not found or not all(isinstance(token, int) and not isinstance(token, bool) for token in found):
        why = "it must be a list of whole numbers"
        raise FormatError(f"{path} holds no token ids.", why, "write [1, 2, 3] or 1 2 3")
    return found


def _json(path: str) -> Any:
    try:
        return json.loads(_file_text(path))
    except RecursionError as error:
        raise FormatError(f"{path} cannot be read.", "its JSON is nested too deep", "mend the file") from error
    except AuguryError:
        raise
    except ValueError as error:
        raise FormatError(f"{path} is no JSON.", str(error), "mend the file") from error


def _file_text(path: str) -> str:
    """A text file, or stdin."""
    try:
        return sys.stdin.read() if path == STDIN else expanded(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no file {path}.", "nothing lies there", "check the path") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no text.", f"it is not UTF-8: {error.reason}", "save it as UTF-8") from error


def parse_layers(layers: str | None) -> list[str] | None:
    """`18`, `62%`, `21-25`, or several with commas, as `resolve_layers` takes them; None stays None.

    Raises:
        InputError: A range that falls, or that no model reaches.
    """
    if layers is None:
        return None
    return [layer for part in layers.split(",") for layer in _range(part.strip())]


def _range(part: str) -> list[str]:
    span = _RANGE.match(part)
    if span is None:
        return [part]
    first, last = int(span[1]), int(span[2])
    if last < first:
        raise InputError(f"The layers {part} are none.", "the range falls", f"write it as {last}-{first}")
    if last >= MOST_LAYERS:
        raise InputError(
            f"The layers {part} are none.", "no model is as deep", 'name layers such as 18, 21-25 or "62%"'
        )
    return [str(layer) for layer in range(first, last + 1)]


# --- models --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loaded:
    """The oracle on its base, and the model that is read."""

    oracle: Oracle
    target: LanguageModel


def load_target(models: ModelOptions, name: str | None = None) -> LanguageModel:
    """The model that is read."""
    from augury.lm import load_model

    _check_device(models.device)
    source = name or models.model
    hidden = source == SHIPPED or expanded(source).is_dir()
    if hidden:  # a bar for weights that are here already; the hub's are worth one
        os.environ.setdefault("TQDM_DISABLE", "1")
    with working(f"loading {source}") if hidden else _announced(source):
        return load_model(source, dtype=models.dtype, device_map=models.device, adapter=models.adapter)


def _check_device(name: str | None) -> None:
    """Refuse a device that is none, or that is not here, before a model is read for it."""
    if name is None or name in DEVICE_MAPS:
        return
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        why = "torch knows no device of that name"
        raise InputError(f"'{name}' is no device.", why, "use cpu, cuda, cuda:1 or auto") from error
    there = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= there:
        why = f"{there} CUDA devices were found"
        raise InputError(f"The device {name} is not on this machine.", why, "use cpu or auto")


class _announced:
    """One line before the hub's own bars, which a spinner would tear."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __enter__(self) -> None:
        if sys.stderr.isatty():
            say(f"loading {self.source}")

    def __exit__(self, *_: object) -> None:
        return


def load(models: ModelOptions, oracles: OracleOptions) -> Loaded:
    """The oracle on its base, and the target: the base, the base with an adapter, or another model.

    Raises:
        InputError: No oracle was named for a model other than the bundled one.
    """
    name = oracle_name(models, oracles)
    from augury.oracle import load_oracle

    plain = ModelOptions(models.model, None, models.dtype, models.device)
    base = load_target(models if oracles.target is None else plain)
    target = base if oracles.target is None else load_target(models, oracles.target)
    with working(f"loading the oracle {name}"):
        oracle = load_oracle(name, base, off_contract=oracles.off_contract, reader=oracles.reader)
    return Loaded(oracle, target)


def oracle_name(models: ModelOptions, oracles: OracleOptions) -> str:
    """The oracle that was named, or the one that ships.

    Raises:
        InputError: No oracle was named for a model other than the bundled one.
    """
    if oracles.oracle is None and models.model != SHIPPED:
        raise InputError(
            f"No oracle was named for {models.model}.",
            f"the oracle that ships belongs to {SHIPPED}",
            "pass --oracle with a folder or hub id of an oracle trained for this model",
        )
    return oracles.oracle or SHIPPED


# --- activations ---------------------------------------------------------------------------------------------------


def check_stored(stored: StoredOptions, context: ContextOptions, models: ModelOptions, target: str | None) -> None:
    """Refuse options that would do nothing beside stored activations."""
    if stored.activations is None:
        return
    clashing = {
        "TEXT": context.text,
        "--chat": context.chat,
        "--tokens": context.tokens,
        "--end": context.end,
        "--positions": context.positions,
        "--adapter": models.adapter,
        "--target": target,
    }
    named = [name for name, value in clashing.items() if value is not None]
    if named:
        why = "nothing is captured where --activations are given"
        raise InputError(f"{named[0]} does nothing beside --activations.", why, "leave one of the two out")


def load_stored(path: Path, layers: str | None) -> Activations:
    """Activations from a file, or some of their layers."""
    from augury.activations.store import load

    acts = load(path)
    if isinstance(acts, list):
        why = f"it holds the activations of {len(acts)} contexts"
        raise InputError(f"{path} is not one context.", why, "save each context in a file of its own")
    wanted = parse_layers(layers)
    return acts if wanted is None else acts.at_layers(_layers_among(acts, wanted))


def _layers_among(acts: Activations, wanted: list[str]) -> tuple[int, ...]:
    """Layer indices; percents are of the depth of the model that the activations were captured from."""
    from augury.activations import resolve_layers

    model = acts.provenance.model
    if model is None and any(layer.endswith("%") for layer in wanted):
        why = "the activations do not say which model they were captured from, so its depth is not known"
        raise InputError("A percent of depth names no layer here.", why, f"name layers among {list(acts.layers)}")
    return resolve_layers(max(acts.layers) + 1 if model is None else model.n_layers, wanted)


def capture_one(loaded: Loaded, source: Any, end: Any, layers: Any, positions: Any) -> Activations:
    """Activations of one context, at the contract's layers unless told."""
    return capture_many(loaded, [transcript(loaded.target, source, end)], layers, positions)[0]


def transcript(target: LanguageModel, source: Any, end: Any = None) -> Any:
    """A context as the target reads it."""
    from augury.lm import transcript_of

    return transcript_of(target, source, end)


def capture_many(loaded: Loaded, transcripts: Sequence[Any], layers: Any, positions: Any) -> list[Activations]:
    """Activations of several contexts in batches."""
    from augury.activations import capture
    from augury.oracle.reading import default_layers

    wanted = default_layers(loaded.oracle.contract) if layers is None else layers
    return capture(loaded.target, list(transcripts), wanted, positions)
