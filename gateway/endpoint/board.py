"""What an endpoint needs of the gateway it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gateway.catalog import Catalog
from gateway.endpoint.sessions import Session
from gateway.upstream.supervisor import Upstream


class Switchboard(Protocol):
    """What the dispatcher needs of the gateway."""

    @property
    def catalog(self) -> Catalog:
        """What clients are shown now."""

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """The servers by name."""

    @property
    def plain_names(self) -> bool:
        """Whether names go without a server's prefix where nothing forces one."""

    @property
    def instructions(self) -> str:
        """What the servers want a model to know of them."""

    async def settled(self) -> None:
        """Wait, within the shared grace, for servers whose catalog was never seen."""

    async def list_anew(self, server: str) -> None:
        """Ask a server for its tools again."""


class Interests(Protocol):
    """Where clients say what they want to hear of."""

    async def subscribe(self, session: Session, uri: str, server: str) -> None:
        """Have the server tell of updates to a resource. Raises GatewayError."""

    async def unsubscribe(self, session: Session, uri: str) -> None:
        """End that, when no other session wants them. Raises GatewayError."""

    async def set_log_level(self, level: str, session: Session | None = None) -> None:
        """Have servers send log messages from this severity on."""

    async def log_from(self, upstream: Upstream, rank: int) -> None:
        """Have a handshake-era server send them from this rank on, for one request's sake."""

    def roots_changed(self, session: Session) -> None:
        """A client's roots are others now."""
