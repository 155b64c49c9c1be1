"""``logs``: what a server writes to its standard error, and what befell it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from gateway.admin.client import NotRunning
from gateway.cli import offline, render
from gateway.cli.shared import StateFlag, client, verb
from gateway.paths import StateDir
from gateway.upstream.serverlog import log_path

_POLL: Final = 0.2
_CHUNK: Final = 64 * 1024


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    verb(app, "NAME", logs)


def logs(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    lines: Annotated[
        int,
        typer.Option(
            "--lines",
            "-n",
            metavar="LINES",
            min=0,
            help="How many of the last lines [100].",
            show_default=False,
        ),
    ] = 100,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with every further line, until Ctrl-C.")
    ] = False,
    state_dir: StateFlag = None,
) -> None:
    """Show the last lines of the log of the server NAME.

    It holds what the server writes to its standard error, across its restarts and the gateway's.
    """
    try:
        client(state_dir).flush_log(name)
    except NotRunning:
        offline.server(state_dir, name)  # there must be one of that name
    path = log_path(StateDir.at(state_dir).logs, name)
    try:
        _show(path, lines, follow=follow)
    except KeyboardInterrupt:
        if not follow:
            raise


def _show(path: Path, count: int, *, follow: bool) -> None:
    # The gateway writes this file and outlives its servers, the file outlives the gateway: following
    # it loses no line when either is started anew.
    file = _LogFile(path)
    last = file.last(count)
    for line in last:
        render.out(line)
    if count and not last:
        render.note("It has written nothing yet.")
    if follow:
        sys.stdout.flush()
        for line in file.further():
            render.out(line)
            sys.stdout.flush()


class _LogFile:
    """A log up to its present end, and from there on by name: over rotations and over its absence."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        self._at, self._inode = 0, 0
        try:
            seen = path.stat()
            self._at, self._inode = seen.st_size, seen.st_ino
        except OSError:
            pass  # nothing was written yet: it begins with the first line

    def last(self, count: int) -> list[str]:
        """The last lines, from the file before this one too where they are."""
        found: list[str] = []
        for path, end in ((self._path, self._at), (Path(f"{self._path}.1"), None)):
            if len(found) >= count:
                break
            try:
                data = path.read_bytes()[:end]
            except OSError:
                break
            # Only a line feed ends a line: a server may write the other characters that count as ends.
            found = data.decode(errors="replace").removesuffix("\n").split("\n") + found if data else found
        return found[-count:] if count else []

    def further(self) -> Iterator[str]:
        """Every further line, for ever."""
        while True:
            found = self._read()
            if not found:
                time.sleep(_POLL)
            yield from found

    def _read(self) -> list[str]:
        try:
            with open(self._path, "rb") as file:
                seen = os.fstat(file.fileno())
                if self._inode and seen.st_ino != self._inode:
                    return self._turn(seen.st_ino)
                self._inode = seen.st_ino
                if seen.st_size < self._at:  # emptied by hand
                    self._at, self._rest = 0, b""
                file.seek(self._at)
                return self._split(file.read(_CHUNK))
        except OSError:
            return []

    def _turn(self, inode: int) -> list[str]:
        """The end of the file that was rotated away, where it still can be found; then the new one."""
        found: list[str] = []
        try:
            with open(f"{self._path}.1", "rb") as file:
                if os.fstat(file.fileno()).st_ino == self._inode:
                    file.seek(self._at)
                    found = self._split(file.read())
        except OSError:
            pass  # removed by hand: the new file is all there is
        self._at, self._inode, self._rest = 0, inode, b""
        return found

    def _split(self, data: bytes) -> list[str]:
        self._at += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in whole]
