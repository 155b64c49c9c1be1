"""A place of its own for a test of the command line, and ways to run it there."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WAIT = 180.0
PEER = str(Path(__file__).parent / "echo_peer.py")


@dataclass(frozen=True)
class Place:
    """A state directory, a configuration directory, and the command line within them.

    Where nothing is configured its gateway serves the time, and builds no environment.
    """

    root: Path

    def __post_init__(self) -> None:
        (self.root / "config").mkdir(exist_ok=True)
        (self.root / "config" / "config.toml").write_text('[gateway]\nstarters = ["time"]\n')

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def home(self) -> Path:
        """The user's home, with the files of no assistant in it but those that a test puts there."""
        home = self.root / "home"
        home.mkdir(exist_ok=True)
        return home

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "TOOLYARD_STATE_DIR": str(self.state),
            "TOOLYARD_CONFIG_DIR": str(self.root / "config"),
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": "",
            "CLAUDE_CONFIG_DIR": "",
            "PYTHONIOENCODING": "utf-8",
        }

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
            cwd=self.home,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def serve(self, *flags: str) -> subprocess.Popen[str]:
        """Start a gateway and wait until it says where it listens."""
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--port", "0", *flags],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout
        assert "http://" in process.stdout.readline()
        return process


def end(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    code = process.wait(WAIT)
    assert process.stdout
    process.stdout.close()
    return code


@contextmanager
def on_terminal(place: Place, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments],
        env={**place.environment, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        cwd=place.home,
    )
    os.close(secondary)
    try:
        yield process, primary
    finally:
        process.kill()
        process.wait(WAIT)
        os.close(primary)


def read_until(primary: int, *words: str) -> None:
    seen, deadline = "", time.monotonic() + WAIT
    while not all(word in seen for word in words):
        ready, _, _ = select.select([primary], [], [], deadline - time.monotonic())
        assert ready, seen
        seen += os.read(primary, 65536).decode(errors="replace")
