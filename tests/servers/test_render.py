"""Results of every kind become JSON."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
from typing import Any

import pytest

from servers.worker import render

Pair = collections.namedtuple("Pair", "left right")


class Tint(enum.Enum):
    RED = "r"


@dataclasses.dataclass
class Spot:
    x: int
    _hidden: int = 0


async def _later() -> int:
    return 5


async def _many() -> Any:
    for each in (1, 2):
        yield each


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (iter([1, 2]), [1, 2]),
        (Pair(1, 2), {"left": 1, "right": 2}),
        (Spot(1), {"x": 1}),
        ({3, 1, 2}, [1, 2, 3]),
        (Tint.RED, "r"),
        (decimal.Decimal("1.10"), "1.10"),
        (datetime.timedelta(hours=1), 3600.0),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (b"hi", "hi"),
        (b"\xff\xfe", "//4="),
        ({1: (2, 3)}, {"1": [2, 3]}),
        (float("nan"), "nan"),
        (int, "int"),
        (range(3), [0, 1, 2]),
        ({"a": 1}.keys(), ["a"]),
    ],
)
def test_a_result_becomes_json(value: Any, expected: Any) -> None:
    rendered = render.render(value)
    assert rendered.value == expected
    assert not rendered.opaque


def test_what_must_be_awaited_is_awaited() -> None:
    assert render.settle(_later()) == 5
    assert render.settle(_many()) == [1, 2]


def test_an_object_is_its_text_and_is_known_to_be_more() -> None:
    rendered = render.render(object())
    assert rendered.whole
    assert rendered.value.startswith("<object")


def test_an_endless_iterator_is_cut_and_says_so() -> None:
    import itertools

    rendered = render.render(itertools.count())
    assert len(rendered.value) == render.MAX_ITEMS
    assert rendered.cut


def test_a_thing_that_contains_itself_comes_to_an_end() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert render.render(loop).opaque
