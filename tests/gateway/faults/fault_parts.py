"""Fault servers behind gateways, as these tests and the benchmark beside them start them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.model import ServerSpec, Transport

SERVER = Path(__file__).with_name("fault_server.py")


def command(*words: str) -> list[str]:
    """The command line of a fault server."""
    return [sys.executable, "-I", "-S", str(SERVER), *words]


def entry(*words: str, **more: Any) -> dict[str, Any]:
    """The entry of a fault server over stdio, as in a servers file."""
    program, *arguments = command("stdio", *words)
    return {"command": program, "args": arguments, **more}


def child(name: str, *words: str, timeout: float | None = None, **extra: Any) -> ServerSpec:
    """The same as a spec."""
    program, *arguments = command("stdio", *words)
    return ServerSpec(name, Transport.STDIO, program, tuple(arguments), timeout=timeout, extra=extra)


@dataclass
class RemoteServer:
    """A fault server over HTTP that is started, killed and started again on one port."""

    log: Path | None = None
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        words = ["http", "--port", str(self.port), *(["--log", str(self.log)] if self.log else [])]
        self.process = subprocess.Popen(
            command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rpartition(":")[2].split("/")[0])

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def remote_server(log: Path | None = None) -> Iterator[RemoteServer]:
    """Started now, ended with the block."""
    server = RemoteServer(log)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def logged(log: Path, word: str) -> list[str]:
    """What a fault server's log says after this word."""
    if not log.exists():
        return []
    lines = (line.partition(" ") for line in log.read_text().splitlines())
    return [rest for first, _, rest in lines if first == word]


def executed(log: Path) -> Counter[str]:
    """How often each call was carried out, by its text."""
    return Counter(line.partition(" ")[2] for line in logged(log, "call"))


def kill(pid: int) -> None:
    """kill -9, of what may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def zombies_of(parent: int) -> list[int]:
    """Children of a process that have ended and were never waited for."""
    return [pid for pid, ppid, state in _processes() if ppid == parent and state == "Z"]


def children_of(parent: int) -> list[int]:
    """Children of a process that run."""
    return [pid for pid, ppid, state in _processes() if ppid == parent and state != "Z"]


def _processes() -> list[tuple[int, int, str]]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                found.append((int(name), int(fields[1]), fields[0]))
    return found
