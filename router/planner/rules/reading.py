"""A request as the planner reads it: words, clauses, spans, and where each stands."""

# ruff: noqa: RUF001  (word lists, and the quotes and signs that people type)
from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from registry.lexical.tokens import STOPWORDS
from registry.search.clauses import split
from router.planner.rules.days import today_said
from router.planner.rules.moments import Moment
from router.planner.rules.places import Place, place_of
from router.planner.rules.spans import MAX_TEXT, Span, Word, lists, spans, words

_WHOLE: Final = re.compile(r"\A(?=([\"'`“‘]))[\"'`“‘]([^\"“”`]{60,})[\"'`”’]\Z")
"""A request that stands in quotes as a whole: they quote nothing."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One wish of a request.

    :param start: where it begins in the request's text; clauses follow each other without gaps.
    :param stems: its content words.
    """

    text: str
    start: int
    end: int
    stems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A request, read once.

    :param rows: spans in a row, joined by commas and "and".
    :param today: the day that it was said on, where that is known.
    :param boxes: where quotes, addresses and moments begin and end, and whether it is a moment.
    :param places: those that were asked for.
    """

    text: str
    words: tuple[Word, ...]
    clauses: tuple[Clause, ...]
    spans: tuple[Span, ...]
    clause: tuple[int, ...]
    rows: tuple[tuple[Span, ...], ...]
    today: date | None
    boxes: tuple[tuple[int, int, bool], ...]
    places: dict[tuple[int, int], Place] = field(default_factory=dict, compare=False, repr=False)

    def clause_at(self, position: int) -> int:
        """The index of the clause that a position of the text is in."""
        return max(0, bisect.bisect_right([clause.start for clause in self.clauses], position) - 1)

    def place(self, span: Span) -> Place:
        """Where a span stands."""
        key = (span.start, span.end)
        found = self.places.get(key)
        if found is None:
            words = self.words
            first = next((i for i, word in enumerate(words) if word.end > span.start), 0)
            last = next((i for i in range(first, len(words)) if words[i].start >= span.end), len(words))
            found = self.places[key] = place_of(words, first, last, span.text)
        return found

    def boxed(self, span: Span) -> tuple[float, float]:
        """Whether a span is a part of a moment, and of a quote or an address."""
        start, end = span.start, span.end
        inside = [m for a, b, m in self.boxes if a <= start and end <= b and (a, b) != (start, end)]
        return float(any(inside)), float(not all(inside))


def read(request: str, today: date | None = None) -> Reading:
    """Read a request; beyond MAX_TEXT characters it is cut.

    :param today: the day it was said on, where it does not say so itself.
    """
    text = _WHOLE.sub(lambda match: f" {match[2]} ", request[:MAX_TEXT])
    tokens = words(text)
    found = spans(text, tokens)
    clauses = tuple(_clauses(text, tokens))
    begins = [clause.start for clause in clauses]
    return Reading(
        text=text,
        words=tuple(tokens),
        clauses=clauses,
        spans=tuple(found),
        clause=tuple(max(0, bisect.bisect_right(begins, span.start) - 1) for span in found),
        rows=tuple(tuple(row) for row in lists(text, found)),
        today=today_said(text) or today,
        boxes=tuple(
            (span.start, span.end, isinstance(span.value, Moment))
            for span in found
            if span.kind in ("quoted", "url", "email") or isinstance(span.value, Moment)
        ),
    )


def _clauses(text: str, tokens: Sequence[Word]) -> Iterator[Clause]:
    """The splitter's clauses with their places; what it trims goes to the clause before."""
    at, places = 0, []
    for piece in split(text):
        probe = piece[:40]
        found = text.find(probe, at)
        start = at if found < 0 else found
        places.append((piece, start))
        at = max(at, start + 1)
    for index, (piece, start) in enumerate(places):
        begin = 0 if index == 0 else start
        end = places[index + 1][1] if index + 1 < len(places) else len(text)
        stems = tuple(
            token.stem
            for token in tokens
            if begin <= token.start < end and token.lower not in STOPWORDS and token.text[0].isalnum()
        )
        yield Clause(piece, begin, end, stems)
