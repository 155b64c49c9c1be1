"""SQLite below the store: opening the file safely, and what its faults mean to a person."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from registry.errors import StoreBusy, StoreDamaged, StoreError, StoreMissing

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for another process's write lock."""


class SQLite:
    """A database in one file, readable by its owner alone."""

    shared = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = self.shown = os.fspath(path)

    def prepare(self, *, readonly: bool) -> None:
        """Make the file where it is missing. Raises StoreMissing where it is only to be read."""
        if not readonly:
            create_private(self.path)
        elif not self.path.exists():
            raise StoreMissing(
                f"There is no store at {self.path} yet: no gateway has run on this state directory.",
                "Start one with `toolyard serve`, or name the right --state-dir.",
            )

    def engine(self, *, readonly: bool) -> Engine:
        """One connection for all threads: the store has a lock of its own."""
        engine = create_engine(
            "sqlite://", creator=lambda: connect(self.path, readonly=readonly), poolclass=StaticPool
        )
        event.listen(engine, "begin", begin)
        return engine

    def fail(self, verb: str, error: BaseException | None) -> NoReturn:
        """Raise the StoreError for a fault of the database's."""
        fail(self.path, verb, error)

    def salvage(self) -> str:
        """What a person can do about a damaged file."""
        return salvage(self.path)


def connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    """A connection set up as the store needs it; transactions begin where `begin` says, nowhere else."""
    uri = path.as_uri() + ("?mode=ro" if readonly else "?mode=rw")
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA trusted_schema=OFF")
        if readonly:
            connection.execute("PRAGMA query_only=ON")
        else:
            use_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def use_wal(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging, which stays with the file: readers and the writer do not block."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # The switch itself does not honour the busy timeout when two processes create the file.
            if not _errorname(error).startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def create_private(path: Path) -> None:
    """Make sure that the file exists and that only its owner can read it: it holds keys."""
    try:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            # By path: closing a descriptor would drop the locks SQLite holds on it in this process.
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
    except OSError as error:
        raise StoreError(
            f"The store {path} cannot be created or made private: {error.strerror}.",
            "Give a --state-dir that exists, is yours and can be written.",
        ) from error


def salvage(path: Path) -> str:
    """What a person can do about a damaged file."""
    return (
        f"Stop the gateway and put a backup in its place, or move {path.name}, {path.name}-wal and "
        f"{path.name}-shm away and start again: configured servers and their tools are learned anew; "
        "added servers and approvals have to be given again."
    )


def _errorname(error: BaseException | None) -> str:
    return getattr(error, "sqlite_errorname", "") or ""


_ADVICE: Final[Mapping[str, str]] = {
    "SQLITE_FULL": "Free some disk space; nothing that was stored is lost.",
    "SQLITE_READONLY": "Make the state directory and the file writable for this user.",
    "SQLITE_CANTOPEN": "Check that the state directory exists and that this user may read and write it.",
    "SQLITE_PERM": "Make the state directory and the file readable and writable for this user.",
    "SQLITE_IOERR": "Check the disk that holds the state directory.",
}


def fail(path: Path, verb: str, error: BaseException | None) -> NoReturn:
    """Raise the StoreError for a fault of the database's."""
    name = _errorname(error)
    detail = f"{error} ({name})" if name else str(error)
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        raise StoreDamaged(f"The store {path} is damaged: {detail}.", salvage(path)) from error
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        raise StoreBusy(
            f"The store {path} could not be {verb}: another process has held it for {BUSY_TIMEOUT:g} s.",
            "Try again; if it stays so, see which process has the file open.",
        ) from error
    advice: Any = next((text for prefix, text in _ADVICE.items() if name.startswith(prefix)), None)
    raise StoreError(f"The store {path} could not be {verb}: {detail}.", advice) from error


def begin(connection: Connection) -> None:
    """Begin a transaction on an engine's connection; one that is to write takes the lock at once."""
    # Taking the write lock at once makes a writer wait for it (busy_timeout); asking for it in the
    # middle of a read transaction fails instead (SQLite, "Transaction": DEFERRED and SQLITE_BUSY).
    writes = connection.get_execution_options().get("toolyard_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
