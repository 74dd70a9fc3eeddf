"""The model card of an oracle, made from its contract: recipe, data, figures good or bad, limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from augury.contract import Contract
from augury.lm.bundled import REVISION, WEIGHTS

_LIMITS = """\
- An answer is a guess from activations by a fine-tuned model. It can be fluent and wrong; ask with controls.
- An oracle may guess the surrounding text and answer from that, as any reader of the text could. Compare with the text
  controls before you say that it read something that the text does not hold.
- Oracles lean towards one answer whatever they read. A margin means something only beside the donors' margins.
- Only the layers, positions and prompt named above were trained. Figures hold for data like the evaluation's.
"""


def model_card(contract: Contract, lora: Mapping[str, Any] | None = None) -> str:
    """The card as Markdown with the hub's front matter.

    Args:
        contract: The oracle's contract; `evaluation` holds its figures.
        lora: The adapter's PEFT configuration.
    """
    base = contract.base_model or "not stated"
    parts = [
        _front_matter(base),
        f"# Activation oracle for {base}\n",
        f"A LoRA adapter on {base} that answers questions about activations of that model.\n",
        _section("How it is used", _use(contract)),
        _section("How it was made", _making(contract, lora or {})),
        _section("Figures", _figures(contract)),
        f"## Limits\n\n{_LIMITS}",
        _usage("smollm2" if contract.revision == REVISION else contract.base_model or "BASE"),
    ]
    return "\n".join(parts)


def _front_matter(base: str) -> str:
    return f"---\nbase_model: {base}\nlibrary_name: peft\ntags:\n- activation-oracle\n- interpretability\n---\n"


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


def _figures(contract: Contract) -> list[str]:
    rows = [row for name, value in contract.evaluation.items() for row in _flat(value, name)]
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

```python
import augury

model = augury.load_model("{base}")
oracle = augury.load_oracle("this folder or repository", model)
print(oracle.ask("Some text to read", "What is this about?", controls=True))
```
"""
