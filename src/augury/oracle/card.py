"""The model card of an oracle, made from its contract: use, recipe, data, figures good or bad, controls, limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from augury.contract import Contract
from augury.lm.bundled import REVISION, WEIGHTS
from augury.oracle.front_matter import LIBRARY, PLACE, TAG, written

# The bundled base's; of any other base only its user can say under which licence an adapter for it may be shared.
_BUNDLED_LICENSE = "apache-2.0"
_CONTROLS = """\
`controls=True` puts beside each answer what the same question gets with its evidence removed or swapped: `none`
injects nothing, `shuffled` injects other texts' activations, `text-window` and `text-all` let a reader see the text
instead, and `untrained` switches this adapter off. An answer that `none` or `shuffled` gives as well comes from the
question, not from the activations. In the figures above, the same words stand for the same controls.
"""
_LIMITS = """\
- An answer is a guess from activations by a fine-tuned model. It can be fluent and wrong; ask with controls.
- An oracle may guess the surrounding text and answer from that, as any reader of the text could. Compare with the text
  controls before you say that it read something that the text does not hold.
- Oracles lean towards one answer whatever they read. A margin means something only beside the donors' margins.
- Only the layers, positions and prompt named above were trained. Figures hold for data like the evaluation's.
"""


def model_card(contract: Contract, lora: Mapping[str, Any] | None = None, license: str | None = None) -> str:
    """The card as Markdown with the hub's front matter.

    Args:
        contract: The oracle's contract; `evaluation` holds its figures.
        lora: The adapter's PEFT configuration.
        license: The hub's id of the oracle's licence. Without it the card states one only where the base is the
            bundled one, whose licence is known.
    """
    base = contract.base_model or "not stated"
    bundled = contract.revision == REVISION
    parts = [
        _front_matter(base, license or (_BUNDLED_LICENSE if bundled else None)),
        f"# Activation oracle for {base}\n",
        f"A LoRA adapter on {base} that answers questions about activations of that model.\n",
        _usage("smollm2" if bundled else contract.base_model or "BASE"),
        _plain_peft(base, bundled),
        _section("How it is used", _use(contract)),
        _section("How it was made", _making(contract, lora or {})),
        _section("Figures", _figures(contract)),
        f"## Controls\n\n{_CONTROLS}",
        f"## Limits\n\n{_LIMITS}",
    ]
    return "\n".join(parts)


def headline(contract: Contract) -> str:
    """The contract's figures in one line: those of the widest yes/no question, else the first; "no figures" without."""
    rows = [row for name, value in contract.evaluation.items() for row in _flat(value, name)]
    if not rows:
        return "no figures"
    wide = [row for row in rows if row[0].startswith("yes/no AUC, all")]
    name, figures = wide[-1] if wide else rows[0]
    return f"{name}: {'; '.join(figures.split('; ')[:2])}"


def _front_matter(base: str, license: str | None) -> str:
    stated = {"license": license} if license else {}
    tags = [TAG, "interpretability", "lora"]
    fields = {"base_model": base, "base_model_relation": "adapter", "library_name": LIBRARY, **stated, "tags": tags}
    return written(fields)


def _section(title: str, lines: list[str]) -> str:
    return f"## {title}\n\n" + "\n".join(lines) + "\n"


def _use(contract: Contract) -> list[str]:
    injection = contract.injection
    where = "the embedding" if injection.site == "embedding" else f"the output of block {injection.block}"
    layers = ", ".join(str(list(group)) for group in contract.layers or ()) or "not stated"
    how = f"{injection.operation}, scale {injection.scale}, coefficient {injection.coefficient:g}"
    if injection.rescale_to is not None:
        how += f", rescaled to {injection.rescale_to:g}"
    lines = [
        f"- Base: `{contract.base_model}`, revision `{contract.revision or 'not stated'}`",
        f"- Layers read (layer k is the output of block k, from 0): {layers}",
        f"- Injection: {how}, at {where}",
        f"- Slots: `{contract.prompt.slot_token!r}`, layout {contract.prompt.layout}",
        f"- Before a yes/no question: `{contract.prompt.yes_no_prefix}`",
    ]
    if contract.revision == REVISION:
        lines.insert(1, f"- The base's weights are {WEIGHTS}")
    if contract.positions is not None:
        most = contract.positions.max_slots
        lines.append(f"- Positions: {contract.positions.pattern}" + (f", at most {most} slots" if most else ""))
    return lines


def _making(contract: Contract, lora: Mapping[str, Any]) -> list[str]:
    trained = contract.trained_on
    told = [] if trained is None else [(name, value) for name, value in trained if value is not None]
    lines = [f"- {name.replace('_', ' ')}: {f'{value:,}' if isinstance(value, int) else value}" for name, value in told]
    named = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "rank-stabilised": "use_rslora"}
    lora_fields = ", ".join(f"{name} {lora[key]}" for name, key in named.items() if lora.get(key) is not None)
    if lora_fields:
        lines.append(f"- LoRA: {lora_fields}")
    lines += [f"- {package} {number}" for package, number in contract.versions.items()]
    lines += [f"- {word}: {value}" for word, value in _made(contract) if value]
    return lines or ["- The contract does not say."]


def _made(contract: Contract) -> tuple[tuple[str, str | None], ...]:
    return ("commit", contract.git_commit), ("made", contract.created)


def figure_rows(contract: Contract) -> list[tuple[str, str]]:
    """The contract's evaluation as (what, figures)."""
    return [row for name, value in contract.evaluation.items() for row in _flat(value, name)]


def _figures(contract: Contract) -> list[str]:
    rows = figure_rows(contract)
    if not rows:
        return ["None were measured. Treat every answer as unproven."]
    return ["| what | figures |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Nested figures as (name, figures): what has nothing nested any more is one row."""
    if isinstance(value, Mapping) and not any(isinstance(inner, Mapping) for inner in value.values()):
        yield name, "; ".join(f"{key} {_figure(inner)}" for key, inner in value.items())
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}, {key}")
    else:
        yield name, _figure(value)


def _figure(value: Any) -> str:
    """A number with four digits; three of them are an estimate with its interval."""
    if isinstance(value, list | tuple):
        figures = [_figure(inner) for inner in value]
        interval = len(figures) == 3 and all(isinstance(inner, float) for inner in value)
        return f"{figures[0]} [{figures[1]}, {figures[2]}]" if interval else ", ".join(figures)
    text = f"{value:.4g}" if isinstance(value, float) else "not measured" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _usage(base: str) -> str:
    return f"""\
## Use

With augury, which reads the contract from `oracle.json` and follows it:

```python
import augury

model = augury.load_model("{base}")
oracle = augury.load_oracle("{PLACE}", model)
print(oracle.ask("Some text to read", "What is this about?", controls=True))
```
"""


def _plain_peft(base: str, bundled: bool) -> str:
    other = "\nThe oracle was trained on other weights of the base than these, which are the hub's." if bundled else ""
    return f"""\
With plain PEFT the adapter is loaded and nothing is injected: the prompt and the injection, as they stand below and in
`oracle.json`, are then yours to make, and activations are to be captured with the adapter off.{other}

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{PLACE}")
```
"""
