"""The table that is printed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A figure, and the bar it should reach where there is one."""

    measure: str
    value: float
    unit: str
    bar: str = ""
    met: bool | None = None


def render(rows: Iterable[Row]) -> str:
    """Rows as text."""
    lines = [f"{'measure':<72} {'value':>10} {'':<5} {'bar':<10}"]
    for row in rows:
        verdict = {True: "met", False: "MISSED", None: ""}[row.met]
        lines.append(f"{row.measure:<72} {row.value:>10.4g} {row.unit:<5} {row.bar:<10} {verdict}")
    return "\n".join(lines)
