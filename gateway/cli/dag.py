"""A run as a person sees it on a terminal: a table with a time line."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.cli import render

_SIGNS: Final[Mapping[str, tuple[str, str]]] = {
    "waiting": ("·", "dim"),
    "waiting_approval": ("?", "yellow"),
    "running": ("▶", "cyan"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("-", "dim"),
    "cancelled": ("-", "dim"),
    "outcome_unknown": ("?", "magenta"),
    "replaced": ("-", "dim"),
}
_BAR: Final = 16


def table(run: Mapping[str, Any], width: int = 100) -> Any:
    """The steps in order, each with how it stands and when it ran.

    :param width: columns of the terminal; on a narrow one the time line goes, then the ends of names.
    """
    from rich.table import Table
    from rich.text import Text

    steps = run["steps"]
    wide = {
        "step": _longest(4, 12, (step["id"] for step in steps)),
        "tool": _longest(4, 60, (step["tool"] for step in steps)),
        "needs": _longest(5, 12, (", ".join(step["needs"]) for step in steps)),
        "state": _longest(5, 30, (state_of(step) for step in steps)),
        "time": 8,
    }
    room = width - sum(wide.values()) - 2 * len(wide) - 3
    drawn = room >= _BAR + 2
    if room < 0:
        wide["tool"] = max(wide["tool"] + room, 12)
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    made.add_column("", width=1)
    for name, columns in wide.items():
        justify: Any = "right" if name == "time" else "left"
        made.add_column(name.upper(), width=columns, no_wrap=True, overflow="ellipsis", justify=justify)
    if drawn:
        made.add_column("", width=_BAR, no_wrap=True, overflow="crop")
    first, last = _span(run)
    for step in run["steps"]:
        sign, style = _SIGNS[step["status"]]
        cells = [
            Text(sign, style=style),
            Text(render.clean(step["id"])),
            Text(render.clean(step["tool"])),
            Text(render.clean(", ".join(step["needs"])), style="dim"),
            Text(state_of(step), style=style),
            Text(seconds_of(step)),
        ]
        made.add_row(*cells, *([Text(_bar(step, first, last), style=style)] if drawn else []))
    return made


def _longest(least: int, most: int, texts: Iterable[str]) -> int:
    return min(max([least, *map(len, texts)]), most)


def rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The same without colour, for where there is no terminal."""
    return [
        (step["id"], step["tool"], ", ".join(step["needs"]), state_of(step), seconds_of(step))
        for step in run["steps"]
    ]


def state_of(step: Mapping[str, Any]) -> str:
    """How a step stands, in a few words."""
    words = str(step["status"]).replace("_", " ")
    if step.get("cached"):
        words += " (kept)"
    if step["attempts"] > 1:
        words += f", attempt {step['attempts']}"
    if step.get("error"):
        words += f": {step['error']['type']}"
    return words


def seconds_of(step: Mapping[str, Any]) -> str:
    """How long it took, or has taken so far."""
    if step["seconds"] is not None:
        return f"{float(step['seconds']):.2f} s"
    if step["status"] == "running" and step["started_at"]:
        return f"{max(time.time() - step['started_at'], 0):.1f} s"
    return ""


def _span(run: Mapping[str, Any]) -> tuple[float, float]:
    starts = [step["started_at"] for step in run["steps"] if step["started_at"]]
    ends = [
        step["started_at"] + step["seconds"]
        for step in run["steps"]
        if step["started_at"] and step["seconds"]
    ]
    going = any(step["status"] == "running" for step in run["steps"])
    return min(starts, default=0.0), max([*ends, *([time.time()] if going else [])], default=0.0)


def _bar(step: Mapping[str, Any], first: float, last: float) -> str:
    if not step["started_at"] or last <= first:
        return ""
    end = step["started_at"] + step["seconds"] if step["seconds"] is not None else last
    left = int((step["started_at"] - first) / (last - first) * _BAR)
    width: int = max(1, round((end - step["started_at"]) / (last - first) * _BAR))
    return " " * min(left, _BAR - 1) + "━" * min(width, _BAR - min(left, _BAR - 1))
