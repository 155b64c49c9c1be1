"""The last known state, from the store, in the shapes of the control socket: for when no gateway runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.cli.exits import Locked
from gateway.cli.shared import unknown
from gateway.config.options import ServeOptions
from gateway.config.settings import Settings
from gateway.errors import GatewayError
from gateway.paths import StateDir
from registry.errors import StoreMissing
from registry.model import Approval, Origin, Server, ServerCatalog, Transport


def status(state: Path | None) -> dict[str, Any]:
    """What ``GET /status`` showed last; ``gateway`` is None."""
    from gateway.cli.toolset_store import Stored
    from gateway.policy.standing import standing

    known = _Known.read(state)
    merged = known.merged()
    conflicts = [
        {"kind": c.kind.value, "key": c.key, "owner": c.owner, "shadowed": list(c.shadowed)}
        for c in merged.conflicts
    ]
    problems = [{"server": p.server, "kind": p.kind, "message": p.message} for p in merged.problems]
    rows = [known.row(server, merged) for server in known.servers]
    names = [server.name for server in known.servers]
    return {
        "gateway": None,
        "approvals": [],
        "toolsets": list(Stored.read(state).origins),
        "sandbox": None,
        "planner": None,
        "servers": rows,
        "conflicts": conflicts,
        "problems": problems,
        "registry": standing(known.book, merged, names),
    }


def server(state: Path | None, name: str) -> dict[str, Any]:
    """What ``GET /servers/{name}`` showed last. Raises NotFound."""
    known = _Known.read(state)
    for found in known.servers:
        if found.name == name:
            return known.detail(found)
    raise unknown("server", name, (s.name for s in known.servers), "toolyard status")


def tools(state: Path | None, name: str | None = None) -> list[dict[str, Any]]:
    """What ``GET /tools`` showed last. Raises NotFound for a server that is not known."""
    known = _Known.read(state)
    if name is not None and all(s.name != name for s in known.servers):
        raise unknown("server", name, (s.name for s in known.servers), "toolyard status")
    return [tool for tool in known.tools() if name in (None, tool["server"])]


def project(state: Path | None, toolset: Any) -> Any:
    """A `registry.toolsets.Toolset` over the last known catalog: a `gateway.toolsets.project.Projection`."""
    from gateway.toolsets import project as projecting

    known = _Known.read(state)
    return projecting.project(toolset, known.merged(), projecting.server_tags(known.servers))


def store_of(state: Path | None) -> str:
    """Where the store of a state directory is: a path, or the URL of a database that gateways share."""
    return Settings.load(ServeOptions()).store_at(StateDir.at(state))


@contextmanager
def writing(state: Path | None) -> Iterator[Any]:
    """The store, open for writing, with the lock a gateway would hold. Raises Locked.

    Yields a `registry.store.Store`.
    """
    from filelock import FileLock, Timeout

    from registry.store import Store

    place = StateDir.at(state)
    place.create()
    lock = FileLock(place.lock, timeout=0, mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        raise Locked(
            f"Another process holds the state directory {place.root}, and answers nobody.",
            "It may be starting or ending: try again in a moment, or see `toolyard doctor`.",
        ) from None
    try:
        with Store.open(store_of(state)) as store:
            yield store
    finally:
        lock.release()


class _Known:
    """Everything the store holds, read at once."""

    def __init__(self) -> None:
        self.servers: list[Server] = []
        self.catalogs: dict[str, ServerCatalog] = {}
        self.approvals: dict[str, Approval] = {}
        self._names: list[Any] = []
        from gateway.policy.pins import PinBook

        settings = Settings.load(ServeOptions())
        self._policy = settings.names
        self._pins = settings.pins
        self.book = PinBook(self._pin_policy)

    @classmethod
    def read(cls, state: Path | None) -> _Known:
        from gateway.policy.pins import PinBook
        from registry.approvals import ApprovalRecords
        from registry.store import Store

        known = cls()
        try:
            with Store.open(store_of(state), readonly=True) as store:
                known.servers = store.servers()
                known.catalogs = store.catalogs()
                known.approvals = store.approvals()
                known._names = store.names(known._policy)
                known.book = PinBook.read(ApprovalRecords(store), known._pin_policy)
        except StoreMissing:
            return known  # no gateway has run here yet, so there is nothing to show
        return known

    def merged(self) -> Any:
        from gateway.catalog.merge import Catalog
        from gateway.catalog.names import NameBook

        names = NameBook(self._policy, self._names)
        return Catalog.build(self.servers, self.catalogs, names, why=self.book.why)

    def _pin_policy(self, name: str) -> Any:
        from gateway.policy.pins import policy_of

        spec = next((server.spec for server in self.servers if server.name == name), None)
        return policy_of(spec, self._pins)

    def row(self, server: Server, merged: Any) -> dict[str, Any]:
        from gateway.policy.standing import withheld_of

        catalog = self.catalogs.get(server.name)
        state, error, hint = self._state(server)
        return {
            "name": server.name,
            "transport": server.spec.transport.value,
            "origin": server.origin.value,
            "state": state,
            "error": error,
            "hint": hint,
            "era": catalog.era if catalog else None,
            "protocol_version": catalog.protocol_version if catalog else None,
            "tools": len(catalog.tools) if catalog else 0,
            "resources": len(catalog.resources) if catalog else 0,
            "templates": len(catalog.templates) if catalog else 0,
            "prompts": len(catalog.prompts) if catalog else 0,
            "pid": None,
            "private": None,
            "calls": 0,
            "restarts": 0,
            "synced_at": catalog.synced_at if catalog else None,
            "pins": str(self.book.policy(server.name)),
            "withheld": withheld_of(merged, server.name),
        }

    def _state(self, server: Server) -> tuple[str, str | None, str | None]:
        """The state a gateway started here and now would begin with, and what would be in its way."""
        if server.spec.disabled:
            return "disabled", None, None
        if server.spec.transport is not Transport.STDIO or server.origin is Origin.STARTER:
            return "idle", None, None
        try:
            key = self._approval_key(server)
        except GatewayError as error:
            return "failed", error.message, error.hint
        if key in self.approvals:
            return "idle", None, None
        return "pending", "Its command has not been approved.", f"Run: toolyard approve {server.name}."

    def _approval_key(self, server: Server) -> str:
        from gateway.hosted.entry import approval_of

        return approval_of(server.spec, os.environ)[0]

    def _approval(self, server: Server) -> dict[str, Any] | None:
        if server.spec.transport is not Transport.STDIO:
            return None
        try:
            key = self._approval_key(server)
        except GatewayError as error:
            return {"key": None, "approved": False, "error": error.message}
        return {"key": key, "approved": key in self.approvals}

    def detail(self, server: Server) -> dict[str, Any]:
        spec, catalog = server.spec, self.catalogs.get(server.name)
        return {
            **self.row(server, self.merged()),
            "spec": spec.shown(),
            "server_info": json.loads(catalog.server_info) if catalog else {},
            "capabilities": json.loads(catalog.capabilities) if catalog else {},
            "instructions": catalog.instructions if catalog else None,
            "approval": self._approval(server),
            "tool_names": [tool["name"] for tool in self.tools() if tool["server"] == server.name],
            "usage": {},
            "stderr": [],
        }

    def tools(self) -> list[dict[str, Any]]:
        from registry.model import ItemKind

        return [
            {
                "name": entry.exposed,
                "server": entry.server,
                "original": entry.original,
                "definition": json.loads(entry.data),
            }
            for entry in self.merged().entries[ItemKind.TOOL].values()
        ]
