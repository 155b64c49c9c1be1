"""Which day a request means by "tomorrow", "next Friday" or "March 9th"."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta
from typing import Final

from router.planner.rules.moments import Moment, moments

_SAYS: Final = re.compile(r"\b(?:today(?:'s date)?|current date|it) is[:\s]+", re.IGNORECASE)
_WEEKDAY: Final = re.compile(r"(?:\w+day)?[\s,]*(?:the )?", re.IGNORECASE)
_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NEAR: Final = {"today": 0, "tonight": 0, "tomorrow": 1, "yesterday": -1}


def today_said(text: str) -> date | None:
    """The day that a text says it is: "Today is 2024-05-03"."""
    for match in _SAYS.finditer(text):
        said = text[match.end() : match.end() + 40]
        for moment in moments(said):
            if moment.year and moment.month and moment.day and _WEEKDAY.fullmatch(said[: moment.start]):
                return _date(moment.year, moment.month, moment.day)
    return None


def on_a_day(moment: Moment, today: date) -> Moment | None:
    """A moment with its day made out: the next such day where the year is left out.

    None where the text names no one day ("next week").
    """
    if moment.month is not None:
        if moment.day is None or moment.year is not None:
            return None
        found = _date(today.year, moment.month, moment.day)
        if found is None or found < today:
            found = _date(today.year + 1, moment.month, moment.day)
        return None if found is None else _with(moment, found)
    if moment.kind != "relative":
        return None
    text = moment.raw.lower()
    if text in _NEAR:
        return _with(moment, today + timedelta(days=_NEAR[text]))
    weekday = next((n for n, name in enumerate(_WEEKDAYS) if re.search(rf"\b{name}\w*day\b", text)), None)
    if weekday is None:
        return None
    ahead = (weekday - today.weekday()) % 7
    if text.startswith(("last", "past")):
        return _with(moment, today - timedelta(days=7 - ahead))
    return _with(moment, today + timedelta(days=ahead if ahead or text.startswith("this") else 7))


def _with(moment: Moment, day: date) -> Moment:
    return replace(moment, year=day.year, month=day.month, day=day.day)


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None
