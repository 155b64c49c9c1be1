"""The life-line: no child outlives the gateway, not even when the gateway is killed with SIGKILL.

One small process per gateway, the watcher, reads a pipe whose other end only the gateway holds. Lines
on the pipe name the process groups of its children; the end of the pipe means that the gateway is gone,
and then every group that is still named is ended. On Linux, processes that left their group are found by
a marker in the environment they inherited. A line also says that a child was stopped: the watcher then
ends what that child has left behind in other groups, at no cost to the gateway.

Run as a program (``python -I -S lifeline.py MARKER``) it uses the standard library alone.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio  # imported by the gateway's end alone: the watcher is to stay small

MARKER = "TOOLYARD_LIFELINE"
GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL once the gateway is gone."""
AGAIN = 0.5
"""Seconds between two starts of the watcher, so that one which cannot live costs little."""


def main(marker: str) -> None:
    """Watch the pipe on stdin until it ends, then end what is left."""
    for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ending, signal.SIG_IGN)  # it must outlast whatever ends the gateway
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        verb, _, number = line.strip().partition(b" ")
        if verb == b"+":
            groups.add(int(number))
        elif verb == b"-":
            group, _, child = number.partition(b" ")
            groups.discard(int(group))
            _signal_all(set(), child.decode(), signal.SIGKILL)  # it has had its grace with its parent
    end(groups, marker)


def end(groups: set[int], marker: str) -> None:
    """SIGTERM, a moment's grace, SIGKILL; to the groups and to everything that carries the marker."""
    _signal_all(groups, marker, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and _any_alive(groups, marker):
        time.sleep(0.02)
    _signal_all(groups, marker, signal.SIGKILL)


def _signal_all(groups: set[int], marker: str, number: int) -> None:
    for group in groups:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            pass  # gone already
    for pid in marked(marker):
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def _any_alive(groups: set[int], marker: str) -> bool:
    for group in groups:
        try:
            os.killpg(group, 0)
            return True
        except (ProcessLookupError, PermissionError):
            continue
    return bool(marked(marker))


def marked(marker: str) -> list[int]:
    """Processes of ours whose environment carries the marker; none where there is no /proc.

    :param marker: of a gateway, or of one of its children: ``GATEWAY.NUMBER.``
    """
    needle = f"{MARKER}={marker}".encode()
    found = []
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if any(entry.startswith(needle) for entry in file.read().split(b"\0")):
                    found.append(pid)
        except OSError:
            continue  # it has ended, or is not ours
    return found


class Lifeline:
    """The gateway's end. Started with the first child; started again at once should it ever be killed."""

    def __init__(self) -> None:
        self._marker = os.urandom(12).hex()
        self._numbers = itertools.count(1)
        self._groups: dict[int, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._watched: asyncio.AbstractEventLoop | None = None
        self._started_at = 0.0

    @property
    def pid(self) -> int | None:
        """The process id of the watcher."""
        return self._process.pid if self._process is not None else None

    def marker(self) -> str:
        """The value of ``TOOLYARD_LIFELINE`` in the environment of the next child, like no other's."""
        return f"{self._marker}.{next(self._numbers)}."

    def add(self, group: int, marker: str) -> None:
        """Watch over the process group of a child that was started with this marker."""
        self._groups[group] = marker
        self._say(b"+ %d\n" % group)

    def discard(self, group: int) -> None:
        """A child was stopped: what it has left behind may end too."""
        marker = self._groups.pop(group, None)
        if marker is not None and self._process is not None:
            self._say(b"- %d %b\n" % (group, marker.encode()))

    def _say(self, line: bytes) -> None:
        if os.name != "posix":
            return
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
        except BrokenPipeError:
            self._start()
            if line.startswith(b"-"):
                self._process.stdin.write(line)

    def _start(self) -> None:
        import asyncio

        old = self._reap()
        if old is not None:
            old.kill()
            old.wait()
        self._started_at = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, self._marker],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,  # nothing is written to it: its end is the watcher's
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
            close_fds=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for group in self._groups:
            self._process.stdin.write(b"+ %d\n" % group)
        self._watched = asyncio.get_running_loop()
        self._watched.add_reader(self._process.stdout.fileno(), self._ended)

    def _ended(self) -> None:
        """The watcher was killed. Until another watches, nothing would outlive us but by bad luck."""
        assert self._watched is not None
        loop, since = self._watched, time.monotonic() - self._started_at
        process = self._reap()
        if process is not None:
            process.kill()
            process.wait()  # of what has closed its pipes by ending: at once
        loop.call_later(max(0.0, AGAIN - since), self._start_again)

    def _start_again(self) -> None:
        if self._process is None and self._groups:
            self._start()

    def _reap(self) -> subprocess.Popen[bytes] | None:
        """Let go of the watcher; it is ended by the end of its pipe."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None
        assert process.stdout is not None
        assert self._watched is not None
        self._watched.remove_reader(process.stdout.fileno())
        process.stdout.close()
        process.stdin.close()
        return process

    async def close(self) -> None:
        """End the watcher; it ends whatever is still alive."""
        import asyncio

        self._start_again()
        self._groups.clear()
        process = self._reap()
        if process is None:
            return
        try:
            await asyncio.to_thread(process.wait, 2 * GRACE + 1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main(sys.argv[1])
