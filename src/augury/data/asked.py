"""What endpoints were really used for, from the replies that are kept: over all calls, however often it was gone on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from augury.data.opened import DataSet
from augury.data.requests import Prices


@dataclass(frozen=True)
class Asked:
    """What a set of contexts or a source asked of an endpoint.

    Attributes:
        name: The set or source.
        model: The model that was asked.
        calls: Requests that were answered.
        prompt_tokens: Tokens that the model read, as far as the endpoint said.
        completion_tokens: Tokens that it wrote.
        cost: None where no prices are given.
    """

    name: str
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready fields."""
        return asdict(self)

    def line(self) -> str:
        """In words."""
        cost = "cost not known (no prices)" if self.cost is None else f"{self.cost:,.2f} in all"
        tokens = f"{self.prompt_tokens:,} tokens read, {self.completion_tokens:,} written"
        return f"asked: {self.name}: {self.calls:,} replies of {self.model}; {tokens}; {cost}"


def asked_of(data: DataSet) -> list[Asked]:
    """Of each part of a data set that uses an endpoint; nothing where its recipe was not kept."""
    found = []
    for name, settings in {**data.recipe.get("contexts", {}), **data.recipe.get("sources", {})}.items():
        endpoint = settings.get("endpoint")
        if endpoint is None:
            continue
        usage = list(_usage(Path(endpoint.get("replies") or data.folder / "replies" / f"{name}.jsonl")))
        read, wrote = (sum(row.get(key) or 0 for row in usage) for key in ("prompt_tokens", "completion_tokens"))
        prices = endpoint.get("prices")
        cost = Prices.model_validate(prices).cost(read, wrote) if prices else None
        found.append(Asked(name, endpoint["model"], len(usage), read, wrote, cost))
    return found


def _usage(path: Path) -> Iterator[dict[str, Any]]:
    """What each kept reply says that it took; half a line at the end is of a call that was cut off."""
    if not path.is_file():
        return
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield json.loads(line)["reply"].get("usage") or {}
