"""What the command line says to `serve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The flags of `toolyard serve`; None means not given, so that config.toml or a default decides.

    :param config: the servers file (`mcpServers` JSON).
    :param token: the bearer token to use instead of the stored one.
    :param no_auth: serve without a token; on a loopback address only.
    :param names: ``prefix``, ``on-collision`` or ``priority``.
    :param idle_exit: seconds without any client after which the gateway ends itself; set when
        `toolyard stdio` started it.
    :param detached: runs in the background, with no terminal.
    :param log_level: ``debug``, ``info``, ``warning`` or ``error``.
    :param toolset: the one that a standalone gateway serves on stdin and stdout.
    """

    config: Path | None = None
    host: str | None = None
    port: int | None = None
    token: str | None = None
    no_auth: bool = False
    names: str | None = None
    state_dir: Path | None = None
    idle_exit: float | None = None
    detached: bool = False
    log_level: str | None = None
    toolset: str | None = None
