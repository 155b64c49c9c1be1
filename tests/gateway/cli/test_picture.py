"""The picture of a run's graph, and its table: nothing overlaps, nothing is lost on a narrow terminal."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli import dag, picture

SVG = "{http://www.w3.org/2000/svg}"


def step(id_: str, *needs: str, status: str = "done", tool: str = "weather__get_forecast") -> dict[str, Any]:
    return {
        "id": id_,
        "tool": tool,
        "status": status,
        "needs": list(needs),
        "attempts": 1,
        "started_at": 100.0 if status == "done" else None,
        "seconds": 0.5 if status == "done" else None,
        "cached": False,
    }


def run(*steps: dict[str, Any], request: str = "The weather") -> dict[str, Any]:
    return {"request": request, "status": "done", "steps": list(steps)}


def boxes(drawn: str) -> dict[str, tuple[float, float, float, float]]:
    found = {}
    for group in ET.fromstring(drawn).findall(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert title.text
        assert rect is not None
        x, y, w, h = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
        found[title.text.split()[0]] = (x, y, x + w, y + h)
    return found


@given(st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=10))
def test_every_step_has_a_box_within_the_picture_and_to_the_right_of_what_it_needs(
    needs: list[list[int]],
) -> None:
    steps = [step(str(n), *{str(m) for m in some if m < n}) for n, some in enumerate(needs)]
    drawn = picture.svg(run(*steps))
    root, found = ET.fromstring(drawn), boxes(drawn)
    assert len(found) == len(steps)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for one in steps:
        left, top, right, bottom = found[one["id"]]
        assert left >= 0
        assert top >= 40
        assert right <= width
        assert bottom <= height
        assert all(found[need][2] < left for need in one["needs"])
    corners = list(found.values())
    for at, (left, top, right, bottom) in enumerate(corners):
        for other in corners[at + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def test_an_arrow_over_a_column_goes_past_the_box_in_it() -> None:
    drawn = picture.svg(run(step("1"), step("2", "1"), step("3", "2", "1")))
    _, top, _, bottom = boxes(drawn)["2"]
    long = max((path.attrib["d"] for path in ET.fromstring(drawn).findall(f"{SVG}path")), key=len)
    (level,) = re.findall(r" ([\d.]+)H", long)
    assert not top <= float(level) <= bottom


def test_what_a_request_and_a_tool_are_called_cannot_break_out() -> None:
    evil = '</text><script>alert("x")</script>\x1b[2J'
    drawn = picture.svg(run(step("1", tool=evil), request=evil * 20))
    assert ET.fromstring(drawn).find(f".//{SVG}script") is None
    assert "\x1b" not in drawn


def test_a_run_without_steps_can_be_drawn() -> None:
    ET.fromstring(picture.svg(run(request="")))


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_table_keeps_step_and_state_on_any_terminal(width: int) -> None:
    from rich.console import Console

    steps = [
        step("1", tool="a_server_with_a_long_name__and_a_tool_with_a_longer_one"),
        step("2", "1", status="waiting_approval"),
    ]
    out = io.StringIO()
    Console(file=out, width=width).print(dag.table(run(*steps), width))
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:2] == ["✓", "1"]
    assert "done" in lines[1]
    assert "waiting approval" in lines[2]
