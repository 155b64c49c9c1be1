"""Where things are kept: one state directory per gateway, one configuration directory per user."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

_SOCKET_PATH_MAX = 100  # sun_path holds 108 bytes on Linux, 104 on macOS


def default_state_dir() -> Path:
    """``$TOOLYARD_STATE_DIR``, else the platform's place for a program's own state (XDG on Linux)."""
    given = os.environ.get("TOOLYARD_STATE_DIR")
    return Path(given) if given else platformdirs.user_state_path("toolyard", appauthor=False)


def config_dir() -> Path:
    """``$TOOLYARD_CONFIG_DIR``, else the platform's place for configuration (XDG on Linux)."""
    given = os.environ.get("TOOLYARD_CONFIG_DIR")
    return Path(given) if given else platformdirs.user_config_path("toolyard", appauthor=False)


@dataclass(frozen=True, slots=True)
class StateDir:
    """The files of one gateway. Everything in it is private to its user (0700)."""

    root: Path

    @classmethod
    def at(cls, root: str | os.PathLike[str] | None = None) -> StateDir:
        """The directory named, or the default one, as an absolute path. Creates nothing."""
        return cls(Path(os.path.abspath(root)) if root else default_state_dir())

    def create(self) -> None:
        """Make the directory, 0700. Raises OSError."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.cache.parent.mkdir(exist_ok=True, mode=0o700)
        self.logs.mkdir(exist_ok=True, mode=0o700)
        self._socket_dir().mkdir(parents=True, exist_ok=True, mode=0o700)

    def _socket_dir(self) -> Path:
        if len(os.fsencode(self.root / "control.sock")) <= _SOCKET_PATH_MAX:
            return self.root
        # A Unix socket's path is short; a deep state directory keeps its sockets elsewhere.
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        uid = os.getuid() if hasattr(os, "getuid") else 0
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        return Path(base) / f"toolyard-{uid}-{name}"

    @property
    def database(self) -> Path:
        return self.root / "toolyard.db"

    @property
    def lock(self) -> Path:
        return self.root / "gateway.lock"

    @property
    def token(self) -> Path:
        """The bearer token, 0600."""
        return self.root / "token"

    @property
    def identity(self) -> Path:
        """The id by which gateways on one store tell this one from the others."""
        return self.root / "identity"

    @property
    def running(self) -> Path:
        """What the gateway that holds the lock says of itself: pid, url, version, started."""
        return self.root / "gateway.json"

    @property
    def log(self) -> Path:
        """Where a gateway started in the background writes its log."""
        return self.root / "gateway.log"

    @property
    def logs(self) -> Path:
        """One log per server."""
        return self.root / "logs"

    @property
    def cache(self) -> Path:
        """The last lists, for a stdio client that asks before the gateway is up."""
        return self.root / "cache" / "lists.json"

    def toolset_cache(self, name: str) -> Path:
        """The same for the clients of one toolset."""
        return self.cache.with_name(f"toolset-{name}.json")

    @property
    def search(self) -> Path:
        """What search derives: the exported model and index generations. It can be removed at any time."""
        return self.root / "cache" / "search"

    @property
    def control_socket(self) -> Path:
        """HTTP, the admin API; 0600."""
        return self._socket_dir() / "control.sock"

    @property
    def relay_socket(self) -> Path:
        """Newline-delimited JSON-RPC for ``toolyard stdio``; 0600."""
        return self._socket_dir() / "relay.sock"
