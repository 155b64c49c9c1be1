"""Tells when a file changed, however the editor wrote it."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

log = logging.getLogger(__name__)

RECHECK: Final = 5.0
"""Seconds after which the file is looked at even if the system reported nothing."""
POLL: Final = 2.0
"""Seconds between looks where the system offers no notices."""
STEP: Final = 0.1
DEBOUNCE: Final = 0.5
"""Seconds: a burst of writes is one change; it ends after a quiet STEP, at the latest after DEBOUNCE."""

_State: TypeAlias = tuple[int, int, int, int] | None
_Directories: TypeAlias = dict[str, tuple[int, int]]


def changes(path: Path) -> AsyncGenerator[None]:
    """Yield once for every burst of changes to a file, from the moment of this call on.

    The file may not exist yet, nor its directory; to be deleted, replaced by a rename and to come
    back are changes. A link is followed to where it points. Call this before reading the file, so
    that no change falls between the two, and close it (`contextlib.aclosing`) when done.
    """
    path = Path(os.path.abspath(path))
    return _changes(path, _state(path))


async def _changes(path: Path, seen: _State) -> AsyncGenerator[None]:
    touched = False
    while True:
        directories = _directories(path)
        with _notices(path, directories) as notices:
            while True:
                # Looking comes before waiting: a change before the first notice counts as well.
                # A notice counts even where size and time are the same: file clocks are coarse.
                now = _state(path)
                if now != seen or (touched and now is not None):
                    seen, touched = now, False
                    yield
                if _directories(path) != directories:
                    break  # a directory came, went or was replaced: watch those that are there now
                touched = await _wait(path, notices)


def _state(path: Path) -> _State:
    """What changes when the file does; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _directories(path: Path) -> _Directories:
    """The directories to watch, and which they are: that of the file, and that of a link's target.

    Of one that does not exist, the nearest above it that does.
    """
    found: _Directories = {}
    for directory in (path.parent, Path(os.path.realpath(path)).parent):
        for candidate in (directory, *directory.parents):
            try:
                status = candidate.stat()
            except OSError:
                continue
            found[str(candidate)] = (status.st_dev, status.st_ino)
            break
    return found


@contextlib.contextmanager
def _notices(path: Path, directories: _Directories) -> Iterator[RustNotify | None]:
    """The system's notices for some directories, or None where it has none to give."""
    from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

    notices: RustNotify | None = None
    try:
        notices = RustNotify(list(directories), False, False, 0, False, True)
    except FileNotFoundError:
        log.debug("a directory went away before it could be watched")  # seen at the next look
    except (OSError, WatchfilesRustInternalError) as error:
        log.warning("%s is looked at every %g s: the system cannot watch it (%s)", path, POLL, error)
    with notices if notices is not None else contextlib.nullcontext():
        yield notices


async def _wait(path: Path, notices: RustNotify | None) -> bool:
    """Wait for something to look at; True when the system says that the file itself was touched."""
    if notices is None:
        await anyio.sleep(POLL)
        return False
    stop = threading.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(_set_when_cancelled, stop)
        found = await anyio.to_thread.run_sync(
            notices.watch,
            int(DEBOUNCE * 1000),
            int(STEP * 1000),
            int(RECHECK * 1000),
            stop,
            limiter=anyio.CapacityLimiter(1),  # waits for long: not on the shared threads' account
        )
        group.cancel_scope.cancel()
    return isinstance(found, set) and _names(path, [changed for _, changed in found])


def _names(path: Path, changed: list[str]) -> bool:
    """Whether the file, or the target of the link that it is, is among the changed paths."""
    names = {path.name, os.path.basename(os.path.realpath(path))}
    return any(os.path.basename(other) in names for other in changed)


async def _set_when_cancelled(stop: threading.Event) -> None:
    # The thread cannot be cancelled; told to stop it ends within a STEP.
    try:
        await anyio.sleep_forever()
    finally:
        stop.set()
