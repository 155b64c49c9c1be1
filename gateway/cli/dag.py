"""A run as a person sees it: a table with a time line, and a picture of its graph."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
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
_COLOURS: Final[Mapping[str, str]] = {
    "waiting": "#d0d7de",
    "waiting_approval": "#f2cc60",
    "running": "#79c0ff",
    "done": "#7ee787",
    "failed": "#ff7b72",
    "outcome_unknown": "#d2a8ff",
}
_BAR: Final = 24
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 210, 54, 60, 22


def table(run: Mapping[str, Any]) -> Any:
    """The steps in order, each with how it stands and when it ran."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", "STEP", "TOOL", "NEEDS", "STATE", "TIME", ""):
        made.add_column(
            name, no_wrap=True, overflow="ellipsis", justify="right" if name == "TIME" else "left"
        )
    first, last = _span(run)
    for step in run["steps"]:
        sign, style = _SIGNS[step["status"]]
        made.add_row(
            Text(sign, style=style),
            Text(render.clean(step["id"])),
            Text(render.clean(step["tool"])),
            Text(render.clean(", ".join(step["needs"])), style="dim"),
            Text(state_of(step), style=style),
            Text(_seconds(step)),
            Text(_bar(step, first, last), style=style),
        )
    return made


def rows(run: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The same without colour, for where there is no terminal."""
    return [
        (step["id"], step["tool"], ", ".join(step["needs"]), state_of(step), _seconds(step))
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


def _seconds(step: Mapping[str, Any]) -> str:
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


def svg(run: Mapping[str, Any]) -> str:
    """A picture of the run's graph: a column for each depth, an arrow for each need."""
    steps: Sequence[Mapping[str, Any]] = [step for step in run["steps"] if step["status"] != "replaced"]
    depth: dict[str, int] = {}
    for step in _ordered(steps):
        depth[step["id"]] = max((depth[need] + 1 for need in step["needs"] if need in depth), default=0)
    columns: dict[int, list[Mapping[str, Any]]] = {}
    for step in steps:
        columns.setdefault(depth[step["id"]], []).append(step)
    tallest = max(map(len, columns.values()), default=1)
    width = max(len(columns), 1) * (_WIDTH + _GAP_X) - _GAP_X + 40
    height = tallest * (_HEIGHT + _GAP_Y) - _GAP_Y + 80
    place = {
        step["id"]: (
            20 + column * (_WIDTH + _GAP_X),
            50 + (row + (tallest - len(members)) / 2) * (_HEIGHT + _GAP_Y),
        )
        for column, members in columns.items()
        for row, step in enumerate(members)
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:g}" '
        f'viewBox="0 0 {width} {height:g}" font-family="sans-serif" font-size="12">',
        '<defs><marker id="a" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#57606a"/></marker></defs>',
        f'<rect width="{width}" height="{height:g}" fill="#ffffff"/>',
        f'<text x="20" y="28" font-size="14">{_text(run["request"], 100)} ({_text(run["status"], 20)})</text>',
    ]
    for step in steps:
        for need in step["needs"]:
            if need in place:
                parts.append(_arrow(place[need], place[step["id"]]))
    parts += [_box(step, *place[step["id"]]) for step in steps]
    return "\n".join([*parts, "</svg>", ""])


def _ordered(steps: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    known, left, out = {step["id"] for step in steps}, list(steps), []
    placed: set[str] = set()
    while left:
        ready = [s for s in left if placed.issuperset(known.intersection(s["needs"]))] or left[:1]
        out += ready
        placed.update(s["id"] for s in ready)
        left = [s for s in left if s["id"] not in placed]
    return out


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    x1, y1, x2, y2 = start[0] + _WIDTH, start[1] + _HEIGHT / 2, end[0], end[1] + _HEIGHT / 2
    bend = max((x2 - x1) / 2, 20)
    path = f"M{x1:g} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2 - 2:g} {y2:g}"
    return f'<path d="{path}" fill="none" stroke="#57606a" marker-end="url(#a)"/>'


def _box(step: Mapping[str, Any], x: float, y: float) -> str:
    colour = _COLOURS.get(step["status"], "#eaeef2")
    return (
        f'<g><title>{_text(state_of(step), 300)}</title><rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'rx="8" fill="{colour}" stroke="#57606a"/>'
        f'<text x="{x + 10:g}" y="{y + 22:g}" font-weight="bold">{_text(step["id"] + "  " + step["tool"], 30)}</text>'
        f'<text x="{x + 10:g}" y="{y + 41:g}">{_text(" ".join((state_of(step), _seconds(step))), 34)}</text></g>'
    )


def _text(text: str, most: int) -> str:
    cleaned = render.clean(" ".join(str(text).split()))
    return escape(cleaned if len(cleaned) <= most else cleaned[: most - 1] + "…")
