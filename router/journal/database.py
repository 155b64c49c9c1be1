"""The journal's database: a SQLite file of its own, or a Postgres named by a URL.

It is not the store's file, because its commits are on the way of every step of a plan and must not wait
for, or hold up, what the store is written for.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.exc import DBAPIError, NoSuchModuleError
from sqlalchemy.pool import StaticPool

from registry import sqlite
from registry.errors import StoreError
from router.errors import JournalError, JournalNewer
from router.journal import schema


class Database:
    """An open database with the journal's tables. Use `Database.open`.

    Methods block on the disk and may be called from any thread. Raises JournalError.
    """

    def __init__(self, engine: Engine, where: str, *, shared: bool, readonly: bool) -> None:
        self.where = where
        self.shared = shared
        """Whether other processes may write to it at the same time."""
        self.readonly = readonly
        self._engine = engine
        self._writer = engine.execution_options(toolyard_write=True)
        self._lock = threading.RLock()

    @classmethod
    def open(cls, where: str | os.PathLike[str], *, readonly: bool = False) -> Self:
        """Open a journal, creating it (0600) unless ``readonly``.

        :param where: the path of a file, or a URL such as ``postgresql+psycopg://host/name``.
        :raises JournalError: it cannot be opened, or there is none and it is to be read only.
        :raises JournalNewer: a later version of the product wrote it.
        """
        text = os.fspath(where)
        if "://" in text:
            try:
                engine = create_engine(text, pool_pre_ping=True)
            except (NoSuchModuleError, ModuleNotFoundError) as error:
                raise JournalError(
                    f"The journal's database cannot be used: {error}.", "Install its driver, such as psycopg."
                ) from error
            found = cls(engine, engine.url.render_as_string(), shared=True, readonly=readonly)
        else:
            path = Path(os.path.abspath(text))
            if readonly and not path.exists():
                raise JournalError(
                    f"There is no journal at {path}: no plan was run yet.", "Run one with `toolyard run`."
                )
            found = cls(_file(path, readonly), str(path), shared=False, readonly=readonly)
        try:
            found._check()
        except BaseException:
            found.close()
            raise
        return found

    def close(self) -> None:
        """Close every connection. Idempotent."""
        with self._lock:
            self._engine.dispose()

    def insert(self, table: Any) -> Any:
        """An INSERT that knows ``on_conflict_do_update``, in the database's own dialect."""
        if self._engine.dialect.name == "postgresql":
            return postgresql.insert(table)
        return sqlite_dialect.insert(table)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One read transaction."""
        with self._lock, self._translated("read"), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One write transaction, durable when the block ends; nothing of it where the block raises."""
        if self.readonly:
            raise JournalError(f"The journal {self.where} is open for reading only.")
        with self._lock, self._translated("written"), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, sqlite3.Error) as error:
            origin = error.orig if isinstance(error, DBAPIError) else error
            raise JournalError(
                f"The journal {self.where} could not be {verb}: {origin}.",
                "Check the disk and its free space; what was journalled before is safe.",
            ) from error

    def _check(self) -> None:
        with self.reading() as connection:
            version = self._version(connection)
        if version is None:
            if self.readonly:
                raise JournalError(f"The journal {self.where} is empty.", "Run a plan first.")
            with self.writing() as connection:
                if self._engine.dialect.name == "postgresql":
                    # Of two replicas that start at once, one waits for the other's tables.
                    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7403216590)")
                if self._version(connection) is None:
                    schema.metadata.create_all(connection)
                    connection.execute(schema.version.insert(), {"version": schema.VERSION})
        elif version != schema.VERSION:
            raise JournalNewer(
                f"The journal {self.where} has version {version}, this one knows {schema.VERSION}.",
                "Use the version of toolyard that wrote it, or move the file away.",
            )

    def _version(self, connection: Connection) -> int | None:
        if not inspect(connection).has_table(schema.version.name):
            return None
        return connection.execute(select(schema.version.c.version)).scalar_one_or_none()


def _file(path: Path, readonly: bool) -> Engine:
    try:
        if not readonly:
            sqlite.create_private(path)
    except StoreError as error:
        raise JournalError(error.message.replace("The store", "The journal"), error.hint) from error
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite.connect(path, readonly=readonly), poolclass=StaticPool
    )
    event.listen(engine, "begin", sqlite.begin)
    return engine
