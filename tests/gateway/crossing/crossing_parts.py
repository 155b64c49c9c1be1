"""Gateways before a server that speaks one era only, and clients that speak one era only.

A gateway is started once for each server, and for all tests.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from yard import Yard, raw_client, serving, until

FIXTURE = Path(__file__).parents[1] / "fixture_server"
SERVERS = ("handshake-stdio", "handshake-http", "stateless-stdio", "stateless-http")
CLIENTS = ("legacy", "2026-07-28")


@contextmanager
def http_process(*command: str) -> Iterator[str]:
    """A server over HTTP that prints its URL first; the URL."""
    process = subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


def entry(stack: ExitStack, script: Path, era: str, transport: str, *flags: str) -> dict[str, Any]:
    """What stands in the servers file for a server of one era over one transport."""
    arguments = [str(script), transport, "--era", era, *flags]
    if transport == "stdio":
        return {"command": sys.executable, "args": arguments}
    return {"url": stack.enter_context(http_process(*arguments))}


class Houses:
    """One gateway for each server, started when first asked for."""

    def __init__(self, stack: ExitStack, folder: Callable[[str], Path]) -> None:
        self._stack = stack
        self._folder = folder
        self._yards: dict[tuple[str, ...], Yard] = {}

    def before(self, server: str, *flags: str) -> Yard:
        """The gateway before a fixture server of an era and a transport."""
        key = (server, *flags)
        if key not in self._yards:
            era, transport = server.split("-")
            servers = {"fixture": entry(self._stack, FIXTURE, era, transport, *flags)}
            names = ("--names", "on-collision")
            yard = self._stack.enter_context(serving(self._folder("-".join(key)), servers, *names))
            with raw_client(yard) as client:
                until("the tools", lambda: True if "echo_request" in client.names() else None)
            self._yards[key] = yard
        return self._yards[key]
