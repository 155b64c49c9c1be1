"""Where a span stands: the words around it, and what it is made of, whatever parameter asks."""

# ruff: noqa: RUF001  (word lists, and the quotes and signs that people type)
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from registry.lexical.tokens import STOPWORDS
from router.planner.rules.spans import NAMERS, Word, stems_of

_STOPS: Final = frozenset(".!?;")
_BEFORE: Final = frozenset(("the", "a", "an", "my", '"', "'", "“", "`", "‘"))
_PREPOSITIONS: Final = {
    word: index
    for index, group in enumerate(
        (
            "in at near around inside",
            "on",
            "from since starting beginning",
            "to until till into towards",
            "for",
            "by",
            "with using via",
            "of",
            "is are was as be =",
            "named called titled entitled saying",
            ":",
            "about regarding on concerning",
            "between and or ,",
            "than over under above below",
        ),
        1,
    )
    for word in group.split()
}
_STATES: Final = frozenset((_PREPOSITIONS["is"], _PREPOSITIONS["named"], _PREPOSITIONS[":"]))
FROM: Final = _PREPOSITIONS["from"]
TO: Final = _PREPOSITIONS["to"]


ALONE: Final = (
    "words",
    "chars",
    "preposition",
    "whole_run",
    "capital",
    "digits",
    "opens",
    "fills",
    "corrects",
    "in_moment",
    "in_quote",
    "position",
)
"""What is told of a span whatever parameter asks. It ``opens`` the sentence that it begins, and ``fills`` one that is no more."""


@dataclass(frozen=True, slots=True)
class Place:
    """A span's surroundings.

    :param left: stems before it with how near each is, up to the end of the sentence; ``right`` after it.
    :param beside: stems of the two words before it, where there are any; ``after`` of the one behind it.
    :param preposition: the group of the preposition before it; 0 where there is none.
    :param content: the stems of those of its words that tell something; ``around`` all of them and those about it.
    :param stated: before it stands "is", "called", a colon or the like.
    :param sentence: the index of the one it is in.
    :param alone: one number for each of ALONE.
    """

    left: tuple[tuple[str, float], ...]
    right: tuple[tuple[str, float], ...]
    beside: tuple[str, ...]
    after: str
    preposition: int
    stated: bool
    content: tuple[str, ...]
    around: frozenset[str]
    lower: str
    shape: str
    sentence: int
    alone: tuple[float, ...]


def place_of(
    words: Sequence[Word],
    first: int,
    last: int,
    text: str,
    sentence: int,
    bounds: tuple[int, int],
    more: tuple[float, ...],
) -> Place:
    """The surroundings of a text that is made of the words from ``first`` up to ``last``.

    :param bounds: the first word of its sentence, and the one after its last.
    :param more: the last four of ALONE.
    """
    left: list[tuple[str, float]] = []
    for step in range(1, 9):
        at = first - step
        if at < 0 or words[at].lower in _STOPS:
            break
        left.append((words[at].stem, 1.0 / (1 + 0.35 * (step - 1))))
    right: list[tuple[str, float]] = []
    for step in range(4):
        at = last + step
        if at >= len(words) or words[at].lower in _STOPS:
            break
        right.append((words[at].stem, 1.0 / (1 + step)))
    before = words[first - 1].lower if first > 0 else ""
    if before in _BEFORE and first > 1:
        before = words[first - 2].lower
    preposition = _PREPOSITIONS.get(before, 0)
    after = words[last].lower if last < len(words) else "."
    begins = (
        first == 0
        or not words[first - 1].text[0].isalnum()
        or words[first - 1].lower in STOPWORDS
        or words[first - 1].lower in NAMERS
    )
    whole = begins and (not after[0].isalnum() or after in STOPWORDS)
    opens = all(not words[at].text[0].isalnum() for at in range(bounds[0], first))
    fills = opens and all(not words[at].text[0].isalnum() for at in range(last, bounds[1]))
    beside = tuple(words[at].stem for at in range(max(0, first - 2), first))
    content = tuple(stem for word in words[first:last] for stem in _parts(word) if stem not in STOPWORDS)
    return Place(
        left=tuple(left),
        right=tuple(right),
        beside=beside,
        after=words[last].stem if last < len(words) else "",
        preposition=preposition,
        stated=preposition in _STATES,
        content=content,
        around=frozenset((*beside, *content, *(stem for stem, _ in (*left, *right)))),
        lower=text.lower(),
        shape=shape(text),
        sentence=sentence,
        alone=(
            float(last - first),
            float(min(len(text), 200)),
            float(preposition),
            float(whole),
            float(text[:1].isupper()),
            float(any(char.isdigit() for char in text)),
            float(opens),
            float(fills),
            *more,
        ),
    )


def _parts(word: Word) -> tuple[str, ...]:
    """The stems of a word, of each part of one with a hyphen."""
    return (word.stem,) if word.text.isalnum() else stems_of(word.text)


def shape(text: str) -> str:
    """A text with its letters and digits made alike: ``BA2490`` is ``A0``, and ``San Jose, CA`` is ``Aa, A``."""
    alike = re.sub(r"[a-z]+", "a", re.sub(r"[A-Z]+", "A", re.sub(r"\d+", "0", text)))
    return re.sub(r"(\w+)(?: \1)+(?!\w)", r"\1", alike)[:24]
