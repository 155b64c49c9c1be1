"""What the gateway knows of its tools, as the executor wants it: pins, statistics, and a person's rules."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from gateway import jsonrpc
from gateway.catalog import Catalog, Entry
from registry.model import ItemKind, Server, Transport
from registry.store import Store
from registry.tools import Pin, Statistics, ToolRecords
from router.errors import MalformedPlan
from router.facts import Facts, Policy, facts_of
from router.plan import Definition

log = logging.getLogger("toolyard.planning")

Lookup = Callable[[str], Facts | None]


class PlanRules(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What a server's entry says under ``plan`` of how its tools may be planned with.

    :param trusted: whether what its tools return was written by somebody who may be trusted.
    :param confidential: whether it must not leave for the open world.
    :param read_only: names of tools that change nothing, ``*`` allowed; likewise the others.
    """

    trusted: bool = False
    confidential: bool = False
    open_world: bool | None = None
    read_only: tuple[str, ...] = ()
    idempotent: tuple[str, ...] = ()
    pure: tuple[str, ...] = ()
    code: tuple[str, ...] = ()

    def policy(self, tool: str, timeout: float | None) -> Policy:
        """The rules for one tool, by its server's own name for it."""

        def named(patterns: tuple[str, ...]) -> bool:
            return any(fnmatchcase(tool, pattern) for pattern in patterns)

        rules = Policy(
            read_only=True if named(self.read_only) else None,
            idempotent=True if named(self.idempotent) else None,
            open_world=self.open_world,
            trusted=self.trusted,
            confidential=self.confidential,
            code=named(self.code),
            pure=named(self.pure),
        )
        return rules if timeout is None else replace(rules, timeout=timeout)


class Snapshot:
    """Pins and statistics at one moment, over the catalog as it is whenever a tool is looked up."""

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        servers: Mapping[str, Server],
        pins: Mapping[tuple[str, str], Pin],
        statistics: Mapping[tuple[str, str], Statistics],
    ) -> None:
        self._catalog, self._servers = catalog, servers
        self._pins, self._statistics = pins, statistics

    @classmethod
    def read(cls, store: Store, catalog: Callable[[], Catalog], servers: Mapping[str, Server]) -> Snapshot:
        """Read what the store knows. Blocking; raises StoreError."""
        records = ToolRecords(store)
        return cls(catalog, servers, records.pins(), records.statistics())

    def __call__(self, name: str) -> Facts | None:
        """The facts of a tool by the name that clients see; None where it is not there, or is no tool."""
        entry = self._catalog().get(ItemKind.TOOL, name)
        if entry is None:
            return None
        definition = definition_of(entry)
        if definition is None:
            return None
        key = (entry.server, entry.original)
        pin, counted = self._pins.get(key), self._statistics.get(key)
        server = self._servers.get(entry.server)
        if server is not None and server.spec.transport is Transport.OWN:
            return None  # a plan calls tools, and no plans: what flows where stays in sight
        rules = rules_of(server) if server is not None else PlanRules()
        return facts_of(
            definition,
            approved=pin is not None and pin.ref.hash == entry.hash,
            policy=rules.policy(entry.original, server.spec.timeout if server is not None else None),
            seconds=counted.seconds / counted.calls if counted is not None and counted.calls else None,
            cost=counted.cost / counted.calls if counted is not None and counted.calls else 0.0,
        )


def definition_of(entry: Entry) -> Definition | None:
    """A tool as planners see it, by the name that clients see; None for one that no plan can call."""
    try:
        fields: dict[str, Any] = {**jsonrpc.value(entry.data), "name": entry.exposed}
        return Definition.of(fields, server=entry.server, hash=entry.hash)
    except (MalformedPlan, msgspec.MsgspecError, RecursionError) as error:
        log.info("tool %s cannot be planned with: %s", entry.exposed, error)
        return None


def rules_of(server: Server) -> PlanRules:
    """What a server's entry says under ``plan``; where it cannot be read, nothing, and the log says so."""
    try:
        return msgspec.convert(server.spec.extra.get("plan", {}), PlanRules)
    except msgspec.ValidationError as error:
        log.warning("\"plan\" in the entry of server '%s' is not used: %s", server.name, error)
        return PlanRules()
