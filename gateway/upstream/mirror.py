"""Tool parameters repeated in HTTP headers (2026-07-28, Custom Headers from Tool Parameters).

A tool says with ``x-mcp-header`` in its input schema which arguments stand in ``Mcp-Param-*`` headers
too. The same reading of the schema serves both of our ends: writing the headers towards a server, and
checking those of a client.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from gateway import jsonrpc, protocol
from gateway.errors import RpcError
from gateway.jsonrpc import Raw, Shallow

KEY: Final = "x-mcp-header"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_PRIMITIVE: Final = frozenset({"string", "integer", "boolean"})
_DATA: Final = frozenset({"default", "const", "enum", "examples"})
_MAPS: Final = frozenset({"patternProperties", "dependentSchemas", "$defs", "definitions"})
_ENCODED: Final = re.compile(r"=\?base64\?(.*)\?=", re.DOTALL)


class InvalidAnnotation(ValueError):
    """An ``x-mcp-header`` that breaks the rules; the tool must not be shown."""


class Mirror(NamedTuple):
    """One argument that a header repeats.

    :param header: the header's name, in lower case.
    :param path: the keys that lead to the argument.
    """

    header: str
    path: tuple[str, ...]


@lru_cache(maxsize=4096)
def mirrors(definition: bytes) -> tuple[Mirror, ...]:
    """The arguments of a tool that headers repeat; none for nearly every tool.

    Raises InvalidAnnotation.
    """
    # Without the key, be it spelled with escapes, there is nothing to find. Read once per definition.
    if KEY.encode() not in definition and b"\\u" not in definition:
        return ()
    try:
        schema = jsonrpc.value(jsonrpc.shallow(definition).get("inputSchema", msgspec.Raw(b"{}")))
    except (msgspec.MsgspecError, RecursionError):
        return ()  # the catalog says what is wrong with it
    found: dict[str, Mirror] = {}
    for path, node in _annotated(schema, ()):
        name = node[KEY]
        where = ".".join(path or ())
        if not path:
            raise InvalidAnnotation(f"{KEY} stands where no chain of properties leads")
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise InvalidAnnotation(f"the {KEY} of {where} is no HTTP field name")
        if not isinstance(node.get("type"), str) or node["type"] not in _PRIMITIVE:
            raise InvalidAnnotation(f"{where} has {KEY}, but is no string, integer or boolean")
        mirror = Mirror(f"mcp-param-{name.lower()}", path)
        if mirror.header in found:
            raise InvalidAnnotation(f"two parameters have the {KEY} {name}")
        found[mirror.header] = mirror
    return tuple(found.values())


def usable_mirrors(definition: bytes) -> tuple[Mirror, ...]:
    """The same, but none where the annotations break the rules: that tool's server takes no headers."""
    try:
        return mirrors(definition)
    except InvalidAnnotation:
        return ()


def _annotated(
    node: Any, path: tuple[str, ...] | None
) -> Iterator[tuple[tuple[str, ...] | None, dict[str, Any]]]:
    """Every schema with an annotation; its path is None off the chain of ``properties``."""
    if isinstance(node, list):
        for item in node:
            yield from _annotated(item, None)
    elif isinstance(node, dict):
        if KEY in node:
            yield path, node
        for key, value in node.items():
            if key in ("properties", *_MAPS) and isinstance(value, dict):
                chain = path if key == "properties" else None
                for name, part in value.items():
                    yield from _annotated(part, None if chain is None else (*chain, name))
            elif key not in _DATA and key != KEY:
                yield from _annotated(value, None)


def param_headers(found: tuple[Mirror, ...], params: Shallow) -> bytes:
    """The header lines for a ``tools/call``, each ended by CRLF."""
    lines = ""
    for mirror in found:
        value = _text(_argument(params, mirror.path))
        if value is not None:
            lines += f"{mirror.header}: {header_value(value)}\r\n"
    return lines.encode()


def check_headers(found: tuple[Mirror, ...], params: Shallow, headers: Mapping[bytes, bytes]) -> None:
    """Check that a client's headers repeat its arguments (Server Behavior for Custom Headers).

    Raises RpcError: -32020 with HTTP status 400.
    """
    for mirror in found:
        given = headers.get(mirror.header.encode())
        expected = _text(_argument(params, mirror.path))
        said = header_text(given.decode("latin-1"), mirror.header) if given is not None else None
        if said != expected and not _same_number(said, expected):
            told = "is missing" if said is None else "differs from the argument it repeats"
            raise RpcError(
                protocol.HEADER_MISMATCH,
                f"Header mismatch: {mirror.header} {told}.",
                "List the tools again: their schemas say which arguments go into headers.",
                status=400,
            )


def _argument(params: Shallow, path: tuple[str, ...]) -> Raw | None:
    node = params.get("arguments")
    for key in path:
        if node is None or bytes(node)[:1] != b"{":
            return None
        node = jsonrpc.shallow(node).get(key)
    return node


def _text(item: Raw | None) -> str | None:
    """An argument as a header says it; None where it has none to say."""
    if item is None:
        return None
    data = bytes(item)
    if data[:1] == b'"':
        return jsonrpc.text(item)
    if data in (b"true", b"false") or data.lstrip(b"-").isdigit():
        return data.decode()
    return None  # null, or what the server's schema will refuse


def _same_number(said: str | None, expected: str | None) -> bool:
    """ "Servers SHOULD compare numerically": 42.0 and 42 are equal."""
    if said is None or expected is None or max(len(said), len(expected)) > 40:
        return False
    try:
        return expected.lstrip("-").isdigit() and float(said) == int(expected)
    except ValueError:
        return False


def header_value(value: str) -> str:
    """Encode a value for ``Mcp-Name`` and ``Mcp-Param-*`` (Value Encoding)."""
    plain = value.isascii() and value.isprintable() and value == value.strip()
    if plain and not _ENCODED.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def header_text(value: str, name: str) -> str:
    """The value that a header encodes. Raises RpcError (-32020, HTTP status 400)."""
    encoded = _ENCODED.fullmatch(value)
    if encoded is None:
        return value
    try:
        return base64.b64decode(encoded[1], validate=True).decode()
    except (binascii.Error, ValueError):
        raise RpcError(
            protocol.HEADER_MISMATCH, f"Header mismatch: {name} is not valid Base64.", status=400
        ) from None
