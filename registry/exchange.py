"""Tools and runs as JSON lines: for measurement, and for catalogs that have no server behind them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TextIO

from registry.definition import definition_hash
from registry.errors import RegistryError
from registry.search.service import SearchService
from registry.tools import ToolRecords, ToolRef

IMPORTED_ID: Final = "toolyard/imported-id"
"""Key in a definition's ``_meta`` under which an imported tool keeps the id it came with."""


class BadLine(RegistryError):
    """A line of a file is not what the command reads."""

    kind = "bad_line"


def import_tools(records: ToolRecords, path: Path) -> int:
    """Add the tools of a file, ``{"id", "server", "name", "description", "input_schema"}`` a line.

    Nothing is started and nothing fetched. All lines or none are taken. Returns how many.

    :raises BadLine: a line is no such object, or names a tool that an earlier line did.
    :raises OSError: the file cannot be read.
    """
    put: dict[tuple[str, str], tuple[ToolRef, bytes]] = {}
    for place, line in _lines(path):
        server, name, digest = line.get("server") or "", line.get("name"), line.get("id")
        if not (isinstance(server, str) and isinstance(name, str) and isinstance(digest, str)):
            raise BadLine(f"{path}:{place} has no 'id', 'name' and 'server' that are strings.")
        definition = {
            "name": name,
            "description": line.get("description") or "",
            "inputSchema": line.get("input_schema") or {"type": "object"},
            "_meta": {IMPORTED_ID: digest},
        }
        if (server, name) in put:
            raise BadLine(
                f"{path}:{place} names the tool {server}/{name} a second time.", "Rename one of them."
            )
        body = json.dumps(definition).encode()
        put[server, name] = ToolRef(server, name, definition_hash(body)), body
    known = {(ref.server, ref.name): ref.hash for ref in records.current()}
    fresh = [item for key, item in put.items() if known.get(key) != item[0].hash]
    records.change(fresh, now=time.time())
    return len(put)


def imported_ids(records: ToolRecords) -> dict[tuple[str, str], str]:
    """The id of each tool: the one it was imported with, else ``server/name``."""
    ids: dict[tuple[str, str], str] = {}
    for ref, body in records.definitions():
        meta = json.loads(body).get("_meta")
        given = meta.get(IMPORTED_ID) if isinstance(meta, dict) else None
        ids[ref.server, ref.name] = given if isinstance(given, str) else f"{ref.server}/{ref.name}"
    return ids


def search_batch(
    service: SearchService,
    queries: Path,
    out: TextIO,
    *,
    limit: int = 20,
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Answer ``{"id", "query"}`` lines with ``{"query_id", "ranked": [ids]}`` lines. Returns how many.

    Near-duplicates are listed, each by itself: a run says where every tool stands.

    :raises BadLine: a line has no query.
    """
    ids = imported_ids(service.records)
    done = 0
    for place, line in _lines(queries):
        query = line.get("query")
        if not isinstance(query, str):
            raise BadLine(f"{queries}:{place} has no 'query' that is a string.")
        found = service.find(query, limit, collapse=False)
        ranked = [ids[hit.ref.server, hit.ref.name] for hit in found.hits]
        out.write(json.dumps({"query_id": line.get("id"), "ranked": ranked}, ensure_ascii=False) + "\n")
        done += 1
        progress(done)
    return done


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for place, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise BadLine(f"{path}:{place} is not JSON: {error}") from error
            if not isinstance(line, dict):
                raise BadLine(f"{path}:{place} is no JSON object.")
            yield place, line
