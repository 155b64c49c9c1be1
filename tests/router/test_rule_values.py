"""What a parameter may take from a request that says it in other words: units, codes, options, days."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from router.plan import Definition
from router.planner.rules.days import on_a_day, today_said
from router.planner.rules.evidence import FEATURES, owner_of
from router.planner.rules.moments import moments
from router.planner.rules.reading import read
from router.planner.rules.units import UNITS, put_into, unit_after, unit_wanted
from router.planner.rules.values import candidates

TODAY = date(2024, 5, 3)  # a Friday


def offered(request: str, name: str, description: str = "", **schema: Any) -> list[Any]:
    """Every value that a request offers a parameter."""
    rule = {"type": "string", "description": description, **schema}
    tool = Definition("tool", "", {"type": "object", "properties": {name: rule}})
    reading = read(request, TODAY)
    owner = owner_of(tool, frozenset({0}))
    found = candidates(owner.params[0], owner, reading)
    assert all(len(value.features) == len(FEATURES) for value in found)
    return [value.value for value in found]


@pytest.mark.parametrize(
    ("request_", "name", "description", "kind", "wanted"),
    [
        ("restaurants within 1.5km of here", "distance", "The distance in meters", "integer", 1500),
        ("run 3 miles", "distance", "How far, in kilometers", "number", 4.828032),
        ("wait 2 hours", "minutes", "", "integer", 120),
        ("a rate of 5%", "rate", "", "number", 0.05),
        ("show the second page", "page", "", "integer", 2),
    ],
)
def test_numbers_are_offered_in_the_unit_that_a_parameter_is_in(
    request_: str, name: str, description: str, kind: str, wanted: float
) -> None:
    assert wanted in offered(request_, name, description, type=kind)


def test_a_unit_is_told_by_its_name_or_its_sign_and_only_where_there_is_one() -> None:
    assert unit_after("5km away", 1) == unit_after("5 kilometers", 1) == UNITS["km"]
    assert unit_after("5 apples", 1) is None
    assert unit_after("5", 1) is None
    assert unit_wanted(("distanc", "kilomet")) == UNITS["km"]
    assert unit_wanted(("minut", "hour")) is None
    assert put_into(90, UNITS["minute"], UNITS["hour"]) == 1.5


@pytest.mark.parametrize(
    ("request_", "name", "description", "wanted"),
    [
        ("anatomy of dogs", "species", "The species (e.g., dog, cat, horse)", "dog"),
        ("put it at the top left", "position", "One of: 'top-left', 'top-right', 'center'", "top-left"),
        ("as a JPG file", "format", "The format, e.g. jpg, png", "jpg"),
        ("translate it into Spanish", "language", "ISO 639-1 code of the language", "es"),
        ("from British pounds to yen", "target_currency", "e.g. USD", "GBP"),
        (
            "what time is it in new york",
            "timezone",
            "IANA name, e.g. 'Europe/London' or 'UTC'",
            "America/New_York",
        ),
        ("validate 01:23:45:67:ab:CD", "address", "", "01:23:45:67:ab:CD"),
        ("quotes for AAPL, MSFT and TSLA", "symbols", "Comma-separated list of symbols", "AAPL,MSFT,TSLA"),
        ("update John's address", "username", "", "John"),
        ("see Dr. Brown tomorrow", "doctor", "", "Dr. Brown"),
    ],
)
def test_texts_are_offered_as_a_parameter_writes_them(
    request_: str, name: str, description: str, wanted: str
) -> None:
    assert wanted in offered(request_, name, description)


def test_a_parameter_whose_examples_are_names_is_offered_no_codes() -> None:
    assert "es" not in offered(
        "translate it into Spanish", "language", "The language (e.g., Spanish, French)"
    )


def test_where_codes_are_wanted_a_name_that_has_one_is_no_value() -> None:
    assert offered("translate it into Spanish", "language", "ISO 639-1 code") == ["es"]
    assert set(offered("from fr into Spanish", "language", "ISO 639-1 code")) == {"fr", "es"}


@pytest.mark.parametrize(
    ("request_", "form", "wanted"),
    [
        ("remind me on March 9th", "YYYY-MM-DD", "2025-03-09"),
        ("a table for tomorrow", "YYYY-MM-DD", "2024-05-04"),
        ("next Friday", "YYYY-MM-DD", "2024-05-10"),
        ("Turn it on at 7 pm tonight. Today is 2021-08-05.", "%Y-%m-%d %H:%M:%S", "2021-08-05 19:00:00"),
        ("on 2024-03-05 at the office, 11.30 a.m.", "%Y-%m-%d %H:%M", "2024-03-05 11:30"),
        ("on 2024-03-05", "%Y-%m-%d %H:%M:%S", "2024-03-05 00:00:00"),
    ],
)
def test_days_and_times_are_offered_whole(request_: str, form: str, wanted: str) -> None:
    assert wanted in offered(request_, "date", f"Format: {form}")


def test_a_parameter_of_several_types_takes_any_of_them() -> None:
    found = offered("a code for https://example.com and 5", "content", type=["integer", "string", "null"])
    assert "https://example.com" in found
    assert 5 in found


def test_what_a_person_types_as_a_list_or_an_object_is_one() -> None:
    assert {"a": 1} in offered("merge {'a': 1} and it", "first", type="object")
    assert [0, 5, -3] in offered(
        "located at (0, 5, -3)", "position", type=["array"], items={"type": "number"}
    )
    assert {"a": 1} not in offered("merge {'a': 1", "first", type="object")
    assert {"a": {"b": [1]}} in offered('look /a/b up in {"a": {"b": [1]}}', "document", type="object")
    assert '{"a": {"b": 1}}' in offered('parse {"a": {"b": 1}}', "text")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("yesterday", date(2024, 5, 2)),
        ("last Friday", date(2024, 4, 26)),
        ("this Friday", date(2024, 5, 3)),
        ("May 1st", date(2025, 5, 1)),
        ("February 30", None),
        ("next week", None),
        ("March 2023", None),
    ],
)
def test_a_day_is_made_out_only_where_the_words_name_one(text: str, wanted: date | None) -> None:
    (moment,) = moments(text)
    found = on_a_day(moment, TODAY)
    assert (found and date(found.year or 0, found.month or 0, found.day or 0)) == wanted


def test_a_request_may_say_what_day_it_is() -> None:
    assert today_said("Today is May 3, 2024. Remind me") == TODAY
    assert today_said("Today is a good day, 2024-01-01 was not") is None
