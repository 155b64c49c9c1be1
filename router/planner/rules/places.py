"""Where a span stands: the words around it, and what it is made of, whatever parameter asks."""

# ruff: noqa: RUF001  (word lists, and the quotes and signs that people type)
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from registry.lexical.tokens import STOPWORDS
from router.planner.rules.spans import NAMERS, Word

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
FROM: Final = _PREPOSITIONS["from"]
TO: Final = _PREPOSITIONS["to"]


@dataclass(frozen=True, slots=True)
class Place:
    """A span's surroundings.

    :param left: stems before it with how near each is, up to the end of the sentence; ``right`` after it.
    :param beside: stems of the two words before it, where there are any; ``after`` of the one behind it.
    :param preposition: the group of the preposition before it; 0 where there is none.
    :param words: how many it has; ``content`` are the stems of those that tell something.
    :param whole: it is a run of words of its own, and no part of one.
    """

    left: tuple[tuple[str, float], ...]
    right: tuple[tuple[str, float], ...]
    beside: tuple[str, ...]
    after: str
    preposition: int
    words: int
    content: tuple[str, ...]
    whole: bool
    lower: str
    shape: str
    capital: float
    digits: float


def place_of(words: Sequence[Word], first: int, last: int, text: str) -> Place:
    """The surroundings of a text that is made of the words from ``first`` up to ``last``."""
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
    after = words[last].lower if last < len(words) else "."
    begins = (
        first == 0
        or not words[first - 1].text[0].isalnum()
        or words[first - 1].lower in STOPWORDS
        or words[first - 1].lower in NAMERS
    )
    return Place(
        tuple(left),
        tuple(right),
        tuple(words[at].stem for at in range(max(0, first - 2), first)),
        words[last].stem if last < len(words) else "",
        _PREPOSITIONS.get(before, 0),
        last - first,
        tuple(words[i].stem for i in range(first, last) if words[i].stem not in STOPWORDS),
        begins and (not after[0].isalnum() or after in STOPWORDS),
        text.lower(),
        shape(text),
        float(text[:1].isupper()),
        float(any(char.isdigit() for char in text)),
    )


def shape(text: str) -> str:
    """A text with its letters and digits made alike: ``BA2490`` is ``A0``."""
    return re.sub(r"[a-z]+", "a", re.sub(r"[A-Z]+", "A", re.sub(r"\d+", "0", text)))[:24]
