"""The databases a store can live in, as far as they differ."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn, Protocol

from sqlalchemy import Engine


class Database(Protocol):
    """What a store asks of the kind of database it lives in."""

    place: str
    """Where it is: the path of a file, or a URL that `database` takes."""
    shown: str
    """The same for messages: without a password."""
    shared: bool
    """Whether several gateways may write it, each unheard by the others."""

    def prepare(self, *, readonly: bool) -> None:
        """Make sure that there is a place to keep records in. Raises StoreError."""

    def engine(self, *, readonly: bool) -> Engine:
        """Connections whose write transactions (``toolyard_write``) come one after another."""

    def fail(self, verb: str, error: BaseException | None) -> NoReturn:
        """Raise the StoreError for a fault of the database's, met when the store was ``verb``."""

    def salvage(self) -> str:
        """What a person can do where the records themselves are damaged."""


def is_url(place: str) -> bool:
    """Whether a store's place is a Postgres URL rather than a file."""
    return place.startswith(("postgresql://", "postgresql+psycopg://"))


def database(place: str | os.PathLike[str]) -> Database:
    """The database at a path (SQLite) or a ``postgresql://`` URL. Raises StoreError."""
    if isinstance(place, str) and is_url(place):
        from registry.postgres import Postgres

        return Postgres(place)
    from registry.sqlite import SQLite

    return SQLite(Path(os.path.abspath(place)))
