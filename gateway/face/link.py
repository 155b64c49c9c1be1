"""Reaching the gateway of a state directory, and starting it where none listens."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.errors import GatewayError
from gateway.paths import StateDir

if TYPE_CHECKING:
    import subprocess

START_SECONDS: Final = 20.0
"""How long a gateway may take until it listens."""
IDLE_EXIT_SECONDS: Final = 300
"""A gateway that a face started ends itself after this time without any client."""
_CONNECT_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.02
_LOG_BYTES: Final = 8 * 1024 * 1024
_EXIT_LOCKED: Final = 7


class GatewayUnreachable(GatewayError):
    """No gateway listens, and none could be started."""

    kind = "gateway_unreachable"
    retriable = True


class GatewayLost(GatewayError):
    """The gateway went away while it had the request."""

    kind = "gateway_lost"
    retriable = True


def connect(path: Path) -> socket.socket | None:
    """The relay socket, connected; None when nothing listens there.

    Raises GatewayUnreachable for a socket that belongs to somebody else.
    """
    try:
        owner = os.lstat(path).st_uid
    except OSError:
        return None
    if owner != os.getuid():
        # The socket may lie in a shared directory for temporary files: take nobody else's word.
        raise GatewayUnreachable(
            f"The socket {path} belongs to another user (uid {owner}).",
            "Remove it, or choose another state directory with --state-dir.",
        )
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(_CONNECT_SECONDS)
        link.connect(os.fspath(path))
        link.settimeout(None)
    except OSError:
        link.close()
        return None
    return link


class Starter:
    """Starts a gateway in the background, apart from this process and its terminal.

    :param flags: of ``toolyard serve``, as the person gave them to ``toolyard stdio``.
    """

    def __init__(self, state: StateDir, flags: Sequence[str]) -> None:
        self._state = state
        self._flags = tuple(flags)

    def start_and_connect(self) -> socket.socket:
        """Start a gateway and connect to it, or to another that was faster. Raises GatewayUnreachable."""
        deadline = time.monotonic() + START_SECONDS
        process = self._start()
        while True:
            ended = process.poll()
            if link := connect(self._state.relay_socket):
                return link
            # Exit 7 says that another holds the lock: then that one will listen in a moment.
            if ended not in (None, _EXIT_LOCKED):
                raise GatewayUnreachable(
                    f"The gateway could not start (exit code {ended}).",
                    f"Its log is {self._state.log}; `toolyard doctor` says what is wrong.",
                    log=str(self._state.log),
                )
            if time.monotonic() > deadline:
                raise GatewayUnreachable(
                    f"The gateway did not come up within {START_SECONDS:.0f} s.",
                    f"Its log is {self._state.log}; `toolyard doctor` says what is wrong.",
                    log=str(self._state.log),
                )
            time.sleep(_POLL_SECONDS)

    def _start(self) -> subprocess.Popen[bytes]:
        import subprocess  # only a cold start pays for it

        command = [sys.executable, "-P", "-m", "gateway", "serve", "--detached"]
        command += ["--idle-exit", str(IDLE_EXIT_SECONDS), "--state-dir", str(self._state.root), *self._flags]
        try:
            self._state.create()
            log = self._open_log()
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=os.path.expanduser("~"),  # the same for every face, wherever that was started
                    start_new_session=True,
                )
            finally:
                os.close(log)
        except OSError as error:
            raise GatewayUnreachable(
                f"The gateway could not be started: {error}.",
                f"Check that {self._state.root} can be written; `toolyard doctor` says more.",
            ) from None
        # The gateway outlives many faces, or loses the race for the lock at once: either way
        # somebody must collect its end.
        threading.Thread(target=process.wait, name="reaper", daemon=True).start()
        return process

    def _open_log(self) -> int:
        log = self._state.log
        try:
            if log.stat().st_size > _LOG_BYTES:
                os.replace(log, log.with_suffix(".log.1"))
        except FileNotFoundError:
            pass
        return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
