"""Keeping the store in step with a server, which is the one source of truth for its tools.

ScaleMCP (Lumer et al., 2025): definitions are compared by hash, and only what differs is created,
updated or deleted; what did not change costs a hash and nothing else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from registry.definition import definition_hash
from registry.tools import ToolRecords, ToolRef


@dataclass(frozen=True, slots=True)
class Changed:
    """One tool that is new (``before`` is None), gone (``after`` is None), or different."""

    server: str
    name: str
    before: str | None
    after: str | None
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What one sync of one server found.

    :param problems: definitions that cannot be used, each as a sentence.
    :param generation: of the store's tools, as these changes made it; None where there were none.
    """

    server: str
    created: tuple[Changed, ...] = ()
    updated: tuple[Changed, ...] = ()
    deleted: tuple[Changed, ...] = ()
    unchanged: int = 0
    problems: tuple[str, ...] = ()
    seconds: float = 0.0
    generation: int | None = None

    @property
    def changes(self) -> tuple[Changed, ...]:
        return self.created + self.updated + self.deleted


@dataclass(frozen=True, slots=True)
class Offer:
    """What a server lists: (definition hash, definition) by tool name.

    :param problems: definitions that cannot be used, each as a sentence.
    """

    tools: Mapping[str, tuple[str, bytes]]
    problems: tuple[str, ...] = ()


class _Named(msgspec.Struct):
    name: str


_name_of = msgspec.json.Decoder(_Named).decode


def sync_server(
    records: ToolRecords, server: str, definitions: Iterable[bytes], *, now: float | None = None
) -> SyncReport:
    """Make the store's tools of a server those that the server lists now.

    A definition that cannot be read is left out and named in ``problems``; of two with one name the
    first counts. All changes are one transaction, so a kill leaves the old state or the new one.

    :raises StoreError: the store could not be read or written; nothing was changed.
    """
    return sync_offer(records, server, read_offer(definitions), now=now)


def sync_offer(records: ToolRecords, server: str, offer: Offer, *, now: float | None = None) -> SyncReport:
    """`sync_server` for definitions that were read already: who needs their hashes too reads them once.

    :raises StoreError: the store could not be read or written; nothing was changed.
    """
    started = time.perf_counter()
    offered = offer.tools
    known = {ref.name: ref.hash for ref in records.current(server)}
    created: list[Changed] = []
    updated: list[Changed] = []
    for name, (digest, body) in offered.items():
        before = known.pop(name, None)
        if before is None:
            created.append(Changed(server, name, None, digest, body))
        elif before != digest:
            updated.append(Changed(server, name, before, digest, body))
    deleted = [Changed(server, name, before, None) for name, before in known.items()]
    put = [
        (ToolRef(server, change.name, change.after), change.body)
        for change in (*created, *updated)
        if change.after is not None and change.body is not None
    ]
    generation = records.change(
        put, [(server, change.name) for change in deleted], now=time.time() if now is None else now
    )
    return SyncReport(
        server=server,
        created=tuple(created),
        updated=tuple(updated),
        deleted=tuple(deleted),
        unchanged=len(offered) - len(created) - len(updated),
        problems=offer.problems,
        seconds=time.perf_counter() - started,
        generation=generation,
    )


def read_offer(definitions: Iterable[bytes]) -> Offer:
    """Read the definitions a server lists. One that cannot be read is left out and named."""
    offered: dict[str, tuple[str, bytes]] = {}
    problems: list[str] = []
    for place, data in enumerate(definitions):
        try:
            name, digest = _name_of(data).name, definition_hash(data)
            name.encode()
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            problems.append(f"The tool at place {place} is left out: it cannot be read ({error}).")
            continue
        if name in offered:
            problems.append(f"The tool {json.dumps(name)} is listed twice; the first one counts.")
        else:
            offered[name] = (digest, bytes(data))
    return Offer(offered, tuple(problems))
