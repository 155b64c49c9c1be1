"""What a server writes to its log: the last lines in memory, the rest in a bounded, rotated file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

log = logging.getLogger("toolyard.upstream")

LINES: Final = 200
"""Lines kept in memory."""
LINE: Final = 2000
"""Characters of a line that are kept."""
FILE_BYTES: Final = 1024 * 1024
FILES: Final = 3
"""Older files kept beside the current one."""
FLUSH_EVERY: Final = 0.25
FLUSH_BYTES: Final = 64 * 1024
"""Bytes written per flush; a server that writes more loses lines, and the log says how many."""


class ServerLog:
    """The log of one server, across all its starts.

    :param path: the file, or None to keep lines in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.lines: deque[str] = deque(maxlen=LINES)
        self._pending: list[str] = []
        self._pending_bytes = 0
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None
        self._readers: set[asyncio.Queue[str]] = set()
        self._broken = False

    def write(self, line: str) -> None:
        """Take a line. Never blocks, never raises."""
        line = line[:LINE]
        self.lines.append(line)
        for reader in self._readers:
            if not reader.full():
                reader.put_nowait(line)
        if self.path is None:
            return
        if self._pending_bytes + len(line) > FLUSH_BYTES:
            self._dropped += 1
        else:
            self._pending_bytes += len(line) + 1
            self._pending.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_EVERY, self.flush)

    def flush(self) -> None:
        """Write what waits to the file; a full disk costs the lines, nothing else."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if self._dropped:
            pending.append(f"[{self._dropped} lines dropped: the server wrote too fast]")
            self._dropped = 0
        if not pending or self.path is None:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
        data = "".join(f"{stamp} {line}\n" for line in pending).encode(errors="replace")
        try:
            self._rotate(len(data))
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open(descriptor, "ab", buffering=0) as file:
                file.write(data)
            self._broken = False
        except OSError as error:
            if not self._broken:
                log.error("cannot write %s: %s", self.path, error.strerror or error)
            self._broken = True

    def _rotate(self, size: int) -> None:
        assert self.path is not None
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_size + size <= FILE_BYTES:
                return
            for number in range(FILES - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
            os.replace(self.path, f"{self.path}.1")

    def tail(self, count: int) -> list[str]:
        """The last flushed lines: from the file, which outlives us, else from memory. Reads the disk."""
        if self.path is None:
            return list(self.lines)[-count:]
        found: list[str] = []
        for path in (self.path, Path(f"{self.path}.1")):
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                break
            found = lines + found
            if len(found) >= count:
                break
        return found[-count:]

    async def follow(self) -> AsyncIterator[str]:
        """Lines as they come, until the caller stops; one who is slow misses some."""
        reader: asyncio.Queue[str] = asyncio.Queue(1000)
        self._readers.add(reader)
        try:
            while True:
                yield await reader.get()
        finally:
            self._readers.discard(reader)


def log_path(directory: Path, server: str) -> Path:
    """The file of a server's log; its name is safe on every file system."""
    return directory / (re.sub(r"[^A-Za-z0-9_.-]", "_", server)[:80].lstrip(".") + ".log")
