"""The life-line: no child outlives the gateway, not even when the gateway is killed with SIGKILL.

One small process per gateway reads a pipe whose other end only the gateway holds. Lines on the pipe
name the process groups of its children; the end of the pipe means that the gateway is gone, and then
every group that is still named is ended. On Linux, processes that left their group are found by a
marker in the environment they inherited.

Run as a program (``python -I -S lifeline.py MARKER``) it uses the standard library alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

MARKER = "TOOLYARD_LIFELINE"
GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL once the gateway is gone."""


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
            groups.discard(int(number))
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
    """Processes of ours whose environment carries the marker; none where there is no /proc."""
    needle = f"{MARKER}={marker}".encode()
    found = []
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if needle in file.read().split(b"\0"):
                    found.append(pid)
        except OSError:
            continue  # it has ended, or is not ours
    return found


class Lifeline:
    """The gateway's end. Started with the first child; started again should it ever be killed.

    :param marker: put into every child's environment as ``TOOLYARD_LIFELINE``.
    """

    def __init__(self) -> None:
        self.marker = os.urandom(12).hex()
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def add(self, group: int) -> None:
        """Watch over a process group."""
        self._groups.add(group)
        self._say(b"+ %d\n" % group)

    def discard(self, group: int) -> None:
        """A group has ended."""
        self._groups.discard(group)
        if self._process is not None:
            self._say(b"- %d\n" % group)

    def _say(self, line: bytes) -> None:
        if os.name != "posix":
            return
        if self._process is None or self._process.poll() is not None:
            self._start()
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
        except BrokenPipeError:
            self._start()

    def _start(self) -> None:
        self.close()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, self.marker],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
            close_fds=True,
        )
        assert self._process.stdin is not None
        for group in self._groups:
            self._process.stdin.write(b"+ %d\n" % group)

    def close(self) -> None:
        """End the watcher; it ends whatever is still alive."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(2 * GRACE + 1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main(sys.argv[1])
