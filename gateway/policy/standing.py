"""How the tools of a catalog stand: what ``status`` says of pins, by a live gateway and without one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.catalog.merge import Catalog
from gateway.policy.pins import PinBook
from registry.model import ItemKind


def standing(book: PinBook, catalog: Catalog, servers: Iterable[str]) -> dict[str, Any]:
    """The policies of servers, and every tool that is withheld or flagged, as JSON.

    :param catalog: built with ``book.why``.
    """
    withheld = []
    for name, (entry, reason) in catalog.withheld.items():
        hold = book.hold(entry.server, entry.original)
        withheld.append(
            {
                "server": entry.server,
                "tool": entry.original,
                "name": name,
                "reason": reason,
                "detail": hold.detail if hold is not None else None,
            }
        )
    flagged = [
        {"server": entry.server, "tool": entry.original, "name": name}
        for name, entry in catalog.entries[ItemKind.TOOL].items()
        if book.flagged(entry.server, entry.original, entry.hash)
    ]
    return {
        "policies": {name: str(book.policy(name)) for name in servers},
        "withheld": withheld,
        "flagged": flagged,
    }


def withheld_of(catalog: Catalog, server: str) -> int:
    """How many tools of a server are withheld."""
    return sum(item.entry.server == server for item in catalog.withheld.values())
