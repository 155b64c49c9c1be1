"""The store: servers, catalogs, approvals, assigned names and keys, in SQLite or Postgres.

A file is written by one process (the gateway that holds the state directory's lock) and read by
others; a Postgres database is shared by gateways. Statements are SQLAlchemy Core, the same for both.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, delete, select
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.exc import DBAPIError, IntegrityError

from registry import records, schema
from registry.counters import Counter, advance
from registry.database import Database, database
from registry.errors import (
    StoreDamaged,
    StoreError,
    StoreMissing,
    StoreNewer,
    StoreOutdated,
    UnknownServer,
)
from registry.model import Approval, AssignedName, ItemKind, Server, ServerCatalog


class Store:
    """The records of one state directory. Use `Store.open`; every method is one transaction.

    Methods block on the disk, and may be called from any thread: one connection, one lock.
    All raise StoreError (see `registry.errors`) when the file cannot be read or written.
    """

    def __init__(self, engine: Engine, where: Database, *, readonly: bool) -> None:
        self.place = where.place
        self._database = where
        self.shown = where.shown
        self.shared = where.shared
        self.readonly = readonly
        self._engine = engine
        self._writer = engine.execution_options(toolyard_write=True)
        self._lock = threading.RLock()

    @classmethod
    def open(cls, place: str | os.PathLike[str], *, readonly: bool = False) -> Self:
        """Open the database at a path or a ``postgresql://`` URL.

        Creates a file (0600), and upgrades the schema, first unless ``readonly``. A context manager.
        Reading works while another process writes.

        :raises StoreMissing: ``readonly`` and there is no database yet.
        :raises StoreNewer: a later version of the product wrote it.
        :raises StoreOutdated: ``readonly`` and the schema is an older one.
        :raises StoreDamaged: it is no database, or not ours.
        """
        where = database(place)
        where.prepare(readonly=readonly)
        store = cls(where.engine(readonly=readonly), where, readonly=readonly)
        try:
            store._check_schema()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # servers ------------------------------------------------------------------------------------

    def servers(self) -> list[Server]:
        """Every known server in order of priority."""
        table = schema.servers.c
        statement = select(table.name, table.ordinal, table.origin, table.spec)
        with self._read() as connection:
            rows = connection.execute(statement.order_by(table.ordinal, table.name)).all()
            return [records.server(*row) for row in rows]

    def put_server(self, server: Server) -> None:
        """Add a server, or replace the entry of that name; its catalog and approvals stay."""
        row = {
            "name": server.name,
            "ordinal": server.ordinal,
            "origin": server.origin.value,
            "spec": records.dump_spec(server.spec),
        }
        with self._write() as connection:
            connection.execute(upsert(insert(schema.servers), "name"), row)
            advance(connection, Counter.SERVERS)

    def remove_server(self, name: str) -> bool:
        """Forget a server, its catalog and its approvals. Returns whether it was known.

        Its assigned names stay, so that it gets them back when it returns.
        """
        with self._write() as connection:
            done = connection.execute(delete(schema.servers).where(schema.servers.c.name == name))
            if done.rowcount:
                advance(connection, Counter.SERVERS)
            return done.rowcount > 0

    # catalogs -----------------------------------------------------------------------------------

    def catalogs(self) -> dict[str, ServerCatalog]:
        """The last catalog of every server that was ever reached, by server name."""
        item = schema.items.c
        bodies: dict[tuple[str, str], list[bytes]] = {}
        with self._read() as connection:
            rows = connection.execute(select(schema.catalogs)).all()
            statement = select(item.server, item.kind, item.body)
            for server, kind, body in connection.execute(
                statement.order_by(item.server, item.kind, item.position)
            ):
                bodies.setdefault((server, kind), []).append(body)
            return {row.server: records.catalog(row._mapping, bodies) for row in rows}

    def put_catalog(self, catalog: ServerCatalog) -> None:
        """Replace what is known of a server's catalog, items byte for byte as given.

        :raises UnknownServer: the server is not in the store (it was removed meanwhile).
        """
        row = records.dump_catalog(catalog)
        bodies = [
            {"server": catalog.server, "kind": kind.value, "position": position, "body": bytes(body)}
            for kind in ItemKind
            for position, body in enumerate(catalog.items(kind))
        ]
        with self._write() as connection, _known(catalog.server, "its catalog"):
            connection.execute(delete(schema.items).where(schema.items.c.server == catalog.server))
            connection.execute(upsert(insert(schema.catalogs), "server"), row)
            if bodies:
                connection.execute(insert(schema.items), bodies)

    # approvals ----------------------------------------------------------------------------------

    def approvals(self) -> dict[str, Approval]:
        """Every approval by its key. Where two servers share a command, the later approval."""
        table = schema.approvals.c
        statement = select(table.key, table.server, table.detail, table.approved_at)
        with self._read() as connection:
            rows = connection.execute(statement.order_by(table.approved_at, table.server)).all()
        return {row.key: Approval(*row) for row in rows}

    def approve(self, approval: Approval) -> None:
        """Record a person's leave to start one exact command.

        :raises UnknownServer: the server is not in the store.
        """
        row = {
            "key": approval.key,
            "server": approval.server,
            "detail": approval.detail,
            "approved_at": approval.approved_at,
        }
        with self._write() as connection, _known(approval.server, "an approval"):
            connection.execute(upsert(insert(schema.approvals), "key", "server"), row)

    def revoke(self, server: str) -> int:
        """Take back every approval of a server. Returns how many there were."""
        with self._write() as connection:
            done = connection.execute(delete(schema.approvals).where(schema.approvals.c.server == server))
            return done.rowcount

    # names --------------------------------------------------------------------------------------

    def names(self, policy: str) -> list[AssignedName]:
        """The names given under a policy, in a stable order."""
        table = schema.names.c
        statement = select(table.kind, table.server, table.original, table.exposed)
        with self._read() as connection:
            rows = connection.execute(
                statement.where(table.policy == policy).order_by(table.kind, table.server, table.original)
            ).all()
            return [records.name(*row) for row in rows]

    def put_names(self, policy: str, names: Iterable[AssignedName]) -> list[AssignedName]:
        """Keep names for good. The first writer wins: a name once given is never changed or moved.

        Returns those that could not be kept as asked, because the item has another name already
        or the name belongs to another item; `names` then says what stands.
        """
        wanted = list(names)
        if not wanted:
            return []
        rows = [
            {
                "policy": policy,
                "kind": name.kind.value,
                "server": name.server,
                "original": name.original,
                "exposed": name.exposed,
            }
            for name in wanted
        ]
        table = schema.names.c
        statement = select(table.kind, table.server, table.original, table.exposed)
        statement = statement.where(
            table.policy == policy, table.server.in_(sorted({name.server for name in wanted}))
        )
        with self._write() as connection:
            connection.execute(insert(schema.names).on_conflict_do_nothing(), rows)
            standing = {records.name(*row) for row in connection.execute(statement)}
        return [name for name in wanted if name not in standing]

    # keys ---------------------------------------------------------------------------------------

    def key(self, name: str, nbytes: int = 32) -> bytes:
        """The secret of that name: random, created on first use and the same ever after.

        :raises StoreError: it exists with another length, or is new and the store is read-only.
        """
        statement = select(schema.keys.c.value).where(schema.keys.c.name == name)
        with self._read() as connection:
            value = connection.execute(statement).scalar_one_or_none()
        if value is None:
            row = {"name": name, "value": secrets.token_bytes(nbytes), "created_at": time.time()}
            with self._write() as connection:
                connection.execute(insert(schema.keys).on_conflict_do_nothing(), row)
                value = connection.execute(statement).scalar_one()
        if len(value) != nbytes:
            raise StoreError(
                f"The key {name!r} in {self.shown} has {len(value)} bytes, {nbytes} were asked for.",
                "Ask for the length it was made with, or use another name.",
            )
        return bytes(value)

    # the database -------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """How often each kind of record has changed, by the name of its `registry.counters.Counter`."""
        table = schema.counters.c
        with self._read() as connection:
            return {row.name: row.value for row in connection.execute(select(table.name, table.value))}

    def reading(self) -> AbstractContextManager[Connection]:
        """One read transaction, for the other record keepers of this package."""
        return self._read()

    def writing(self) -> AbstractContextManager[Connection]:
        """One write transaction, on disk when the block ends; nothing of it where the block raises."""
        return self._write()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._lock, self._translated("read"), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _write(self, **options: bool) -> Iterator[Connection]:
        if self.readonly:
            raise StoreError(
                f"The store {self.shown} is open for reading only.",
                "Let the running gateway make the change.",
            )
        writer = self._writer.execution_options(**options) if options else self._writer
        with self._lock, self._translated("written"), writer.begin() as connection:
            yield connection

    @contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            self._database.fail(verb, error.orig)
        except sqlite3.Error as error:
            self._database.fail(verb, error)
        except UnicodeEncodeError as error:
            raise StoreError(
                f"The store {self.shown} could not be {verb}: {error.object!a} is not valid Unicode.",
                "Correct the name where it comes from.",
            ) from None
        except records.Unreadable as error:
            raise StoreDamaged(
                f"The store {self.shown} holds a record that cannot be read: {error}.",
                self._database.salvage(),
            ) from error

    def _check_schema(self) -> None:
        with self._read() as connection:
            version = self._version(connection)
        if version == schema.HEAD:
            return
        if version is not None and version not in schema.REVISIONS:
            raise StoreNewer(
                f"The store {self.shown} has schema {version}, this version knows {schema.HEAD} at most.",
                "Use the newer version of toolyard that wrote it, or another --state-dir.",
            )
        if self.readonly:
            if version is None:
                raise StoreMissing(
                    f"There is nothing in the store {self.shown} yet: no gateway has used it.",
                    "Start one with `toolyard serve`, or name the right one.",
                )
            raise StoreOutdated(
                f"The store {self.shown} has schema {version}, this version reads {schema.HEAD}.",
                "Start the gateway once (toolyard serve): it upgrades the store.",
            )
        self._upgrade()

    def _upgrade(self) -> None:
        """Bring the schema to HEAD in one transaction; of several that try at once, all but one wait.

        A new database is built from the tables as they are now and marked with HEAD (Alembic
        cookbook, "Building an Up to Date Database from Scratch"): a first start stays quick.
        """
        with self._write(toolyard_upgrade=True) as connection:
            version = self._version(connection)
            if version is None:
                schema.metadata.create_all(connection)
                schema.alembic_version.create(connection, checkfirst=True)
                connection.execute(schema.alembic_version.insert(), {"version_num": schema.HEAD})
            elif version != schema.HEAD:
                migrate(connection)

    def _version(self, connection: Connection) -> str | None:
        """The schema's revision, or None for an empty database."""
        tables = self._engine.dialect.get_table_names(connection)
        if schema.alembic_version.name in tables:
            version: str | None = connection.execute(select(schema.alembic_version)).scalar_one_or_none()
            if version is not None:
                return version
        if tables:
            raise StoreDamaged(
                f"{self.shown} is a database, but not toolyard's: it has the tables "
                f"{', '.join(sorted(tables)[:5])} and no schema version.",
                "Move it away, or choose another place.",
            )
        return None


def migrate(connection: Connection) -> None:
    """Run the migrations that the database lacks, in the caller's transaction."""
    from alembic import command  # 0.3 s of CPU, needed once per schema change
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "registry:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def upsert(statement: Insert, *keys: str) -> Insert:
    """INSERT … ON CONFLICT (keys) DO UPDATE: never a REPLACE, which would delete what refers to the row."""
    others = {
        column.name: statement.excluded[column.name]
        for column in statement.table.columns
        if column.name not in keys
    }
    return statement.on_conflict_do_update(index_elements=list(keys), set_=others)


@contextmanager
def _known(server: str, what: str) -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise UnknownServer(
            f"The store knows no server {server!r}, so {what} cannot be kept.", "Add the server first."
        ) from None
