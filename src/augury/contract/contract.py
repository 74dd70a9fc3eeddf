"""The contract: everything a reader must know to use an oracle rightly. It travels with the adapter.

Data only. What a contract allows is checked in `augury.contract.checks`, files are read in `augury.contract.formats`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from augury.errors import InputError

SCHEMA_VERSION = 1

Layout = Literal["blocks", "inline"]

# Where a template says "the slot token, so many times". Not an expression that anyone evaluates: it is this text
# that stands in the files of published oracles.
SLOTS_FIELD = "{special_token} * {num_positions}"
TEMPLATES: dict[Layout, str] = {
    "blocks": "Layer: {layer}\n" + SLOTS_FIELD + " \n",
    "inline": "L{layer}:" + SLOTS_FIELD + ".\n",
}

Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
MAX_COEFFICIENT = 1e6  # beyond it, a slot's row is nothing but rounding
Factor = Annotated[float, Field(ge=-MAX_COEFFICIENT, le=MAX_COEFFICIENT)]
LayerTuple = Annotated[tuple[Count, ...], Field(min_length=1)]


class _Frozen(BaseModel):
    """What all parts of a contract share: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Injection(_Frozen):
    """How a slot receives its activation.

    With the slot's row `h` and the activation `v`: `add` and `match` give `h + c * ||h|| * v / ||v||`, `replace` and
    `match` give `c * ||h|| * v / ||v||`, `replace` and `fixed` give `c * v / ||v||`. With `rescale_to` the sum is
    rescaled to that multiple of `||h||`.

    Attributes:
        site: The output of block `block`, or the embedding (the input of block 0).
        block: The block, from 0; None at the embedding.
        operation: Whether the activation is added to the slot's row or takes its place.
        scale: Whether the length follows the slot's row or is `coefficient` itself.
        coefficient: The trained factor `c`, or the length where `scale` is `fixed`.
        rescale_to: The length of the sum as a multiple of `||h||`, or None.
    """

    site: Literal["block", "embedding"] = "block"
    block: Count | None = 1
    operation: Literal["add", "replace"] = "add"
    scale: Literal["match", "fixed"] = "match"
    coefficient: Factor = 1.0
    rescale_to: Annotated[float, Field(gt=0, le=MAX_COEFFICIENT)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_block_at_the_embedding(cls, data: Any) -> Any:
        embedding = isinstance(data, dict) and data.get("site") == "embedding"
        return {"block": None, **data} if embedding else data

    @model_validator(mode="after")
    def _is_one_of_the_known(self) -> Self:
        if self.site == "block" and self.block is None:
            raise ValueError("site 'block' needs the number of the block")
        if self.site == "embedding" and self.block is not None:
            raise ValueError("site 'embedding' has no block")
        if self.coefficient == 0:
            raise ValueError("a coefficient of 0 injects nothing")
        if self.operation == "add" and self.scale == "fixed":
            raise ValueError("operation 'add' is only known with scale 'match'")
        if self.operation == "replace" and self.rescale_to is not None:
            raise ValueError("rescale_to belongs to operation 'add'")
        return self


class PromptFormat(_Frozen):
    """The text that holds the slots, in front of the question.

    Attributes:
        template: The text of one layer, as `TEMPLATES` has it for the layout (filled in where it is left out).
        slot_token: The text of one slot; one token of the oracle's tokenizer.
        layout: `blocks`: one line of slots under each layer's own heading; `inline`: all layers in one line.
        yes_no_prefix: What stands before a yes/no question.
    """

    template: str = TEMPLATES["blocks"]
    slot_token: Annotated[str, Field(min_length=1)] = " ?"
    layout: Layout = "blocks"
    yes_no_prefix: str = "Answer with 'Yes' or 'No' only. "

    @model_validator(mode="before")
    @classmethod
    def _fill_template(cls, data: Any) -> Any:
        layout = data.get("layout") if isinstance(data, dict) else None
        return {"template": TEMPLATES[layout], **data} if layout in ("blocks", "inline") else data

    @model_validator(mode="after")
    def _template_is_the_layouts(self) -> Self:
        if self.template != TEMPLATES[self.layout]:
            raise ValueError(f"layout {self.layout!r} has the template {TEMPLATES[self.layout]!r}")
        return self

    def prefix(self, layers: Sequence[int], n_positions: int) -> str:
        """The text with all slots: layer-major, `n_positions` slots for each layer.

        Raises:
            InputError: No layers or no positions: there would be nothing to inject.
        """
        if not layers or n_positions < 1:
            why = f"there are {len(layers)} layers and {n_positions} positions"
            raise InputError("a prompt without slots cannot be made", why, "pass at least one activation")
        slots = self.slot_token * n_positions
        end = ".\n" if self.layout == "inline" else ""
        part = self.template.removesuffix(end)
        parts = [part.replace("{layer}", str(layer)).replace(SLOTS_FIELD, slots) for layer in layers]
        return (" " if self.layout == "inline" else "").join(parts) + end


class Positions(_Frozen):
    """Which positions the oracle was trained to read.

    Attributes:
        pattern: How they were chosen, in words.
        max_slots: The most slots in one prompt, over all layers; None where it is not known.
    """

    pattern: str
    max_slots: Size | None = None


class TrainedOn(_Frozen):
    """What the oracle was trained on: the data in a sentence, counts of tokens, examples and optimizer steps, the time,
    and the machine."""

    recipe: str | None = None
    data: str | None = None
    data_fingerprint: str | None = None
    tokens: Count | None = None
    examples: Count | None = None
    steps: Count | None = None
    seconds: Count | None = None
    hardware: str | None = None
    seed: int | None = None


class Contract(_Frozen):
    """What an oracle runs on, what it reads, and how it is asked: the content of `oracle.json`.

    None means that the source did not say; the check of such a field is skipped.

    Attributes:
        base_model: The model the oracle runs on, by its name on the hub.
        revision: The base's revision.
        d_model: Width of the residual stream.
        n_layers: Number of decoder blocks.
        tokenizer_hash: SHA-256 over the sorted (token, id) pairs and the special ids.
        weights_fingerprint: Fingerprint of the base's weights.
        chat_template_hash: SHA-256 of the chat template used in training.
        chat_template_kwargs: What the template was rendered with, a fixed `date_string` included.
        fallback_template: The chat template for a base without one.
        layers: The trained layer tuples, e.g. `((18,), (21, 22, 23, 24, 25))`.
        injection: How a slot receives its activation.
        prompt: The text that holds the slots.
        positions: Which positions were read in training.
        generation: Options of generation that the oracle was evaluated with.
        trained_on: Recipe, data and amounts.
        versions: Package versions at training time.
        git_commit: Commit of the training code.
        created: When it was made (ISO 8601).
        evaluation: Headline figures with their controls.
        foreign: What a reader did not understand, kept as it was.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    base_model: Annotated[str, Field(min_length=1)] | None = None
    revision: str | None = None
    d_model: Size | None = None
    n_layers: Size | None = None
    tokenizer_hash: str | None = None
    weights_fingerprint: str | None = None
    chat_template_hash: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    fallback_template: str | None = None
    layers: Annotated[tuple[LayerTuple, ...], Field(min_length=1)] | None = None
    injection: Injection
    prompt: PromptFormat = PromptFormat()
    positions: Positions | None = None
    generation: dict[str, Any] = Field(default_factory=dict)
    trained_on: TrainedOn | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    git_commit: str | None = None
    created: str | None = None
    evaluation: dict[str, Any] = Field(default_factory=dict)
    foreign: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _layers_exist(self) -> Self:
        for layers in self.layers or ():
            if len(set(layers)) != len(layers):
                raise ValueError(f"layers {list(layers)} name one layer twice")
        deepest = max((layer for layers in self.layers or () for layer in layers), default=0)
        deepest = max(deepest, self.injection.block or 0)
        if self.n_layers is not None and deepest >= self.n_layers:
            raise ValueError(f"block {deepest} does not exist in a model of {self.n_layers} blocks (0 is the first)")
        return self

    def prefix(self, layers: Sequence[int], n_positions: int) -> str:
        """The text with all slots: layer-major, `n_positions` slots for each layer.

        Raises:
            InputError: No layers or no positions.
        """
        return self.prompt.prefix(layers, n_positions)

    def trained_layers(self, layers: Sequence[int]) -> bool:
        """Whether the oracle was trained on exactly these layers in this order; True where it is not stated."""
        return self.layers is None or tuple(layers) in self.layers


def percent_to_layer(n_layers: int, percent: float) -> int:
    """The layer at a percentage of depth: `int(n_layers * percent / 100)`, as published oracles count.

    Raises:
        InputError: The percentage names no layer of the model (100 is already past the last).
    """
    layer = int(n_layers * percent / 100)
    if percent < 0 or layer >= n_layers:
        why = f"of {n_layers} layers it would be number {layer}, and the last is {n_layers - 1}"
        raise InputError(f"{percent}% of depth is not a layer", why, "pass a percentage from 0 to below 100")
    return layer
