"""server.json (schema 2025-12-11) and the registry's answers around it, as records.

Fields we do not know are passed over, null counts as absent, and limits on length are ours to keep when
we publish: other registries are read as they are. What is of a wrong type makes the entry unusable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from registry.errors import BadServerJson

SCHEMA: Final = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
OFFICIAL_META: Final = "io.modelcontextprotocol.registry/official"
NAME: Final = re.compile(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+")
MAX_NAME: Final = 200
MAX_VERSION: Final = 255
MAX_ENTRY: Final = 256 * 1024
"""Bytes of one server.json."""


class Input(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A value that somebody has to give, or that the publisher gave (schema: ``Input``)."""

    description: str | None = None
    is_required: bool | None = None
    format: str | None = None
    value: str | None = None
    is_secret: bool | None = None
    default: str | None = None
    placeholder: str | None = None
    choices: tuple[str, ...] | None = None


class KeyValueInput(Input, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A header or an environment variable; ``{name}`` in its value stands for one of ``variables``."""

    name: str
    variables: Mapping[str, Input] | None = None


class Argument(Input, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """An argument of a command, ``positional`` or ``named``."""

    type: str
    name: str | None = None
    value_hint: str | None = None
    is_repeated: bool | None = None
    variables: Mapping[str, Input] | None = None


class Transport(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How a started package, or a remote server, is spoken to."""

    type: str
    url: str | None = None
    headers: tuple[KeyValueInput, ...] | None = None
    variables: Mapping[str, Input] | None = None


class Package(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A package that holds the server."""

    registry_type: str
    identifier: str
    transport: Transport
    registry_base_url: str | None = None
    version: str | None = None
    file_sha256: str | None = msgspec.field(default=None, name="fileSha256")
    runtime_hint: str | None = None
    runtime_arguments: tuple[Argument, ...] | None = None
    package_arguments: tuple[Argument, ...] | None = None
    environment_variables: tuple[KeyValueInput, ...] | None = None


class Repository(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Where the source is."""

    url: str
    source: str
    id: str | None = None
    subfolder: str | None = None


class ServerJson(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A server as its publisher describes it (schema: ``ServerDetail``)."""

    name: str
    description: str
    version: str
    schema: str | None = msgspec.field(default=None, name="$schema")
    title: str | None = None
    repository: Repository | None = None
    website_url: str | None = None
    packages: tuple[Package, ...] | None = None
    remotes: tuple[Transport, ...] | None = None


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    status: str | None = None
    status_message: str | None = None
    updated_at: datetime | None = None
    is_latest: bool | None = None


class _Meta(msgspec.Struct, frozen=True):
    official: _Status | None = msgspec.field(default=None, name=OFFICIAL_META)


class _Response(msgspec.Struct, frozen=True):
    server: msgspec.Raw
    meta: _Meta | None = msgspec.field(default=None, name="_meta")


class Listed(msgspec.Struct, frozen=True):
    """A server as a registry lists it.

    :param status: ``active``, ``deprecated`` or ``deleted``; a registry that says nothing means active.
    :param latest: whether no later version is known; None where the registry does not say.
    """

    server: ServerJson
    status: str = "active"
    status_message: str | None = None
    updated_at: datetime | None = None
    latest: bool | None = None


def read_listed(data: bytes | msgspec.Raw) -> Listed:
    """One item of a list of servers. Raises BadServerJson; the message names the server where it can."""
    if len(bytes(data)) > MAX_ENTRY:
        raise BadServerJson(f"An entry has more than {MAX_ENTRY:,} bytes.")
    try:
        response = msgspec.json.decode(data, type=_Response)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadServerJson(f"An entry cannot be read: {error}") from None
    said = (response.meta.official if response.meta is not None else None) or _Status()
    server = read_server(response.server)
    return Listed(server, said.status or "active", said.status_message, said.updated_at, said.is_latest)


def read_server(data: bytes | msgspec.Raw) -> ServerJson:
    """A server.json. Raises BadServerJson."""
    try:
        server = msgspec.json.decode(data, type=ServerJson)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadServerJson(f"The entry {_name(data)} is no server.json: {error}") from None
    return _checked(server)


def from_value(value: Any) -> ServerJson:
    """A server.json that was parsed already. Raises BadServerJson."""
    try:
        return _checked(msgspec.convert(value, ServerJson))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadServerJson(f"This is no server.json: {error}") from None


def to_value(server: ServerJson) -> dict[str, Any]:
    """A server.json as plain values, without what is absent."""
    value: dict[str, Any] = msgspec.to_builtins(server)
    return value


def _checked(server: ServerJson) -> ServerJson:
    if not NAME.fullmatch(server.name) or len(server.name) > MAX_NAME:
        raise BadServerJson(
            f"The name {server.name[:80]!a} is not of the form namespace/name.", "Tell the registry's owner."
        )
    if not 1 <= len(server.version) <= MAX_VERSION or not server.version.isprintable():
        raise BadServerJson(f"The version of {server.name} cannot be used: {server.version[:80]!a}.")
    return server


def _name(data: bytes | msgspec.Raw) -> str:
    try:
        value = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return "without a name"
    name = value.get("name") if isinstance(value, dict) else None
    return repr(name[:80]) if isinstance(name, str) else "without a name"
