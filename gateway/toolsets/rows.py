"""Toolsets and answers as the command line shows them, with a gateway or without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.toolsets import finding
from gateway.toolsets.project import Projection
from registry.toolsets import Toolset

if TYPE_CHECKING:
    from registry.search.engine import Found


def row(toolset: Toolset, origin: str, projection: Projection, clients: int = 0) -> dict[str, Any]:
    """One toolset in a line.

    :param origin: ``config`` or ``added``.
    :param clients: sessions it has.
    """
    return {
        "name": toolset.name,
        "origin": origin,
        "tools": len(projection.tools),
        "expose": toolset.expose,
        "mode": "search" if projection.searching else ("both" if projection.meta_tools else "all"),
        "tokens": projection.tokens,
        "consent": toolset.consent,
        "clients": clients,
        "problems": list(projection.problems),
    }


def shown(line: dict[str, Any], toolset: Toolset, projection: Projection) -> dict[str, Any]:
    """One toolset in full."""
    tools = [
        {"name": name, "server": entry.server, "original": entry.original}
        for name, entry in projection.tools.items()
    ]
    return {**line, "definition": toolset.fields(), "tool_names": tools}


def answered(found: Found, projection: Projection) -> dict[str, Any]:
    """The answer to a search."""
    return {**finding.answer(found, projection)[1], "clauses": list(found.clauses), "pending": found.pending}
