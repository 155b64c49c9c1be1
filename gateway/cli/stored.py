"""The registry as the store has it, for the verbs that only read: they need no gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.cli import offline
from gateway.cli.shared import unknown
from gateway.config.options import ServeOptions
from gateway.config.settings import Settings
from gateway.errors import NotFound
from gateway.policy.pins import PinBook, policy_of
from registry.approvals import ApprovalRecords, Hold
from registry.errors import StoreMissing
from registry.model import ItemKind, Server, ServerCatalog
from registry.store import Store
from registry.tools import Pin, Statistics, ToolRecords, ToolRef

NO_SERVER: Final = "no server"
"""The state of a tool that was imported by itself: there is nothing to call."""


@dataclass(frozen=True, slots=True)
class StoredTool:
    """One tool, and how it stands.

    :param exposed: the name clients know it by; None where no server is behind it.
    :param state: ``served``, ``flagged``, ``withheld`` or ``no server``.
    :param reason: why it is withheld.
    """

    ref: ToolRef
    body: bytes
    exposed: str | None
    state: str
    reason: str | None
    pin: Pin | None
    hold: Hold | None
    policy: str

    @property
    def path(self) -> str:
        """The tool as one names it to a verb."""
        return f"{self.ref.server}/{self.ref.name}"

    @property
    def undecided(self) -> bool:
        """Whether nobody has approved it as it is now."""
        return self.pin is None or self.pin.ref.hash != self.ref.hash or self.hold is not None


@dataclass(slots=True)
class Registry:
    """Everything that the reading verbs show, read at once."""

    servers: dict[str, Server] = field(default_factory=dict)
    catalogs: dict[str, ServerCatalog] = field(default_factory=dict)
    tools: dict[tuple[str, str], StoredTool] = field(default_factory=dict)
    statistics: dict[tuple[str, str], Statistics] = field(default_factory=dict)
    default_policy: str = "pin"

    @classmethod
    def read(cls, store: Store) -> Registry:
        """Read it. Raises StoreError, ConfigError."""
        from gateway.catalog.merge import Catalog
        from gateway.catalog.names import NameBook

        settings = Settings.load(ServeOptions())
        registry = cls(default_policy=settings.pins)
        registry.servers = {server.name: server for server in store.servers()}
        registry.catalogs = store.catalogs()
        records = ToolRecords(store)
        registry.statistics = records.statistics()
        book = PinBook.read(ApprovalRecords(store), registry.policy)
        names = NameBook(settings.names, store.names(settings.names))
        merged = Catalog.build(list(registry.servers.values()), registry.catalogs, names)
        exposed = {(e.server, e.original): e.exposed for e in merged.entries[ItemKind.TOOL].values()}
        for ref, body in records.definitions():
            known = ref.server in registry.servers
            reason = book.why(*ref) if known else None
            state = "withheld" if reason else "flagged" if book.flagged(*ref) else "served"
            registry.tools[ref.server, ref.name] = StoredTool(
                ref,
                body,
                exposed.get((ref.server, ref.name)),
                state if known else NO_SERVER,
                reason,
                book.pin(ref.server, ref.name),
                book.hold(ref.server, ref.name),
                registry.policy(ref.server),
            )
        return registry

    def policy(self, server: str) -> Any:
        """The pin policy of a server."""
        found = self.servers.get(server)
        return policy_of(found.spec if found is not None else None, self.default_policy)

    def of(self, server: str) -> Iterator[StoredTool]:
        """The tools of a server."""
        return (tool for tool in self.tools.values() if tool.ref.server == server)

    def find(self, target: str) -> tuple[str, str | None]:
        """What ``SERVER``, ``SERVER/TOOL`` or a name that clients know means. Raises NotFound."""
        servers = {*self.servers, *(server for server, _ in self.tools)}
        if target in servers:
            return target, None
        for server, name in self.tools:
            if target == f"{server}/{name}":
                return server, name
        for tool in self.tools.values():
            if tool.exposed == target:
                return tool.ref.server, tool.ref.name
        for server in sorted(servers, key=len, reverse=True):
            if target.startswith(f"{server}/"):
                # It may have been offered once: history knows it.
                return server, target[len(server) + 1 :]
        raise unknown(
            "server or tool",
            target,
            [*servers, *(tool.path for tool in self.tools.values())],
            "toolyard registry list",
        )

    def tool(self, target: str) -> StoredTool:
        """The tool that is offered under a name. Raises NotFound."""
        server, name = self.find(target)
        found = self.tools.get((server, name)) if name is not None else None
        if found is None:
            wanted = (
                "a tool is wanted, as SERVER/TOOL" if name is None else f"{server} offers no {name!r} now"
            )
            raise NotFound(f"{target}: {wanted}.", f"See: toolyard registry list {server}.")
        return found


@contextmanager
def reading(state: Path | None) -> Iterator[Store]:
    """The store of a state directory, for reading; a gateway may run meanwhile. Raises StoreError."""
    with Store.open(offline.store_of(state), readonly=True) as store:
        yield store


def registry(state: Path | None) -> Registry:
    """The registry as it stands; an empty one where no gateway has run yet. Raises StoreError, ConfigError."""
    try:
        with reading(state) as store:
            return Registry.read(store)
    except StoreMissing:
        return Registry()
