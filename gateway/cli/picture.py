"""A run's graph as a picture (SVG): a column for each depth, an arrow for each need.

An arrow over several columns has a place of its own in each of them, so that it goes past the boxes and
not behind them (Sugiyama, Tagawa and Toda, 1981); within a column, what has like origins stands together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any, Final

from gateway.cli import render
from gateway.cli.dag import seconds_of, state_of

_COLOURS: Final[Mapping[str, str]] = {
    "waiting": "#f6f8fa",
    "waiting_approval": "#fff3c4",
    "running": "#d7ebff",
    "done": "#dafbe1",
    "failed": "#ffdcd8",
    "outcome_unknown": "#f0e3ff",
}
_EDGES: Final[Mapping[str, str]] = {
    "waiting_approval": "#b58407",
    "running": "#0969da",
    "done": "#1a7f37",
    "failed": "#cf222e",
    "outcome_unknown": "#8250df",
}
_PLAIN: Final = "#8c959f"
_LETTER: Final = 7.6
"""Pixels of an average letter of the bold face, generously: fonts differ."""
_NARROW, _WIDE = 150, 330
_HEIGHT, _LANE, _GAP_X, _GAP_Y, _EDGE = 52, 6, 64, 20, 20
_TOP: Final = 52


@dataclass(slots=True)
class _Place:
    """Where a box is, or where an arrow goes past."""

    column: int
    step: Mapping[str, Any] | None
    above: list[_Place]
    y: float = 0.0

    @property
    def height(self) -> int:
        return _HEIGHT if self.step is not None else _LANE

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


def svg(run: Mapping[str, Any]) -> str:
    """A picture of the run's graph."""
    steps: Sequence[Mapping[str, Any]] = [step for step in run["steps"] if step["status"] != "replaced"]
    columns, arrows = _laid_out(steps)
    longest = max((len(_title(step)) for step in steps), default=0)
    box = min(max(longest * _LETTER + 22, _NARROW), _WIDE)
    tallest = max((_tall(column) for column in columns), default=_HEIGHT)
    title = f"{_text(run['request'] or 'A plan', 110)} ({_text(str(run['status']).replace('_', ' '), 20)})"
    width = max(len(columns) * (box + _GAP_X) - _GAP_X + 2 * _EDGE, min(len(title), 135) * 7.8 + 2 * _EDGE)
    height = _TOP + tallest + _EDGE
    for column in columns:
        y = _TOP + (tallest - _tall(column)) / 2
        for place in column:
            place.y = y
            y += place.height + _GAP_Y
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="Helvetica, Arial, sans-serif" font-size="12">',
        '<defs><marker id="a" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0 0.5L8 4L0 7.5z" fill="#57606a"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
        f'<text x="{_EDGE}" y="30" font-size="14" fill="#1f2328">{title}</text>',
    ]
    parts += [_arrow(points, box) for points in arrows]
    parts += [_box(place, box) for column in columns for place in column if place.step is not None]
    return "\n".join([*parts, "</svg>", ""])


def _laid_out(steps: Sequence[Mapping[str, Any]]) -> tuple[list[list[_Place]], list[list[_Place]]]:
    """The columns with what stands in them, top to bottom, and the places that each arrow goes through."""
    boxes: dict[str, _Place] = {}
    columns: list[list[_Place]] = []
    arrows: list[list[_Place]] = []

    def placed(column: int, step: Mapping[str, Any] | None, above: list[_Place]) -> _Place:
        while len(columns) <= column:
            columns.append([])
        place = _Place(column, step, above)
        columns[column].append(place)
        return place

    for step in _ordered(steps):
        needs = [boxes[need] for need in step["needs"] if need in boxes]
        column = max((need.column + 1 for need in needs), default=0)
        entries: list[_Place] = []
        for need in needs:
            points = [need]
            for between in range(need.column + 1, column):
                points.append(placed(between, None, [points[-1]]))
            entries.append(points[-1])
            arrows.append(points)
        boxes[step["id"]] = own = placed(column, step, entries)
        for points in arrows[len(arrows) - len(needs) :]:
            points.append(own)
    for before, column_ in pairwise(columns):
        for number, place in enumerate(before):
            place.y = number  # its rank, until the places are known
        column_.sort(key=_origins)
    return columns, arrows


def _origins(place: _Place) -> float:
    """Where, on average, what leads to a place stands in its column."""
    return sum(one.y for one in place.above) / len(place.above)


def _ordered(steps: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    known, left, out = {step["id"] for step in steps}, list(steps), []
    placed: set[str] = set()
    while left:
        ready = [s for s in left if placed.issuperset(known.intersection(s["needs"]))] or left[:1]
        out += ready
        placed.update(s["id"] for s in ready)
        left = [s for s in left if s["id"] not in placed]
    return out


def _tall(column: Sequence[_Place]) -> float:
    return sum(place.height + _GAP_Y for place in column) - _GAP_Y


def _left(place: _Place, box: float) -> float:
    return _EDGE + place.column * (box + _GAP_X)


def _arrow(points: Sequence[_Place], box: float) -> str:
    x, y = _left(points[0], box) + box, points[0].middle
    path = f"M{x:g} {y:g}"
    for place in points[1:]:
        to, bend = _left(place, box), _GAP_X / 2
        path += f"C{x + bend:g} {y:g} {to - bend:g} {place.middle:g} {to - 2 * (place.step is not None):g} {place.middle:g}"
        x, y = to, place.middle
        if place.step is None:
            x += box
            path += f"H{x:g}"
    return f'<path d="{path}" fill="none" stroke="#57606a" marker-end="url(#a)"/>'


def _title(step: Mapping[str, Any]) -> str:
    return f"{step['id']}  {step['tool']}"


def _box(place: _Place, box: float) -> str:
    step = place.step
    assert step is not None
    fill, edge = _COLOURS.get(step["status"], "#f6f8fa"), _EDGES.get(step["status"], _PLAIN)
    room = int((box - 20) / _LETTER)
    x, y = _left(place, box), place.y
    told = ", ".join(part for part in (state_of(step), seconds_of(step)) if part)
    return (
        f'<g fill="#1f2328"><title>{_text(f"{_title(step)}: {told}", 300)}</title>'
        f'<rect x="{x:g}" y="{y:g}" width="{box:g}" height="{_HEIGHT}" rx="7" fill="{fill}" stroke="{edge}"/>'
        f'<text x="{x + 11:g}" y="{y + 21:g}" font-weight="bold">{_text(_title(step), room)}</text>'
        f'<text x="{x + 11:g}" y="{y + 39:g}">{_text(told, int(room * 1.1))}</text></g>'
    )


def _text(text: str, most: int) -> str:
    cleaned = render.clean(" ".join(str(text).split()))
    return escape(cleaned if len(cleaned) <= most else cleaned[: most - 1] + "…")
