"""Servers and gateways as child processes, and what they use."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WAIT = 60.0
TOKEN = "benchmark-token-0123456789abcdef"


@dataclass(frozen=True)
class Gateway:
    """A gateway that listens."""

    pid: int
    url: str


def cpu_seconds(pid: int) -> float:
    """CPU a process itself has used: user and system. On Linux in steps of 10 ms."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    clock = _ps(pid, "time").replace("-", ":").split(":")
    return sum(
        float(part) * scale for part, scale in zip(reversed(clock), (1, 60, 3600, 86400), strict=False)
    )


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    return int(_ps(pid, "rss")) / 1024


def _ps(pid: int, field: str) -> str:
    done = subprocess.run(
        ["ps", "-o", f"{field}=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def peers(servers: int, tools: int) -> Iterator[list[str]]:
    """Servers over HTTP, all in one process; their URLs."""
    command = [
        sys.executable,
        str(HERE / "peer.py"),
        "http",
        "--servers",
        str(servers),
        "--tools",
        str(tools),
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield [process.stdout.readline().strip() for _ in range(servers)]
    finally:
        _end(process)


def stdio_peer() -> dict[str, Any]:
    """The entry of a server over stdio."""
    return {"command": sys.executable, "args": [str(HERE / "peer.py"), "stdio"]}


@contextlib.contextmanager
def gateway(root: Path, servers: Mapping[str, Any], *more: str) -> Iterator[Gateway]:
    """A gateway with an empty state directory of its own. Yields as soon as it says where it listens.

    :param more: further flags of ``toolyard serve``.
    """
    root.mkdir(parents=True)
    (root / "servers.json").write_text(json.dumps({"mcpServers": servers}))
    flags = {"--config": root / "servers.json", "--state-dir": root / "state", "--port": 0, "--token": TOKEN}
    command = [sys.executable, "-m", "gateway", "serve"]
    for name, value in flags.items():
        command += [name, str(value)]
    command += more
    with open(root / "log", "w") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, "TOOLYARD_CONFIG_DIR": str(root / "config")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
        )
    try:
        yield Gateway(process.pid, _url(root, process))
    finally:
        _end(process)


def _url(root: Path, process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return str(json.loads((root / "state" / "gateway.json").read_text())["url"])
        except FileNotFoundError:
            time.sleep(0.005)
    raise RuntimeError(f"the gateway did not start: {(root / 'log').read_text()}")
