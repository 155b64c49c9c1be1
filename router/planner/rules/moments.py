"""Dates and times in a text, and how a parameter wants them written."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from typing import Final

_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        (
            "january jan",
            "february feb",
            "march mar",
            "april apr",
            "may",
            "june jun",
            "july jul",
            "august aug",
            "september sept sep",
            "october oct",
            "november nov",
            "december dec",
        ),
        1,
    )
    for name in names.split()
}
_MONTH: Final = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DAY: Final = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_DATES: Final = tuple(
    re.compile(rf"(?<![\w/.-])(?:{pattern})(?![\w/])", re.IGNORECASE)
    for pattern in (
        r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})",
        r"(?P<day>\d{1,2})[/.](?P<month>\d{1,2})[/.](?P<year>\d{4})",
        rf"(?P<name>{_MONTH})\.?\s+{_DAY}(?:,?\s+(?:of\s+)?(?P<year>\d{{4}}))?",
        rf"{_DAY}\s+(?:of\s+)?(?P<name>{_MONTH})\.?(?:,?\s+(?P<year>\d{{4}}))?",
        rf"(?P<name>{_MONTH})\.?,?\s+(?:of\s+)?(?P<year>\d{{4}})",
    )
)
_TIME: Final = re.compile(
    r"(?<![\w:.])(?:(?P<hour>\d{1,2})(?::|\.(?=\d{2}\s*[ap]\.?m))(?P<minute>\d{2})(?::(?P<second>\d{2}))?\s*(?P<half>[ap]\.?m\.?)?"
    r"|(?P<hour12>\d{1,2})\s*(?P<half12>[ap]\.?m\.?)|(?P<clock>\d{1,2})\s+o'?clock|(?P<word>noon|midnight))(?!\w|:\w)",
    re.IGNORECASE,
)
_RELATIVE: Final = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|(?:next|last|this|past|coming)\s+(?:\w+\s+)?(?:day|week|weekend|month|"
    r"year|quarter|monday|tuesday|wednesday|thursday|friday|saturday|sunday)s?|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Moment:
    """A date, a time, or both, as far as a text gives them.

    :param raw: as it was written.
    """

    raw: str
    start: int
    end: int
    year: int | None = None
    month: int | None = None
    day: int | None = None
    hour: int | None = None
    minute: int = 0
    second: int = 0

    @property
    def kind(self) -> str:
        """``date``, ``time``, ``datetime`` or, for "next week", ``relative``."""
        if self.month is None and self.hour is None:
            return "relative"
        if self.month is None:
            return "time"
        return "date" if self.hour is None else "datetime"

    def written(self, form: str) -> str | None:
        """The moment in strftime codes; None where it lacks a part that they name."""
        parts = {
            "%Y": self.year,
            "%m": self.month,
            "%d": self.day if self.day is not None or self.month is None else None,
            "%H": self.hour,
            "%M": None if self.hour is None else self.minute,
            "%S": None if self.hour is None else self.second,
        }
        text = form
        for code, number in parts.items():
            if code in text:
                if number is None:
                    return None
                text = text.replace(code, f"{number:04}" if code == "%Y" else f"{number:02}")
        if "%I" in text or "%p" in text:
            if self.hour is None:
                return None
            text = text.replace("%I", f"{self.hour % 12 or 12:02}")
            text = text.replace("%p", "AM" if self.hour < 12 else "PM")
        return text


def moments(text: str) -> list[Moment]:
    """The dates and times of a text in order; a date with a time beside it is both, and each alone."""
    found: list[Moment] = []
    taken: list[tuple[int, int]] = []

    def free(start: int, end: int) -> bool:
        return all(end <= a or start >= b for a, b in taken)

    for pattern in _DATES:
        for match in pattern.finditer(text):
            moment = _date(match)
            if moment is not None and free(moment.start, moment.end):
                found.append(moment)
                taken.append((moment.start, moment.end))
    for match in _TIME.finditer(text):
        moment = _time(match)
        if moment is not None and free(moment.start, moment.end):
            found.append(moment)
            taken.append((moment.start, moment.end))
    for match in _RELATIVE.finditer(text):
        if free(*match.span()):
            found.append(Moment(match.group(), *match.span()))
    found.sort(key=lambda moment: moment.start)
    return found + _joined(found, text)


def joined(day: Moment, time: Moment | None) -> Moment:
    """A day with a time of day; with midnight where there is none."""
    if time is None:
        return replace(day, hour=0)
    return replace(day, hour=time.hour, minute=time.minute, second=time.second)


def _joined(found: list[Moment], text: str) -> list[Moment]:
    both = []
    for first, second in itertools.pairwise(found):
        between = text[first.end : second.start]
        if {first.kind, second.kind} == {"date", "time"} and re.fullmatch(
            r"[\s,]*(?:at|on|T|from|@)?[\s,]*", between
        ):
            day, time = (first, second) if first.kind == "date" else (second, first)
            raw = text[first.start : second.end]
            both.append(
                Moment(
                    raw,
                    first.start,
                    second.end,
                    day.year,
                    day.month,
                    day.day,
                    time.hour,
                    time.minute,
                    time.second,
                )
            )
    return both


def _date(match: re.Match[str]) -> Moment | None:
    parts = match.groupdict()
    month = _MONTHS[parts["name"].lower()] if parts.get("name") else int(parts["month"])
    day = int(parts["day"]) if parts.get("day") else None
    year = int(parts["year"]) if parts.get("year") else None
    if month > 12 and day is not None and day <= 12:
        month, day = day, month
    if not 1 <= month <= 12 or (day is not None and not 1 <= day <= 31):
        return None
    return Moment(
        match.group().rstrip(" ,"),
        match.start(),
        match.start() + len(match.group().rstrip(" ,")),
        year,
        month,
        day,
    )


def _time(match: re.Match[str]) -> Moment | None:
    parts = match.groupdict()
    if parts["word"]:
        hour, half = (12 if parts["word"].lower() == "noon" else 0), None
    else:
        hour = int(parts["hour"] or parts["hour12"] or parts["clock"])
        half = parts["half"] or parts["half12"]
    minute, second = int(parts["minute"] or 0), int(parts["second"] or 0)
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half[0] in "pP" else 0)
    if hour > 23 or minute > 59 or second > 59:
        return None
    said = match.group()
    if half and said[-1] == "." and "." not in half[:-1]:
        said = said[:-1]  # the sentence's own
    return Moment(said, match.start(), match.start() + len(said), hour=hour, minute=minute, second=second)


_FORMS: Final = (
    (re.compile(r"%[YmdHMSIp](?:[-/:. T,]*%[YmdHMSIp])*"), None),
    (re.compile(r"yyyy-mm-dd[ t]hh:mm:ss", re.IGNORECASE), "%Y-%m-%d %H:%M:%S"),
    (re.compile(r"yyyy-mm-dd hh:mm", re.IGNORECASE), "%Y-%m-%d %H:%M"),
    (re.compile(r"yyyy-mm-dd", re.IGNORECASE), "%Y-%m-%d"),
    (re.compile(r"yyyy/mm/dd", re.IGNORECASE), "%Y/%m/%d"),
    (re.compile(r"dd/mm/yyyy", re.IGNORECASE), "%d/%m/%Y"),
    (re.compile(r"mm/dd/yyyy", re.IGNORECASE), "%m/%d/%Y"),
    (re.compile(r"dd-mm-yyyy", re.IGNORECASE), "%d-%m-%Y"),
    (re.compile(r"mm-dd-yyyy", re.IGNORECASE), "%m-%d-%Y"),
    (re.compile(r"yyyymmdd", re.IGNORECASE), "%Y%m%d"),
    (re.compile(r"yyyy-mm\b", re.IGNORECASE), "%Y-%m"),
    (re.compile(r"hh:mm:ss", re.IGNORECASE), "%H:%M:%S"),
    (re.compile(r"hh:mm(?:\s*(?:a\b|am|pm|am/pm))", re.IGNORECASE), "%I:%M %p"),
    (re.compile(r"hh:mm", re.IGNORECASE), "%H:%M"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d"), "%Y-%m-%d %H:%M:%S"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d\b"), "%Y-%m-%d %H:%M"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "%Y-%m-%d"),
    (re.compile(r"\bISO[- ]?8601", re.IGNORECASE), "%Y-%m-%d"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "%H:%M:%S"),
    (re.compile(r"\b\d\d:\d\d\b(?!\s*[ap]\.?m)", re.IGNORECASE), "%H:%M"),
)


def form_of(description: str) -> str | None:
    """The form that a parameter's description asks for, in strftime codes; None where it asks for none."""
    for pattern, form in _FORMS:
        match = pattern.search(description)
        if match:
            return form or match.group()
    return None
