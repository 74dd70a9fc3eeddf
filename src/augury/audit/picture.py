"""Where the target stands among its peers, as SVG that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

WIDTH, LEFT, RIGHT, TOP, STEP = 760, 150, 20, 34, 46
NAMED = 3  # concepts of the target that are named


def standing(report: Mapping[str, Any]) -> str:
    """Each peer's largest score against the others, and the target's concepts, on one scale with the threshold."""
    found = report["contrast"]
    peers = list(found["peers"].values())
    concepts = [(one["score"], one["concept"]) for one in report["findings"]]
    most = 1.1 * max(found["threshold"], found["statistic"], *peers)

    def at(score: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * max(0.0, score) / most

    rows = (TOP + STEP // 2, TOP + STEP + STEP // 2)
    height = TOP + 2 * STEP + 24
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" font-size="12" font-family="system-ui">',
        f"<title>{html.escape(_told(report))}</title>",
        *(_label(word, y) for word, y in zip(("its concepts", "peers, each at most"), rows, strict=True)),
        _threshold(at(found["threshold"]), height),
        *(_dot(at(score), rows[1], "#8a8f98", f"a peer: {score:.2f}") for score in peers),
        *(_dot(at(score), rows[0], "#d95f02", f"{name}: {score:.2f}") for score, name in concepts),
        *_names([(at(score), name) for score, name in concepts[:NAMED] if score > 0], rows[0]),
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height - 22}" y2="{height - 22}" stroke="#888"/>',
        f'<text x="{LEFT}" y="{height - 6}" fill="#666">0</text>',
        f'<text x="{WIDTH - RIGHT}" y="{height - 6}" fill="#666" text-anchor="end">score {most:.1f}</text></svg>',
    ]
    return "".join(parts)


def _told(report: Mapping[str, Any]) -> str:
    found = report["contrast"]
    return (
        f"The target's largest score is {found['statistic']:.2f}, claimed from {found['threshold']:.2f} on; the peers' "
        f"largest are {', '.join(f'{score:.2f}' for score in found['peers'].values())}."
    )


def _label(word: str, y: float) -> str:
    return f'<text x="{LEFT - 14}" y="{y + 4}" fill="#666" text-anchor="end">{word}</text>'


def _threshold(x: float, height: float) -> str:
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 10}" y2="{height - 22}" stroke="#2a9d5c" stroke-dasharray="4 3"/>'
        f'<text x="{x:.1f}" y="{TOP - 16}" fill="#2a9d5c" text-anchor="middle">claimed from here</text>'
    )


def _dot(x: float, y: float, color: str, title: str) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y}" r="5" fill="{color}" fill-opacity=".65"><title>{html.escape(title)}</title>'
        "</circle>"
    )


def _names(places: list[tuple[float, str]], y: float) -> list[str]:
    """Names over their dots; one that would stand on the one before is left out."""
    found, taken = [], float("inf")
    for x, name in places:
        end = min(x, WIDTH - RIGHT - 4)
        if end < taken:
            found.append(
                f'<text x="{end:.1f}" y="{y - 10}" fill="#d95f02" text-anchor="end">{html.escape(name)}</text>'
            )
            taken = end - 8 * len(name)
    return found
