"""A tool as text: what search reads of a definition, for words and for vectors alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from registry.definition import definition_hash

FORMAT: Final = 1
"""Of `embedding_texts` and how they are joined: part of a vector's key, so that a changed text is embedded again."""

MAX_PARAMETERS: Final = 40
MAX_DEPTH: Final = 3
"""Levels of nested objects that are read; deeper ones say little about what a tool is for."""
MAX_DESCRIPTION: Final = 1500
MAX_PARAMETER: Final = 200
"""Characters of a tool's and of a parameter's description that count."""

_JOINTS: Final = re.compile(
    r"(?<=[a-z0-9])(?=[A-Z])"  # getUser -> get User
    r"|(?<=[A-Z])(?=[A-Z][a-z])"  # HTTPServer -> HTTP Server
    r"|[_\-./:]+"
)
_SPACE: Final = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class ToolDocument:
    """The searchable side of one tool of one server.

    :param hash: the definition hash of the bytes it was read from.
    :param parameters: (name, description) of each input, nested ones after their parents.
    """

    server: str
    name: str
    hash: str
    description: str = ""
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """(server, definition hash): the document is made of both, and its vector belongs to both."""
        return self.server, self.hash


def read(server: str, data: bytes) -> ToolDocument:
    """The document of a tool definition as MCP's ``tools/list`` gives it.

    Only ``name`` is needed; any other field may be missing or of a wrong type and then counts for
    nothing. Raises ValueError or RecursionError for what is no tool definition.
    """
    value = json.loads(data)
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError("a tool definition is a JSON object with a 'name' that is a string")
    title = value.get("title")
    annotations = value.get("annotations")
    if not isinstance(title, str) and isinstance(annotations, dict):
        title = annotations.get("title")
    description = value.get("description")
    parts = [part for part in (title, description) if isinstance(part, str) and part.strip()]
    return ToolDocument(
        server=server,
        name=value["name"],
        hash=definition_hash(data),
        description=_short(". ".join(parts), MAX_DESCRIPTION),
        parameters=parameters(value.get("inputSchema")),
    )


def parameters(schema: object) -> tuple[tuple[str, str], ...]:
    """(name, description) of the properties of a JSON Schema, breadth first, at most MAX_PARAMETERS."""
    found: list[tuple[str, str]] = []
    level: list[object] = [schema]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for node in level:
            for name, member in _members(node):
                if len(found) == MAX_PARAMETERS:
                    return tuple(found)
                text = member.get("description") if isinstance(member, Mapping) else None
                found.append((name, _short(text, MAX_PARAMETER) if isinstance(text, str) else ""))
                below.append(member)
        level = below
    return tuple(found)


def _members(node: object) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, Mapping):
        return
    items = node.get("items")
    for holder in (node, items if isinstance(items, Mapping) else {}):
        properties = holder.get("properties")
        if isinstance(properties, Mapping):
            yield from properties.items()


def words_of(identifier: str) -> str:
    """``getUserByID`` and ``get_user_by_id`` as words: ``get User By ID``."""
    return _SPACE.sub(" ", _JOINTS.sub(" ", identifier)).strip()


def embedding_texts(document: ToolDocument) -> tuple[str, ...]:
    """The texts whose mean vector stands for a tool: what it is, and what it is with its parameters.

    A long parameter list drowns what a tool is for, and without it tools of one server look alike;
    the mean of both ranks better than either. A tool without parameters has one text. An encoder
    reads only its first few hundred tokens, so the most telling comes first.
    """
    head = f"{words_of(document.server)}: {words_of(document.name)}".removeprefix(": ")
    text = f"{head}. {document.description}".strip()
    if not document.parameters:
        return (text,)
    listed = (f"{words_of(n)} ({d})" if d else words_of(n) for n, d in document.parameters)
    return text, f"{text.rstrip('.')}. Parameters: {', '.join(listed)}"


def _short(text: str, limit: int) -> str:
    text = _SPACE.sub(" ", text).strip()
    return text if len(text) <= limit else text[:limit]
