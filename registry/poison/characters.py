"""Characters that a person does not see and a model reads.

Invisible and direction-changing characters (Unicode TR36, TR39; "Trojan Source", Boucher and Anderson,
2021), the tag block that spells ASCII invisibly, and words that mix alphabets to look like others.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

_BIDI: Final = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x061C, 0x200E, 0x200F)))
_ZERO: Final = frozenset(map(chr, (0x00AD, 0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x200B, 0x2060, 0x2061,
                                   0x2062, 0x2063, 0x2064, 0x3164, 0xFEFF, 0xFFA0)))  # fmt: skip
_JOINERS: Final = frozenset(map(chr, (0x200C, 0x200D)))
_PLAIN: Final = frozenset("\n\r\t")
_CONFUSED: Final = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")


@dataclass(frozen=True, slots=True)
class Hidden:
    """A character that should not be there.

    :param kind: ``bidi``, ``invisible``, ``tag``, ``control``, ``private`` or ``mixed`` (alphabets in a word).
    :param place: its index in the text.
    """

    kind: str
    place: int
    text: str


def hidden_characters(text: str) -> list[Hidden]:
    """Every hidden character of a text, in order. Plain line breaks and tabs are none.

    Joiners count where they join nothing: between letters of scripts that need them (Arabic, Indic
    scripts) and inside emoji they are part of the writing.
    """
    if text.isascii():
        if text.isprintable():
            return []
        return [
            Hidden("control", place, char)
            for place, char in enumerate(text)
            if (char < " " or char == "\x7f") and char not in _PLAIN
        ]
    found = []
    for place, char in enumerate(text):
        kind = _kind(text, place, char)
        if kind is not None:
            found.append(Hidden(kind, place, char))
    found.extend(_mixed(text))
    return sorted(found, key=lambda one: one.place)


def _kind(text: str, place: int, char: str) -> str | None:
    if char in _BIDI:
        return "bidi"
    if char in _ZERO:
        return "invisible"
    code = ord(char)
    if 0xE0000 <= code <= 0xE007F:
        return None if _flag(text, place) else "tag"
    if 0xE0100 <= code <= 0xE01EF:
        return "invisible"
    if char in _JOINERS:
        before, after = text[place - 1 : place], text[place + 1 : place + 2]
        joins = before and after and not before.isascii() and not after.isascii()
        return None if joins else "invisible"
    category = unicodedata.category(char)
    if category == "Cc" and char not in _PLAIN:
        return "control"
    if category in {"Co", "Cs"}:
        return "private"
    return "invisible" if category == "Cf" else None


def _flag(text: str, place: int) -> bool:
    """Whether a tag character belongs to an emoji flag such as Scotland's: at most six after U+1F3F4."""
    base = text.rfind("\U0001f3f4", max(0, place - 7), place)
    return base >= 0 and all(0xE0000 <= ord(char) <= 0xE007F for char in text[base + 1 : place])


def _mixed(text: str) -> list[Hidden]:
    found = []
    start = 0
    for word in text.split():
        start = text.index(word, start)
        letters = [(i, c) for i, c in enumerate(word) if c.isalpha()]
        if any(c.isascii() for _, c in letters) and not word.isascii():
            for i, char in letters:
                # A letter between letters: "µg" and "Ω-3" are written so, "pаypal" is not.
                near = word[max(0, i - 1)] + word[min(len(word) - 1, i + 1)]
                if (
                    char > "\x7f"
                    and _alphabet(char) in _CONFUSED
                    and any(c.isascii() and c.isalpha() for c in near)
                ):
                    found.append(Hidden("mixed", start + i, char))
        start += len(word)
    return found if len(found) > 1 or any(_alphabet(one.text) == "CYRILLIC" for one in found) else []


def _alphabet(char: str) -> str:
    return unicodedata.name(char, "").split(" ")[0]


def visible(text: str) -> str:
    """The text with each hidden character written out as ``<U+202E>``, safe to print."""
    marked = {one.place for one in hidden_characters(text)}
    return "".join(f"<U+{ord(char):04X}>" if i in marked else char for i, char in enumerate(text))
