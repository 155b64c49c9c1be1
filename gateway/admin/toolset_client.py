"""What the command line asks of a running gateway about toolsets, searches and calls that wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from gateway.admin.client import ControlClient

SEARCH_SECONDS: Final = 120.0
"""The first search of a gateway reads every tool."""


class ToolsetClient(ControlClient):
    """More verbs of the control socket, which fail as those of `ControlClient` do."""

    def toolsets(self) -> list[dict[str, Any]]:
        """Every toolset, and what it comes to."""
        return list(self._ask("GET", "/toolsets")["toolsets"])

    def toolset(self, name: str) -> dict[str, Any]:
        """One toolset in full."""
        return self._ask("GET", _toolset(name))

    def put_toolset(self, name: str, fields: Mapping[str, Any], *, new: bool) -> dict[str, Any]:
        """Create a toolset, or replace how one is written. Returns its row."""
        return self._ask("PUT", _toolset(name) + ("" if new else "?change=1"), fields)

    def remove_toolset(self, name: str) -> None:
        """Forget a toolset."""
        self._ask("DELETE", _toolset(name))

    def search(self, query: str, limit: int, toolset: str | None = None) -> dict[str, Any]:
        """The tools that answer a request."""
        fields = {"query": query, "limit": limit, **({} if toolset is None else {"toolset": toolset})}
        return self._ask("GET", f"/search?{urlencode(fields)}", seconds=SEARCH_SECONDS)

    def approvals(self) -> list[dict[str, Any]]:
        """The calls that wait for a person."""
        return list(self._ask("GET", "/approvals")["approvals"])

    def decide(self, ident: str, allowed: bool) -> dict[str, Any]:
        """Allow a call that waits, or deny it."""
        return self._ask("POST", f"/approvals/{quote(ident, safe='')}{'' if allowed else '?deny=1'}")


def _toolset(name: str) -> str:
    return f"/toolsets/{quote(name, safe='')}"
