"""Postgres below the store, for gateways that share one: the same statements, one writer at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.dialects.sqlite.dml import OnConflictDoNothing, OnConflictDoUpdate
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles

from registry.errors import StoreBusy, StoreError

CONNECT_TIMEOUT: Final = 15
"""Seconds to wait for the database to take a connection."""
LOCK_TIMEOUT: Final = 5.0
"""Seconds to wait for another gateway's write."""
STATEMENT_TIMEOUT: Final = 60.0
UPGRADE_TIMEOUT: Final = 600.0
"""Seconds that a gateway's start waits for another that is upgrading the schema, and that its own may take."""
_LOCK: Final = 0x746F6F6C
"""The advisory lock that writers take: "tool"."""


def _on_conflict(element: Any, compiler: Any, **more: Any) -> Any:
    # The store's upserts are spelled with SQLite's own construct, which Postgres writes the same
    # way; it only asks besides whether the target is a named constraint.
    element.constraint_target = None
    return getattr(compiler, f"visit_{element.__visit_name__}")(element, **more)


for _element in (OnConflictDoNothing, OnConflictDoUpdate):
    compiles(_element, "postgresql")(_on_conflict)


class Postgres:
    """A database of a Postgres server (14 or later).

    Write transactions take one advisory lock, so that they come one after another as SQLite's do:
    they are few and short, since statistics are committed in groups.
    """

    shared = True

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            raise StoreError(
                "The store's URL is no database URL.", "Write it as postgresql://user@host/database."
            ) from None
        self.place = url
        self.shown = parsed.set(drivername="postgresql").render_as_string(hide_password=True)
        self._url = parsed.set(drivername="postgresql+psycopg")

    def prepare(self, *, readonly: bool) -> None:
        """Nothing to make: the database was made by whoever runs the server."""

    def engine(self, *, readonly: bool) -> Engine:
        """One connection, checked before each use: the server may have been restarted meanwhile.

        :raises StoreError: the driver is not installed.
        """
        settings = {
            "lock_timeout": int(LOCK_TIMEOUT * 1000),
            "statement_timeout": int(STATEMENT_TIMEOUT * 1000),
            "default_transaction_read_only": "on" if readonly else "off",
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        try:
            engine = create_engine(
                self._url,
                pool_size=1,
                max_overflow=0,
                pool_pre_ping=True,
                connect_args={"connect_timeout": CONNECT_TIMEOUT, "options": options},
            )
        except ModuleNotFoundError as error:
            raise StoreError(
                f"The store {self.shown} needs a driver that is not installed ({error.name}).",
                "Install it: pip install 'toolyard[postgres]'.",
            ) from None
        event.listen(engine, "begin", _begin)
        return engine

    def fail(self, verb: str, error: BaseException | None) -> NoReturn:
        """Raise the StoreError for a fault of the database's, by its SQLSTATE (Postgres, Appendix A)."""
        state = getattr(error, "sqlstate", None) or ""
        lines = str(error).strip().splitlines()
        detail = (lines[0] if lines else type(error).__name__).rstrip(".")
        if state == "55P03":
            raise StoreBusy(
                f"The store {self.shown} could not be {verb}: another gateway has held it for "
                f"{LOCK_TIMEOUT:g} s.",
                "Try again; pg_stat_activity shows who holds it.",
            ) from error
        advice = next((text for prefix, text in _ADVICE.items() if state.startswith(prefix)), None)
        if not state:
            advice = "Check that the server runs, and the host, user and password of the URL."
        raise StoreError(f"The store {self.shown} could not be {verb}: {detail}.", advice) from error

    def salvage(self) -> str:
        """What a person can do about damaged records."""
        return "Restore the database from a backup, or point the gateways at a new, empty one."


_ADVICE: Final[Mapping[str, str]] = {
    "25006": "The store was opened for reading, or the server is a standby: use the primary.",
    "28": "Check the user and the password of the URL.",
    "3D000": "Create the database first: createdb.",
    "42501": "Grant the user of the URL the right to create and change tables in that database.",
    "53": "Free what the server is short of (disk, memory, connections); nothing that was stored is lost.",
}


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("toolyard_upgrade", False):
        for name in ("lock_timeout", "statement_timeout"):
            connection.exec_driver_sql(f"SET LOCAL {name} = '{UPGRADE_TIMEOUT:.0f}s'")
    if options.get("toolyard_write", False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
