"""A server's capability profile: what it offers, at which version, at what cost and latency, with which limits."""

from __future__ import annotations

import json
from typing import Any, Final

from gateway.cli.stored import Registry, StoredTool
from gateway.config.options import ServeOptions
from gateway.config.settings import Settings
from gateway.upstream.limits import CONCURRENT
from registry.audit import AuditRecords
from registry.profiles import ProfileRecords
from registry.store import Store
from registry.tools import Statistics

FORMAT: Final = 1
"""Of the JSON; grows where a field changes its meaning."""
RECENT: Final = 1000
"""Calls of the audit log that latency is worked out from."""


def profile(store: Store, known: Registry, server: str) -> dict[str, Any]:
    """The profile of a server as JSON. Raises StoreError."""
    catalog, entry = known.catalogs.get(server), known.servers.get(server)
    versions = ProfileRecords(store).history(server)
    seconds = sorted(call.seconds for call in AuditRecords(store).latest(RECENT, server))
    total = Statistics()
    for (owner, _), done in known.statistics.items():
        if owner == server:
            total = _sum(total, done)
    extra = entry.spec.extra if entry is not None else {}
    timeout = entry.spec.timeout if entry is not None else None
    return {
        "format": FORMAT,
        "server": server,
        "profile": _version(versions[-1]) if versions else None,
        "identity": json.loads(catalog.server_info) if catalog else {},
        "transport": entry.spec.transport.value if entry else None,
        "protocol_version": catalog.protocol_version if catalog else None,
        "era": catalog.era if catalog else None,
        "capabilities": json.loads(catalog.capabilities) if catalog else {},
        "synced_at": catalog.synced_at if catalog else None,
        "policy": str(known.policy(server)),
        "offers": {
            "tools": [_tool(known, tool) for tool in known.of(server)],
            "prompts": len(catalog.prompts) if catalog else 0,
            "resources": len(catalog.resources) if catalog else 0,
            "templates": len(catalog.templates) if catalog else 0,
        },
        "limits": {
            "timeout_s": timeout or Settings.load(ServeOptions()).timeout,
            "max_concurrency": extra.get("maxConcurrency", CONCURRENT),
            "idle_timeout_s": extra.get("idleTimeout"),
        },
        "calls": {name: getattr(total, name) for name in Statistics.__dataclass_fields__},
        "latency": {
            "p50_ms": _at(seconds, 0.5),
            "p95_ms": _at(seconds, 0.95),
            "of": len(seconds),
        }
        if seconds
        else None,
        "cost_per_call": extra.get("costPerCall"),
        "versions": [_version(one) for one in versions],
    }


def _version(one: Any) -> dict[str, Any]:
    return {
        "version": one.version,
        "digest": one.digest,
        "tools": one.tools,
        "server_version": one.server_version,
        "since": one.at,
    }


def _tool(known: Registry, tool: StoredTool) -> dict[str, Any]:
    definition = json.loads(tool.body)
    done = known.statistics.get((tool.ref.server, tool.ref.name), Statistics())
    return {
        "tool": tool.ref.name,
        "name": tool.exposed,
        "title": definition.get("title"),
        "hash": tool.ref.hash,
        "state": tool.state,
        "reason": tool.reason,
        "approved_by": tool.pin.approved_by if tool.pin and tool.pin.ref.hash == tool.ref.hash else None,
        "annotations": definition.get("annotations") or {},
        "calls": done.calls,
        "success_rate": done.successes / done.calls if done.calls else None,
        "mean_ms": done.seconds / done.calls * 1e3 if done.calls else None,
        "cost": done.cost,
    }


def _sum(one: Statistics, other: Statistics) -> Statistics:
    return Statistics(*(getattr(one, n) + getattr(other, n) for n in Statistics.__dataclass_fields__))


def _at(seconds: list[float], share: float) -> float:
    """The value below which a share of sorted values lies, in milliseconds."""
    return round(seconds[min(len(seconds) - 1, int(share * len(seconds)))] * 1e3, 1)
