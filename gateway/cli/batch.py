"""``search --batch``: many requests from a file, ranked into a file; for measurement."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from gateway.admin.client import NotRunning
from gateway.cli import offline, render
from gateway.cli.shared import client
from gateway.cli.stored import reading
from gateway.cli.waiting import Waiting
from gateway.errors import StateError
from gateway.paths import StateDir
from registry.exchange import search_batch
from registry.search.service import SearchService


def batch(queries: Path, out: Path, limit: int, state_dir: Path | None) -> int:
    """Answer ``{"id", "query"}`` lines with ``{"query_id", "ranked": [ids as imported]}`` lines.

    Where no gateway runs, tools that have no vector are embedded first. Returns how many were answered.

    :raises RegistryError: a line has no query, or there is no store.
    :raises GatewayError: a file cannot be read or written.
    """
    with ExitStack() as stack:
        waiting = stack.enter_context(Waiting("preparing search"))
        try:
            client(state_dir).status()
            store = stack.enter_context(reading(state_dir))
        except NotRunning:
            store = stack.enter_context(offline.writing(state_dir))
        service = SearchService(store, StateDir.at(state_dir).search, say=render.note)
        service.open()
        if not store.readonly:
            service.prepare(
                lambda done, total: waiting.tell(
                    {"progress": done, "total": total, "message": "embedding tools"}
                )
            )
        try:
            with out.open("w", encoding="utf-8") as run:
                return search_batch(
                    service,
                    queries,
                    run,
                    limit=limit,
                    progress=lambda done: waiting.tell({"progress": done, "message": "answering requests"}),
                )
        except OSError as error:
            name = error.filename or out
            raise StateError(f"{name} cannot be used: {error.strerror}.", "Name another file.") from None
