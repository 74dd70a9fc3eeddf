"""How large a model is and how fast this machine, from files and a few tries, before anything is loaded."""

from __future__ import annotations

import json
import math
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from augury.files import expanded
from augury.lm import bundled
from augury.lm.load import ALIASES

EFFICIENCY = 0.35  # of the speed of one large matrix product, as small steps reach it


@dataclass(frozen=True)
class ModelSize:
    """A model in figures.

    Attributes:
        parameters: All of them.
        d_model: Width of the residual stream.
        n_layers: Decoder blocks.
        lora_width: Inputs and outputs of all matrices that an adapter can go on, together.
    """

    parameters: int
    d_model: int
    n_layers: int
    lora_width: int


def folder_here(model: str) -> Path | None:
    """Where a model's files lie on this machine; None where that is not known without asking the hub."""
    folder = bundled.smollm2_folder() if model in ALIASES else expanded(model)
    return folder if (folder / "config.json").is_file() else None


def size_here(model: str) -> ModelSize | None:
    """The model's size, from its configuration and the headers of its weights; None where it is not a folder here."""
    folder = folder_here(model)
    weights = sorted(folder.glob("*.safetensors")) if folder else []
    if folder is None or not weights:
        return None
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = found.get("text_config", found)
    d_model = found.get("hidden_size") or found.get("n_embd")
    n_layers = found.get("num_hidden_layers") or found.get("n_layer")
    if not d_model or not n_layers:
        return None
    inner = found.get("intermediate_size") or 4 * d_model
    lora = n_layers * (4 * 2 * d_model + 3 * (d_model + inner))
    return ModelSize(sum(map(_parameters, weights)), d_model, n_layers, lora)


def _parameters(path: Path) -> int:
    """Values in a safetensors file, from its header."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def seconds_for(passes: float, parameters: int, bfloat16: bool) -> float:
    """How long so many tokens take through a model of this size on this machine, about.

    A token needs two operations a parameter, and as many again backward where only an adapter learns.
    """
    return 2 * passes * parameters / (EFFICIENCY * _flops(bfloat16))


def _flops(bfloat16: bool, size: int = 768) -> float:
    """Floating-point operations a second of one large matrix product here, from a few tries."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if bfloat16 or device == "cuda" else torch.float32
    size = size if device == "cpu" else 8192
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    best = math.inf
    for _ in range(4):
        started = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # reading a value waits for a GPU
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
