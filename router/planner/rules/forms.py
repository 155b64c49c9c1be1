"""Values that a request holds in another form than a parameter wants.

The examples of its description as options ("dogs" is "dog"), names for codes, numbers in other units,
rows as one text, and days and times made whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from registry.lexical.tokens import STOPWORDS
from router.planner.rules.codes import coded
from router.planner.rules.days import on_a_day
from router.planner.rules.moments import Moment, joined
from router.planner.rules.params import Param
from router.planner.rules.reading import Reading
from router.planner.rules.spans import Span, stems_of
from router.planner.rules.units import put_into, unit_after, unit_wanted

Offer = tuple[Any, int | None, Span | None, str, float]
"""A value, the index of its span or None, the span, its kind, and how well it matches."""

MAX_PAIRS: Final = 8
"""Dates with times that are tried."""
_COMMAS: Final = frozenset(("comma", "delimit"))


def other_forms(param: Param, reading: Reading) -> Iterator[Offer]:
    """What a parameter that takes one number or text may take beside the spans as they stand."""
    if param.type in ("integer", "number", "any"):
        yield from _converted(param, reading)
    if param.type in ("string", "any"):
        yield from _examples(param, reading)
        for found in coded(param, reading.text):
            span = Span(reading.text[found.start : found.end], "enum", found.start, found.end, found.code)
            yield found.code, None, span, "enum", 1.0 if found.asked else 0.6
        if param.form:
            yield from _whole_moments(param.form, reading)
        if param.about & _COMMAS:
            for row in reading.rows:
                span = Span(reading.text[row[0].start : row[-1].end], "row", row[0].start, row[-1].end, row)
                yield ",".join(item.text for item in row), None, span, "row", float(len(row))


def _converted(param: Param, reading: Reading) -> Iterator[Offer]:
    """Numbers in another unit, and percents as shares."""
    wanted = unit_wanted((*param.names, *sorted(param.about)))
    for index, span in enumerate(reading.spans):
        if span.kind != "number":
            continue
        if param.type != "integer" and span.text[-1:] in "%t":
            yield round(span.value / 100, 10), index, span, "number", 1.0
        unit = unit_after(reading.text, span.end) if wanted is not None else None
        if wanted is not None and unit is not None and unit != wanted and unit.dimension == wanted.dimension:
            value = put_into(span.value, unit, wanted)
            if param.type != "integer" or isinstance(value, int):
                yield value, index, span, "number", 1.0


def _examples(param: Param, reading: Reading) -> Iterator[Offer]:
    """The examples that a request names, as the description writes them."""
    for example in param.examples:
        place = named(example, reading)
        if place is not None:
            start, end, share = place
            if reading.text[start:end] != example:
                span = Span(reading.text[start:end], "enum", start, end, example)
                yield example, None, span, "enum", share


def named(option: str, reading: Reading) -> tuple[int, int, float] | None:
    """Where a request says an option, word by word in their order: (start, end, share of its words)."""
    pieces = [piece for piece in stems_of(option) if piece not in STOPWORDS]
    if not pieces or not re.search(r"[^\W\d]", option):
        return None
    words = reading.words
    for at, word in enumerate(words):
        if word.stem != pieces[0]:
            continue
        last, missing = at, False
        for piece in pieces[1:]:
            following = next(
                (i for i in range(last + 1, min(last + 3, len(words))) if words[i].stem == piece), -1
            )
            if following < 0:
                missing = True
                break
            last = following
        if not missing:
            return word.start, words[last].end, 0.8
    return None


def _whole_moments(form: str, reading: Reading) -> Iterator[Offer]:
    """Days that want a year or a weekday's date, and days with the time that stands elsewhere."""
    indexed = [
        (i, span, span.value) for i, span in enumerate(reading.spans) if isinstance(span.value, Moment)
    ]
    days: list[tuple[int, Span, Moment]] = []
    for index, span, moment in indexed:
        if moment.year is not None and moment.day is not None:
            days.append((index, span, moment))
        elif reading.today is not None and (day := on_a_day(moment, reading.today)) is not None:
            days.append((index, span, day))
            written = day.written(form)
            if written is not None:
                yield written, index, span, span.kind, 0.5
    if "%d" not in form or not ("%H" in form or "%I" in form):
        return
    times = [(index, span, moment) for index, span, moment in indexed if moment.kind == "time"]
    yield from _pairs(form, days, times)
    for index, span, day in days:
        if day.hour is None and not times:
            written = joined(day, None).written(form)
            if written is not None:
                yield written, index, span, span.kind, 0.3


def _pairs(
    form: str, days: Sequence[tuple[int, Span, Moment]], times: Sequence[tuple[int, Span, Moment]]
) -> Iterator[Offer]:
    pairs = [(d, t) for t in times for d in days if d[2].hour is None]
    pairs.sort(key=lambda pair: abs(pair[0][1].start - pair[1][1].start))
    for (_, _, day), (index, span, time) in pairs[:MAX_PAIRS]:
        written = joined(day, time).written(form)
        if written is not None:
            yield written, index, span, "datetime", 0.5
