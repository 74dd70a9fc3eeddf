"""`augury capture`: activations into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augury.cli.common import progress_bar, say, stdout, write_json
from augury.cli.options import AsJson, ContextOptions, ModelOptions, grouped
from augury.cli.sources import check_text, load_target, parse_layers, read_context, transcript
from augury.cli.targets import check_target

DEFAULT_LAYERS = "62%"
DEFAULT_POSITIONS = "last 8"


@grouped
def capture(
    context: ContextOptions,
    models: ModelOptions,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="A safetensors file.")],
    as_json: AsJson = False,
) -> None:
    """Capture activations into a file that ask, score and scan read.

    Layers are 62% of depth unless told.

    \b
    augury capture "The philosopher who drank hemlock taught" -o acts.safetensors
    augury ask --activations acts.safetensors -q "Who is this about?"
    """
    check_target(out, "-o")
    check_text("--positions", context.positions)
    source = read_context(context)
    wanted = parse_layers(context.layers)
    model = load_target(models)

    import torch

    from augury.activations import Activations, Provenance, resolve, resolve_layers
    from augury.activations import capture as capture_activations
    from augury.activations.store import save, saved_bytes

    layers = resolve_layers(model.n_layers, DEFAULT_LAYERS if wanted is None else wanted)
    read = transcript(model, source, context.end)
    rows = resolve(model, read, DEFAULT_POSITIONS if context.positions is None else context.positions)
    shape = (len(layers), len(rows), model.d_model)
    planned = Activations(
        torch.empty(shape, dtype=model.dtype, device="meta"), layers, rows, read, Provenance.of(model)
    )
    estimate = saved_bytes(planned)
    say(f"{len(layers)} layers x {len(rows)} positions x {model.d_model}: about {estimate:,} bytes")
    with progress_bar("capturing") as tell:
        acts = capture_activations(model, read, layers, list(rows), progress=tell)
    path = save(acts, out)
    written = path.stat().st_size
    if as_json:
        found = {"layers": list(layers), "positions": list(rows), "shape": list(shape), "dtype": acts.provenance.dtype}
        write_json({"file": str(path), "bytes": written, "estimated_bytes": estimate, "model": model.name, **found})
    else:
        stdout().print(f"{path}: {acts!r}, {written:,} bytes", markup=False, soft_wrap=True)
