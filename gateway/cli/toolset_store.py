"""Toolsets when no gateway runs: those of the store and of config.toml, over the last known catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.cli import offline
from gateway.config.options import ServeOptions
from gateway.config.settings import Settings
from gateway.errors import GatewayError, NotFound


class Stored:
    """The toolsets of the store and of config.toml, over the last known catalog."""

    def __init__(self, toolsets: dict[str, Any], origins: dict[str, str], state: Path | None) -> None:
        self._toolsets = toolsets
        self.origins = origins
        self._state = state

    @classmethod
    def read(cls, state: Path | None) -> Stored:
        from registry.errors import StoreMissing
        from registry.store import Store
        from registry.toolsets import ToolsetRecords

        configured = Settings.load(ServeOptions()).toolsets
        stored: dict[str, Any] = {}
        try:
            with Store.open(offline.store_of(state), readonly=True) as store:
                stored = ToolsetRecords(store).all()
        except StoreMissing:
            pass  # no gateway has run here yet
        origins = dict.fromkeys(stored, "added") | dict.fromkeys(configured, "config")
        return cls(stored | dict(configured), dict(sorted(origins.items())), state)

    def own(self, name: str) -> None:
        """Raises NotFound for a toolset that is not there, GatewayError for one of config.toml."""
        if name not in self.origins:
            raise NotFound(f"There is no toolset named '{name}'.", "See: toolyard registry toolset list.")
        if self.origins[name] == "config":
            raise GatewayError(f"Toolset '{name}' is set by config.toml.", f"Change [toolsets.{name}] there.")

    def project(self, name: str) -> Any:
        """The projection of a toolset over the last known catalog. Raises NotFound."""
        if name not in self.origins:
            raise NotFound(f"There is no toolset named '{name}'.", "See: toolyard registry toolset list.")
        return offline.project(self._state, self._toolsets[name])

    def _row(self, name: str, projection: Any) -> dict[str, Any]:
        from gateway.toolsets.rows import row

        return row(self._toolsets[name], self.origins[name], projection)

    def rows(self) -> list[dict[str, Any]]:
        return [self._row(name, self.project(name)) for name in self.origins]

    def shown(self, name: str) -> dict[str, Any]:
        from gateway.toolsets.rows import shown

        projection = self.project(name)
        return shown(self._row(name, projection), self._toolsets[name], projection)
