"""What lets a client go on after a restart: sessions' wishes and ends, and streams that wait for readers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from registry import schema
from registry.store import Store, upsert

MAX_SESSIONS: Final = 100_000
MAX_STREAMS: Final = 10_000
MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
"""Bounds of what is kept; what expires soonest goes first."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What is known of a session beyond what its id says.

    :param expires: seconds since the epoch; its id is worth nothing after that.
    :param ended: its client ended it, although its id has not expired.
    :param private: servers of which a process kept state for this session alone.
    """

    ident: str
    expires: float
    ended: bool = False
    log_level: int = 0
    subscriptions: tuple[str, ...] = ()
    private: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """An event stream whose reader is away.

    :param events: position and message of each; positions only grow.
    :param done: the last of them ends the stream.
    """

    ident: str
    session: str
    expires: float
    done: bool
    events: tuple[tuple[int, bytes], ...]


class ContinuityRecords:
    """Sessions and streams in a store. Every method is one transaction; all raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def session(self, ident: str) -> SessionRecord | None:
        """What is known of a session, or None where it never asked for anything."""
        table = schema.sessions
        with self._store.reading() as connection:
            row = connection.execute(select(table).where(table.c.ident == ident)).one_or_none()
        if row is None:
            return None
        return SessionRecord(
            row.ident,
            row.expires,
            bool(row.ended),
            row.log_level,
            tuple(json.loads(row.subscriptions)),
            tuple(json.loads(row.private)),
        )

    def stream(self, ident: str, session: str) -> StreamRecord | None:
        """A stream of that session's, with all its events."""
        table, event = schema.streams, schema.stream_events.c
        with self._store.reading() as connection:
            row = connection.execute(
                select(table).where(table.c.ident == ident, table.c.session == session)
            ).one_or_none()
            if row is None:
                return None
            events = connection.execute(
                select(event.position, event.body).where(event.stream == ident).order_by(event.position)
            ).all()
        found = tuple((position, bytes(body)) for position, body in events)
        return StreamRecord(row.ident, row.session, row.expires, bool(row.done), found)

    def save(
        self, sessions: Iterable[SessionRecord], streams: Iterable[StreamRecord], gone: Iterable[str]
    ) -> None:
        """Write a group. Of a stream already kept, the new events are added to the others.

        :param gone: streams that nobody will ask for any more.
        """
        rows = [_session_row(record) for record in sessions]
        kept, events = [], []
        for stream in streams:
            kept.append(
                {
                    "ident": stream.ident,
                    "session": stream.session,
                    "expires": stream.expires,
                    "done": int(stream.done),
                }
            )
            events += [{"stream": stream.ident, "position": at, "body": body} for at, body in stream.events]
        leaving = list(gone)
        with self._store.writing() as connection:
            if rows:
                connection.execute(upsert(insert(schema.sessions), "ident"), rows)
            if kept:
                connection.execute(upsert(insert(schema.streams), "ident"), kept)
            if events:
                connection.execute(upsert(insert(schema.stream_events), "stream", "position"), events)
            for start in range(0, len(leaving), 500):
                part = leaving[start : start + 500]
                connection.execute(delete(schema.streams).where(schema.streams.c.ident.in_(part)))

    def prune(self, now: float) -> None:
        """Remove what has expired, and what is above the bounds."""
        with self._store.writing() as connection:
            for table in (schema.sessions, schema.streams):
                connection.execute(delete(table).where(table.c.expires < now))
            _keep_latest(connection, schema.sessions, MAX_SESSIONS)
            _keep_latest(connection, schema.streams, MAX_STREAMS)
            _bound_bytes(connection)


def _keep_latest(connection: Connection, table: object, most: int) -> None:
    assert isinstance(table, type(schema.sessions))
    past = select(table.c.ident).order_by(table.c.expires.desc()).limit(-1).offset(most)
    connection.execute(delete(table).where(table.c.ident.in_(past)))


def _bound_bytes(connection: Connection) -> None:
    event, stream = schema.stream_events.c, schema.streams
    size = func.sum(func.length(event.body))
    rows = connection.execute(
        select(stream.c.ident, size)
        .join(schema.stream_events, event.stream == stream.c.ident)
        .group_by(stream.c.ident)
        .order_by(stream.c.expires.desc())
    )
    total, past = 0, []
    for ident, held in rows:
        total += held
        if total > MAX_EVENT_BYTES:
            past.append(ident)
    if past:
        connection.execute(delete(stream).where(stream.c.ident.in_(past)))


def _session_row(record: SessionRecord) -> dict[str, object]:
    return {
        "ident": record.ident,
        "expires": record.expires,
        "ended": int(record.ended),
        "log_level": record.log_level,
        "subscriptions": json.dumps(record.subscriptions),
        "private": json.dumps(record.private),
    }
