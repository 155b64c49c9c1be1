"""Changing one member of a JSON file that people write: every byte around it stays as it was.

Comments, order, indentation, line ends and trailing commas are somebody's work, so text is put in
and taken out at its place; nothing is written anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.config import jsonc

_UNIT: Final = "  "


class CannotEdit(ValueError):
    """The text has no place for the change. The message says what is in the way, and where."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A change of a text: what stands from ``begin`` to ``end`` gives way to ``text``."""

    begin: int
    end: int
    text: str


def apply(text: str, pieces: tuple[Piece, ...]) -> str:
    """The text with every piece put in; pieces do not overlap."""
    for piece in sorted(pieces, key=lambda piece: piece.begin, reverse=True):
        text = text[: piece.begin] + piece.text + text[piece.end :]
    return text


def put(text: str, section: str, name: str, entry: Mapping[str, Any]) -> tuple[Piece, ...]:
    """What puts ``entry`` under ``name`` into the object ``section`` of the root, last or in its old place.

    :raises jsonc.JsoncError: the text is not JSON. :raises CannotEdit: see there.
    """
    scene = _Scene(text, section, name)
    members = scene.members
    if members is None:
        return scene.insert((), section, {name: entry})
    if name in members:
        begin = scene.value_at((section, name))
        indent = scene.indent_of((section, name))
        return (Piece(begin, scene.ends[section, name], scene.written(entry, indent)),)
    return scene.insert((section,), name, entry)


def remove(text: str, section: str, name: str) -> tuple[Piece, ...]:
    """What takes ``name`` out of the object ``section`` again, with its comma; nothing if it is not there.

    :raises jsonc.JsoncError: the text is not JSON. :raises CannotEdit: see there.
    """
    scene = _Scene(text, section, name)
    if name not in (scene.members or {}):
        return ()
    path = (section, name)
    end = scene.ends[path]
    after = jsonc.past_blank(text, end)
    begin = _line_begin(text, scene.offsets[path], end + 1 if after == end and text[end] == "," else end)
    if text.startswith(",", after):
        if after == end:
            return (Piece(begin, end + 1, ""),)
        return (Piece(begin, end, ""), Piece(after, after + 1, ""))
    before = scene.before((section,), name)
    if before is None:
        return (Piece(begin, end, ""),)
    comma = jsonc.past_blank(text, scene.ends[section, before])
    if comma + 1 == begin:  # nothing but blanks between the two
        return (Piece(comma, end, ""),)
    return (Piece(comma, comma + 1, ""), Piece(begin, end, ""))


def _line_begin(text: str, begin: int, end: int) -> int:
    """Back over the blanks before a member, and over its line break where it leaves an empty line.

    A line break that something follows may end a comment, and stays.
    """
    start = len(text[:begin].rstrip(" \t"))
    if text[start - 1] != "\n":
        return start
    rest = text[end : text.find("\n", end)] if "\n" in text[end:] else text[end:]
    return begin if rest.strip() else len(text[:start].rstrip())


class _Scene:
    """A parsed text, and where things are in it."""

    def __init__(self, text: str, section: str, name: str) -> None:
        self.text = text
        document = jsonc.parse(text)
        self.offsets, self.ends = document.offsets, document.ends
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._unit = self._find_unit()
        for repeated, offset in document.repeated:
            if repeated in ((section,), (section, name)):
                line, column = document.lines.position(offset)
                raise CannotEdit(f"{line}:{column}: {repeated[-1]!r} is given twice")
        self.root: Any = document.value
        if not isinstance(self.root, dict):
            raise CannotEdit("1:1: the file holds no object")
        self.members: Any = self.root.get(section)
        if section in self.root and not isinstance(self.members, dict):
            line, column = document.position((section,))
            raise CannotEdit(f"{line}:{column}: {section!r} is no object")

    def insert(self, path: jsonc.Path, key: str, value: Any) -> tuple[Piece, ...]:
        """What adds a member to the object at ``path``, after its last one and the comments behind that."""
        text, close = self.text, self.ends[path] - 1
        last = self.before(path, None)
        at = close  # behind whatever stands before the closing brace, its last blanks excepted
        while text[at - 1] in " \t\r\n":
            at -= 1
        if last is None:
            if "\n" not in text and (path or text.strip() != "{}"):  # one line stays one line
                return (Piece(at, at, self._member(key, value, None)),)
            outer = self.indent_of(path) or ""
            tail = "" if "\n" in text[at:close] else self._newline + outer
            indent = outer + self._unit
            return (Piece(at, at, self._newline + indent + self._member(key, value, indent) + tail),)
        end = self.ends[*path, last]
        comma = jsonc.past_blank(text, end)
        trailing = text.startswith(",", comma)
        indent_ = self.indent_of((*path, last))
        # A comment up to the end of its line would swallow what follows it there.
        if indent_ is None and "\n" in text[end:close]:
            indent_ = (self.indent_of(path) or "") + self._unit
        lead = " " if indent_ is None else self._newline + indent_
        member = lead + self._member(key, value, indent_) + ("," if trailing else "")
        if trailing:
            return (Piece(max(at, comma + 1), max(at, comma + 1), member),)
        if at == end:
            return (Piece(end, end, "," + member),)
        return (Piece(end, end, ","), Piece(at, at, member))

    def _member(self, key: str, value: Any, indent: str | None) -> str:
        return f"{json.dumps(key, ensure_ascii=False)}: {self.written(value, indent)}"

    def written(self, value: Any, indent: str | None) -> str:
        """The value as JSON, on lines of its own where its key has one."""
        if indent is None:
            return json.dumps(value, ensure_ascii=False)
        lines = json.dumps(value, ensure_ascii=False, indent=self._unit).split("\n")
        return (self._newline + indent).join(lines)

    def before(self, path: jsonc.Path, key: str | None) -> str | None:
        """The member of an object that is written before ``key``, or last; None if there is none."""
        limit = self.ends[path] if key is None else self.offsets[*path, key]
        depth = len(path) + 1
        members = [p for p in self.offsets if len(p) == depth and p[:-1] == path and self.offsets[p] < limit]
        found = max(members, key=lambda p: self.offsets[p], default=None)
        return None if found is None else str(found[-1])

    def value_at(self, path: jsonc.Path) -> int:
        """Where a value begins, behind its key."""
        at = self.offsets[path]
        if not path:
            return at
        _, at = json.JSONDecoder().raw_decode(self.text, at)
        at = jsonc.past_blank(self.text, at)  # the colon is next: the text was parsed
        return jsonc.past_blank(self.text, at + 1)

    def indent_of(self, path: jsonc.Path) -> str | None:
        """The blanks before a member on its line, or None where something else is before it."""
        at = self.offsets[path]
        lead = self.text[self.text.rfind("\n", 0, at) + 1 : at].removeprefix("\ufeff")
        return lead if not lead.strip(" \t") else None

    def _find_unit(self) -> str:
        """What one level is set in by: the indentation of the first member of the root."""
        found = re.search(r"\n([ \t]+)\"", self.text)
        return found[1] if found and len(found[1]) <= 8 else _UNIT
