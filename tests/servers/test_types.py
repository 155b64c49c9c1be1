"""Annotations and their wording become types; types become schemas; JSON becomes the values they mean."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.convert import schema
from servers.worker import hints, wording
from servers.worker.coerce import Coercer, member
from servers.worker.problems import BadArgument


class Shade(enum.Enum):
    DARK = "d"
    LIGHT = "l"


class Mode(enum.IntFlag):
    FAST = 1
    SAFE = 2


@dataclasses.dataclass
class Spot:
    x: float
    label: str = ""


Pair = collections.namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, {"k": "int"}),
        (int | None, {"k": "union", "of": [{"k": "int"}, {"k": "none"}]}),
        (list[str], {"k": "list", "of": {"k": "str"}}),
        (typing.Sequence[int], {"k": "list", "of": {"k": "int"}}),
        (typing.Sequence[str], {"k": "list", "of": {"k": "str"}, "text": True}),
        (tuple[int, ...], {"k": "tuple", "of": {"k": "int"}}),
        (tuple[int, str], {"k": "tuple", "items": [{"k": "int"}, {"k": "str"}]}),
        (dict[str, float], {"k": "dict", "of": {"k": "float"}}),
        (typing.Literal["a", 2], {"k": "literal", "values": ["a", 2]}),
        (typing.Annotated[int, "meta"], {"k": "int"}),
        (type[int], {"k": "class"}),
        (typing.Callable[[int], int], {"k": "callable"}),
        (pathlib.Path, {"k": "path"}),
        (Any, {"k": "any"}),
    ],
)
def test_an_annotation_becomes_a_type(annotation: Any, expected: dict[str, Any]) -> None:
    assert hints.describe(annotation) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("int | None", {"k": "union", "of": [{"k": "int"}, {"k": "none"}]}),
        (
            "Optional[Sequence[str]]",
            {"k": "union", "of": [{"k": "list", "of": {"k": "str"}, "text": True}, {"k": "none"}]},
        ),
        ("array_like, optional", {"k": "ndarray"}),
        ("list of str", {"k": "list", "of": {"k": "str"}}),
        ("{'a', 'b'}, default 'a'", {"k": "literal", "values": ["a", "b"]}),
        ("datetime.date", {"k": "date"}),
        (":class:`bytes`", {"k": "bytes"}),
        ("Frobnicator", {"k": "any"}),
        ("", {"k": "any"}),
    ],
)
def test_words_become_a_type(text: str, expected: dict[str, Any]) -> None:
    assert wording.describe(text) == expected


@given(st.text())
def test_any_words_at_all_are_read_without_an_error(text: str) -> None:
    assert "k" in wording.describe(text)


def make(value: Any, kind: dict[str, Any]) -> Any:
    return Coercer(__name__.split(".")[0], lambda given: given).make(value, kind, "p")


@pytest.mark.parametrize(
    ("annotation", "given", "expected"),
    [
        (bytes, "aGk=", b"hi"),
        (datetime.date, "2024-02-29", datetime.date(2024, 2, 29)),
        (datetime.datetime, "2024-02-29T10:00:00", datetime.datetime(2024, 2, 29, 10)),
        (datetime.timedelta, "PT1H30M", datetime.timedelta(minutes=90)),
        (datetime.timedelta, 90, datetime.timedelta(seconds=90)),
        (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
        (tuple[int, int], [1, 2], (1, 2)),
        (set[int], [1, 1], {1}),
        (Spot, {"x": 1.5}, Spot(1.5)),
        (Spot, [1.5, "a"], Spot(1.5, "a")),
        (Pair, {"left": 1, "right": 2}, Pair(1, 2)),
        (list[Spot], [{"x": 1}], [Spot(1)]),
        (datetime.date | str, "2024-02-29", datetime.date(2024, 2, 29)),
        (datetime.date | str, "soon", "soon"),
        (datetime.timedelta | float, 5, 5),
        (str | None, None, None),
        (type, "datetime:datetime", datetime.datetime),
    ],
)
def test_json_becomes_the_value_that_the_type_means(annotation: Any, given: Any, expected: Any) -> None:
    made = make(given, hints.describe(annotation))
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "given"),
    [
        (int, "x"),
        (bytes, "!"),
        (datetime.date, "soon"),
        (tuple[int, int], [1]),
        (Spot, {"z": 1}),
        (bool, "yes"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_its_parameters_name(annotation: Any, given: Any) -> None:
    with pytest.raises(BadArgument, match="'p'"):
        make(given, hints.describe(annotation))


@pytest.mark.parametrize("reference", ["os:system", "builtins:eval", "subprocess:run", "nonsense"])
def test_functions_beyond_the_package_and_plain_python_cannot_be_named(reference: str) -> None:
    with pytest.raises(BadArgument):
        make(reference, {"k": "callable"})


@pytest.mark.parametrize("given", ["DARK", "dark", "d"])
def test_an_enum_is_given_by_name_in_any_case_or_by_value(given: str) -> None:
    assert member(Shade, given) is Shade.DARK


def test_flags_are_joined_by_name() -> None:
    assert member(Mode, "FAST|SAFE") == Mode.FAST | Mode.SAFE


def test_bytes_are_base64_in_a_schema_unless_text_will_do() -> None:
    assert schema.of_type(hints.describe(bytes)) == {"type": "string", "contentEncoding": "base64"}
    assert schema.of_type(hints.describe(str | bytes)) == {"type": "string"}


def test_a_type_nobody_knows_admits_anything() -> None:
    assert schema.of_type({"k": "any"}) == {}
