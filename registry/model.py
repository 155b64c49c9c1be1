"""The records of what exists: servers as configured, and the last catalog each of them showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Transport(StrEnum):
    """How a server is reached (MCP specification, Transports)."""

    STDIO = "stdio"
    HTTP = "http"
    """Streamable HTTP, 2025-03-26 and later; falls back to HTTP+SSE where the server speaks only that."""
    SSE = "sse"
    """HTTP+SSE of 2024-11-05."""
    OWN = "own"
    """Not at all: the gateway itself has the tools, composed of those of others."""


class Origin(StrEnum):
    """Where a server entry came from; it decides who may change it and whether it may start."""

    CONFIG = "config"
    ADDED = "added"
    STARTER = "starter"


class ItemKind(StrEnum):
    """The four kinds of item a server lists."""

    TOOL = "tool"
    RESOURCE = "resource"
    TEMPLATE = "template"
    PROMPT = "prompt"


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """One entry of an ``mcpServers`` object: how to start or reach a server.

    ``env``, ``headers``, ``args`` and ``url`` hold ``${VAR}`` references unresolved, so that a
    stored or printed spec shows no secret that the user kept in the environment.

    :param timeout: seconds a call may take; None means the gateway's own default.
    :param extra: keys of the entry that we do not know, kept so that writing it back loses nothing.
    """

    name: str
    transport: Transport
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    disabled: bool = False
    timeout: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        """As a person may see it: of variables and headers the names alone."""
        return {
            "command": self.command,
            "args": list(self.args),
            "cwd": self.cwd,
            "env": sorted(self.env),
            "url": self.url,
            "headers": sorted(self.headers),
            "timeout": self.timeout,
            "disabled": self.disabled,
            "manifest": self.extra.get("manifest"),
        }


@dataclass(frozen=True, slots=True)
class Server:
    """A known server.

    :param ordinal: its place in the order of priority, lowest first: the first owner of a
        duplicate URI, and of a plain name under the ``priority`` policy.
    """

    spec: ServerSpec
    origin: Origin
    ordinal: int = 0

    @property
    def name(self) -> str:
        return self.spec.name


@dataclass(frozen=True, slots=True)
class ServerCatalog:
    """Everything a server listed when it was last asked, each item as the JSON bytes it sent.

    Items stay bytes so that nothing is lost: unknown fields, number spellings and key order
    reach the client as the server wrote them.

    :param era: ``handshake`` (2024-11-05 … 2025-11-25) or ``stateless`` (2026-07-28).
    :param server_info: JSON of the server's ``Implementation`` object, or ``b"{}"``.
    :param capabilities: JSON of the server's ``ServerCapabilities`` object.
    :param synced_at: seconds since the epoch.
    """

    server: str
    era: str
    protocol_version: str
    server_info: bytes = b"{}"
    capabilities: bytes = b"{}"
    instructions: str | None = None
    tools: tuple[bytes, ...] = ()
    resources: tuple[bytes, ...] = ()
    templates: tuple[bytes, ...] = ()
    prompts: tuple[bytes, ...] = ()
    synced_at: float = 0.0

    def items(self, kind: ItemKind) -> tuple[bytes, ...]:
        """The items of one kind, in the order the server listed them."""
        return {
            ItemKind.TOOL: self.tools,
            ItemKind.RESOURCE: self.resources,
            ItemKind.TEMPLATE: self.templates,
            ItemKind.PROMPT: self.prompts,
        }[kind]


@dataclass(frozen=True, slots=True)
class AssignedName:
    """The name an item goes by at the gateway. Once given it stays, also across restarts."""

    kind: ItemKind
    server: str
    original: str
    exposed: str


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's leave to start one exact command.

    :param key: hash over argv, cwd, environment names, PATH-like values and the executable.
    :param detail: what was approved, for a person to read; holds no secret.
    :param approved_at: seconds since the epoch.
    """

    key: str
    server: str
    detail: str
    approved_at: float
