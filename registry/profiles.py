"""Versioned capability profiles: what a server offers as a whole, and since when.

After the versioned capability vectors of Federation of Agents (Giusti et al., 2025): a profile has a
version that grows with every change of what is offered, so that whoever relied on one sees that it is
another now. What a profile says beside that (cost, latency, limits) is read where it is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import insert, select

from registry import schema
from registry.model import ServerCatalog
from registry.store import Store


@dataclass(frozen=True, slots=True)
class Profile:
    """One version of what a server offers.

    :param version: from 1, counted by us.
    :param digest: SHA-256 over everything that it offers, in hex.
    :param server_version: what the server calls its own version.
    :param at: when it was first seen, in seconds since the epoch.
    """

    server: str
    version: int
    digest: str
    tools: int
    server_version: str
    at: float


def digest_of(catalog: ServerCatalog, tools: Mapping[str, str]) -> str:
    """The digest of what a server offers; ``tools`` are definition hashes by name, in any order."""
    made = hashlib.sha256()
    for part in (catalog.protocol_version.encode(), catalog.server_info, catalog.capabilities):
        made.update(b"%d:" % len(part) + part)
    for name, digest in sorted(tools.items()):
        made.update(json.dumps([name, digest]).encode())
    for items in (catalog.prompts, catalog.resources, catalog.templates):
        for item in sorted(items):
            made.update(hashlib.sha256(item).digest())
        made.update(b"|")
    return made.hexdigest()


class ProfileRecords:
    """Profiles in a store. Every method is one transaction; all raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def history(self, server: str) -> list[Profile]:
        """Every version of a server's profile, oldest first."""
        table = schema.profiles.c
        statement = select(schema.profiles).where(table.server == server).order_by(table.version)
        with self._store.reading() as connection:
            rows = connection.execute(statement).all()
        return [
            Profile(r.server, r.version, r.digest, r.tools, json.loads(r.server_version), r.at) for r in rows
        ]

    def put(self, catalog: ServerCatalog, tools: Mapping[str, str], *, now: float) -> int:
        """Note what a server offers now. Returns the version: the same as before where nothing changed."""
        digest = digest_of(catalog, tools)
        table = schema.profiles.c
        latest = select(table.version, table.digest).where(table.server == catalog.server)
        with self._store.reading() as connection:
            row = connection.execute(latest.order_by(table.version.desc()).limit(1)).first()
        if row is not None and row.digest == digest:
            return int(row.version)
        version = 1 if row is None else int(row.version) + 1
        new = {
            "server": catalog.server,
            "version": version,
            "digest": digest,
            "tools": len(tools),
            "server_version": json.dumps(_version(catalog.server_info)),
            "at": now,
        }
        with self._store.writing() as connection:
            connection.execute(insert(schema.profiles), new)
        return version


def _version(server_info: bytes) -> str:
    try:
        info = json.loads(server_info)
    except (ValueError, RecursionError):
        return ""
    version = info.get("version") if isinstance(info, dict) else None
    return version[:200] if isinstance(version, str) else ""
