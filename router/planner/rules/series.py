"""What a request names several of: a row, "Paris, Rome and London", and a series, a row with words between its items.

"Season 2025 in tournament 400, season 2024 in tournament 350" holds two series.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Sequence
from typing import Final

from router.planner.rules.params import Param
from router.planner.rules.reading import Reading
from router.planner.rules.spans import Span, Word, stems_of

AND: Final = re.compile(r",?\s+(?:and|&)\s+", re.IGNORECASE)
_TELLING: Final = frozenset(("url", "email", "path", "date", "datetime"))
"""Kinds of spans that are alike by their form alone; others are where the same word stands before or after them."""
_CODE: Final = re.compile(r"[A-Z]{2}")
"""A state or a country behind a city: "Boston, MA"."""


def several(span: Span, param: Param, reading: Reading, most: int) -> list[tuple[tuple[Span, ...], bool]]:
    """The items that a span may be one of, or all of: of a row, and of a series, which is told by True.

    :param most: items of a series.
    """
    row = _row_of(span, reading)
    series = _options_said(param, reading) if param.type == "enum" else _series_of(span, reading)[:most]
    found = [] if row is None else [(row, False)]
    if len(series) > 1 and (row is None or len(row) != len(series)):
        found.append((series, True))
    return found


def _row_of(span: Span, reading: Reading) -> tuple[Span, ...] | None:
    """The row that a span is an item of, or several items."""
    for row in reading.rows:
        within = row[0].start <= span.start and span.end <= row[-1].end
        if within and any(span.start <= item.start and item.end <= span.end for item in row):
            return _joined(row, reading.text)
    return None


def _joined(row: tuple[Span, ...], text: str) -> tuple[Span, ...]:
    """A row whose places come with their states or countries, each such pair one item.

    "Tokyo, Japan, and London, UK": the "and" stands before the last pair, not before the last item.
    """
    joints = [text[a.end : b.start] for a, b in itertools.pairwise(row)]
    pairs = len(row) % 2 == 0 and len(row) > 2 and AND.fullmatch(joints[-2]) is not None
    if pairs and all(joint.strip() == "," for joint in joints[::2]):
        return tuple(_between(a, b, text) for a, b in zip(row[::2], row[1::2], strict=True))
    items: list[Span] = []
    for item in row:
        code = items and _CODE.fullmatch(item.text) and text[items[-1].end : item.start].strip() == ","
        items.append(_between(items.pop(), item, text) if code else item)
    return tuple(items)


def _between(first: Span, last: Span, text: str) -> Span:
    said = text[first.start : last.end]
    return Span(said, first.kind, first.start, last.end, said)


def _series_of(span: Span, reading: Reading) -> tuple[Span, ...]:
    """The spans that stand in a request as this one does: of its kind, with the same word before or after them."""
    if span.kind in ("enum", "flag", "row", "tail", "line", "list"):
        return ()
    alike = {s for s in reading.spans if s.kind == span.kind and _beside(span, s, reading)}
    items: list[Span] = []
    for other in sorted({*alike, span}, key=lambda s: (s.start, -s.end)):
        if not items or other.start >= items[-1].end:
            items.append(other)
    return tuple(items)


def _beside(span: Span, other: Span, reading: Reading) -> bool:
    if span.kind in _TELLING:
        return True
    (a, b), (c, d) = (_neighbours(s, reading.words) for s in (span, other))
    return (a is not None and a == c) or (b is not None and b == d)


def _neighbours(span: Span, words: Sequence[Word]) -> tuple[str | None, str | None]:
    """The stems of the words before and after a span; None where there is a sign."""
    first = bisect.bisect_right(words, span.start, key=lambda word: word.end)
    last = bisect.bisect_left(words, span.end, lo=first, key=lambda word: word.start)
    before = words[first - 1] if first else None
    after = words[last] if last < len(words) else None
    return (
        before.stem if before is not None and before.text[0].isalnum() else None,
        after.stem if after is not None and after.text[0].isalnum() else None,
    )


def _options_said(param: Param, reading: Reading) -> tuple[Span, ...]:
    """The options of a parameter that a request names, as it names them."""
    found = []
    for option in param.enum[:60]:
        names = stems_of(str(option))
        if len(names) == 1:
            word = next((word for word in reading.words if names[0] in stems_of(word.lower)[:1]), None)
            if word is not None:
                found.append(Span(word.text, "enum", word.start, word.end, option))
    return tuple(sorted(found, key=lambda s: s.start))
