"""A request as the planner reads it: words, clauses, spans, and where each stands."""

# ruff: noqa: RUF001  (word lists, and the quotes and signs that people type)
from __future__ import annotations

import bisect
import itertools
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
from router.planner.rules.rows import lists
from router.planner.rules.spans import MAX_TEXT, Span, Word, spans, words

_WHOLE: Final = re.compile(r"\A(?=([\"'`“‘]))[\"'`“‘]([^\"“”`]{60,})[\"'`”’]\Z")
"""A request that stands in quotes as a whole: they quote nothing."""
_END: Final = re.compile(r"[.!?;]+[\"'”’)]?\s+|\s*\n\s*")
"""Where a sentence or a line ends."""
_SHORT: Final = 5
"""Words of a sentence that only says that something was wrong."""


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
class Sentence:
    """A sentence or a line of a request.

    :param words: the index of its first word, and of the one after its last.
    :param stems: of its words.
    :param corrects: it says that something said before is not so, or follows one that does nothing else.
    """

    start: int
    end: int
    words: tuple[int, int]
    stems: frozenset[str]
    corrects: bool


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
    sentences: tuple[Sentence, ...]
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
            first = bisect.bisect_right(words, span.start, key=lambda word: word.end)
            last = bisect.bisect_left(words, span.end, lo=first, key=lambda word: word.start)
            at = max(0, bisect.bisect_right(self.sentences, span.start, key=lambda s: s.start) - 1)
            sentence = self.sentences[at]
            more = (float(sentence.corrects), *self._boxed(span), span.start / max(1, len(self.text)))
            found = self.places[key] = place_of(words, first, last, span.text, at, sentence.words, more)
        return found

    def _boxed(self, span: Span) -> tuple[float, float]:
        """Whether a span is a part of a moment, and of a quote or an address."""
        start, end = span.start, span.end
        inside = [m for a, b, m in self.boxes if a <= start and end <= b and (a, b) != (start, end)]
        return float(any(inside)), float(not all(inside))


def read(request: str, today: date | None = None, verbs: frozenset[str] = frozenset()) -> Reading:
    """Read a request; beyond MAX_TEXT characters it is cut.

    :param today: the day it was said on, where it does not say so itself.
    :param verbs: that its clauses may begin with, beside those that everybody uses.
    """
    text = _WHOLE.sub(lambda match: f" {match[2]} ", request[:MAX_TEXT])
    tokens = words(text)
    found = spans(text, tokens)
    clauses = tuple(_clauses(text, tokens, verbs))
    begins = [clause.start for clause in clauses]
    return Reading(
        text=text,
        words=tuple(tokens),
        clauses=clauses,
        sentences=tuple(_sentences(text, tokens)),
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


_CORRECTS: Final = re.compile(
    r"\b(?:sorry|actually|wrong|mistaken?|correction|rather|instead|should (?:be|have been)|change (?:it|that) to|"
    r"(?:i|we) meant?|not right)\b",
    re.IGNORECASE,
)


def _sentences(text: str, tokens: Sequence[Word]) -> Iterator[Sentence]:
    starts = [0, *(match.end() for match in _END.finditer(text) if 0 < match.end() < len(text))]
    begins = [token.start for token in tokens]
    after = False
    for start, end in itertools.pairwise([*starts, len(text)]):
        first, last = (bisect.bisect_left(begins, at) for at in (start, end))
        own = [token for token in tokens[first:last] if token.text[0].isalnum()]
        said = bool(_CORRECTS.search(text, start, end))
        yield Sentence(start, end, (first, last), frozenset(token.stem for token in own), said or after)
        after = said and len(own) <= _SHORT


def _clauses(text: str, tokens: Sequence[Word], verbs: frozenset[str]) -> Iterator[Clause]:
    """The splitter's clauses with their places; what it trims goes to the clause before."""
    at, places = 0, []
    for piece in split(text, verbs):
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
