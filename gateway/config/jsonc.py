"""JSON as people write it in configuration files: with comments and trailing commas.

Values are exactly those of `json.loads`; beside them stands where each was written, so that a
fault of shape can be reported by line and column too.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from typing import Any, Final, NoReturn, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys and indexes from the root to a value."""

MAX_DEPTH: Final = 100

_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"[^\s,:{}\[\]\"/]+")
_DECODER: Final = JSONDecoder()
_WORDS: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "null": None}


class JsoncError(ValueError):
    """The text is not JSON.

    :param line: from 1. :param column: from 1, in characters. :param expected: what belongs there.
    """

    def __init__(self, message: str, line: int, column: int, expected: str) -> None:
        super().__init__(f"{line}:{column}: {message}, expected {expected}")
        self.message = message
        self.line = line
        self.column = column
        self.expected = expected


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed text.

    :param value: as `json.loads` gives it; of a key given twice the last stands.
    :param offsets: where each value begins, by path; for a member of an object, where its key does.
    :param ends: where each value ends, by path.
    :param repeated: path and offset of every key that its object had already.
    """

    value: Any
    offsets: Mapping[Path, int]
    repeated: tuple[tuple[Path, int], ...]
    lines: Lines
    ends: Mapping[Path, int]

    def position(self, path: Path) -> tuple[int, int]:
        """Line and column of a value, or of the nearest thing around it that was written."""
        while path and path not in self.offsets:
            path = path[:-1]
        return self.lines.position(self.offsets[path])


class Lines:
    """Turns offsets of a text into line and column, both from 1."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def position(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


def parse(text: str) -> Document:
    """Parse one JSON value with comments and trailing commas. Raises JsoncError."""
    return _Parser(text).document()


def past_blank(text: str, at: int) -> int:
    """Past the blanks and comments that begin at a place of a text that was parsed."""
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = Lines(text)
        self.offsets: dict[Path, int] = {}
        self.ends: dict[Path, int] = {}
        self.repeated: list[tuple[Path, int]] = []

    def document(self) -> Document:
        at = self.space(1 if self.text.startswith("\ufeff") else 0)  # editors on Windows write a BOM
        value, at = self.value(at, ())
        at = self.space(at)
        if at < len(self.text):
            self.fail(at, "the end of the file")
        return Document(value, self.offsets, tuple(self.repeated), self.lines, self.ends)

    def space(self, at: int) -> int:
        """Past blanks and comments."""
        match = _SPACE.match(self.text, at)
        assert match is not None  # it matches the empty string
        if self.text.startswith("/*", match.end()):
            self.fail(match.end(), "*/ at the end of the comment", found="a comment without end")
        return match.end()

    def value(self, at: int, path: Path) -> tuple[Any, int]:
        self.offsets.setdefault(path, at)
        value, self.ends[path] = self.read(at, path)
        return value, self.ends[path]

    def read(self, at: int, path: Path) -> tuple[Any, int]:
        head = self.text[at : at + 1]
        if head in ("{", "["):
            if len(path) >= MAX_DEPTH:
                self.fail(at, f"at most {MAX_DEPTH} levels", found="another level of nesting")
            return self.object(at + 1, path) if head == "{" else self.array(at + 1, path)
        if head == '"':
            return self.string(at)
        number = _NUMBER.match(self.text, at)
        if number is not None:
            return self.number(number), number.end()
        word = _WORD.match(self.text, at)
        if word is None or word[0] not in _WORDS:
            self.fail(at, "a JSON value")
        return _WORDS[word[0]], word.end()

    def string(self, at: int) -> tuple[str, int]:
        try:
            text, end = _DECODER.raw_decode(self.text, at)
            return str(text), end
        except JSONDecodeError as error:
            # json counts the place from the quote or inside the string, as it suits the fault.
            found = error.msg.removesuffix(" at").removesuffix(" starting")
            line, column = self.lines.position(min(error.pos, len(self.text)))
            raise JsoncError(found, line, column, 'a string, closed by " on the same line') from None

    def number(self, match: re.Match[str]) -> int | float:
        whole, fraction, exponent = match.groups()
        if fraction or exponent:
            return float(match[0])
        try:
            return int(whole)
        except ValueError:  # Python's limit on the digits of an integer
            self.fail(match.start(), "fewer digits", found=f"a number of {len(whole)} digits")

    def array(self, at: int, path: Path) -> tuple[list[Any], int]:
        items: list[Any] = []
        at = self.space(at)
        while not self.text.startswith("]", at):
            item, at = self.value(at, (*path, len(items)))
            items.append(item)
            at = self.comma(at, "]")
        return items, at + 1

    def object(self, at: int, path: Path) -> tuple[dict[str, Any], int]:
        members: dict[str, Any] = {}
        at = self.space(at)
        while not self.text.startswith("}", at):
            if not self.text.startswith('"', at):
                self.fail(at, 'a key in double quotes or "}"')
            begun = at
            key, at = self.string(at)
            here = (*path, key)
            if key in members:
                self.repeated.append((here, begun))
                self.forget(here)
            self.offsets[here] = begun
            at = self.space(at)
            if not self.text.startswith(":", at):
                self.fail(at, '":"')
            members[key], at = self.value(self.space(at + 1), here)
            at = self.comma(at, "}")
        return members, at + 1

    def forget(self, path: Path) -> None:
        """Drop the places below a key whose value is replaced by a later one."""
        for places in (self.offsets, self.ends):
            for known in [known for known in places if known[: len(path)] == path]:
                del places[known]

    def comma(self, at: int, closing: str) -> int:
        """Past the comma after an item; one before the closing bracket is allowed."""
        at = self.space(at)
        if self.text.startswith(",", at):
            return self.space(at + 1)
        if not self.text.startswith(closing, at):
            self.fail(at, f'"," or "{closing}"')
        return at

    def fail(self, at: int, expected: str, found: str | None = None) -> NoReturn:
        if found is None:
            word = _WORD.match(self.text, at)
            # A short piece only: a configuration file holds secrets.
            piece = word[0] if word else self.text[at : at + 1]
            found = repr(piece if len(piece) <= 8 else piece[:4] + "…") if piece else "the end"
        line, column = self.lines.position(at)
        raise JsoncError(f"found {found}", line, column, expected)
