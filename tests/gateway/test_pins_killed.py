"""Killed at any moment of a sync or an approval, a gateway's registry loses nothing that was said to be done.

`tests/benchmarks/registry/kills.py` does the same to whole gateways, as often as it is told to.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from gateway.policy.pins import PinPolicy
from gateway.registering import Registrar
from registry.approvals import ApprovalRecords
from registry.definition import definition_hash
from registry.model import Origin, Server, ServerCatalog, ServerSpec, Transport
from registry.search.service import SearchService
from registry.store import Store
from registry.tools import ToolRecords

T = TypeVar("T")
TOOLS = 30


def definition(number: int, turn: int) -> bytes:
    return b'{"name":"t%d","description":"%d"}' % (number, turn)


def version(turn: int) -> dict[str, str]:
    return {f"t{i}": definition_hash(definition(i, turn)) for i in range(TOOLS)}


async def _stored(work: Callable[[], T]) -> T:
    return work()


async def work(path: Path, turn: int, said: Connection) -> None:
    """Sync and approve for ever, and say what was done."""
    store = Store.open(path)
    store.put_server(Server(ServerSpec("s", Transport.HTTP, url="http://x"), Origin.ADDED))
    registrar = Registrar(store, _stored, lambda name: PinPolicy.PIN)
    search = SearchService(store, path.parent / "search", model=None)
    search.open()
    registrar.listen(search.apply)
    await registrar.load(store.catalogs().values())
    for now in itertools.count(turn):
        tools = tuple(definition(number, now) for number in range(TOOLS))
        catalog = ServerCatalog("s", "handshake", "2025-11-25", tools=tools, synced_at=float(now))
        store.put_catalog(catalog)
        await registrar.sync(catalog)
        said.send(("synced", now))
        await registrar.approve("s", {ref.name: ref.hash for ref in registrar.tools.current("s")}, "me")
        said.send(("approved", now))


def worker(path: Path, turn: int, said: Connection) -> None:
    asyncio.run(work(path, turn, said))


def test_killed_at_any_moment_nothing_that_was_approved_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "toolyard.db"
    Store.open(path).close()
    chance = random.Random(11)
    processes = multiprocessing.get_context("forkserver")  # children of their own that need not import anew
    processes.set_forkserver_preload(["gateway.registering", "registry.search.service"])
    turn, approved = 0, -1
    for _ in range(20):
        heard, said = processes.Pipe(duplex=False)
        child = processes.Process(target=worker, args=(path, turn, said), daemon=True)
        child.start()
        said.close()
        done: list[tuple[str, int]] = [heard.recv()]
        # Not a wait for anything: the moment of the kill is meant to be any.
        time.sleep(chance.uniform(0, 0.08))
        child.kill()
        child.join(30)
        try:
            while True:
                done.append(heard.recv())
        except EOFError:
            heard.close()
        synced = max((number for what, number in done if what == "synced"), default=turn - 1)
        approved = max([approved, *(number for what, number in done if what == "approved")])
        with Store.open(path) as store:
            offered = {ref.name: ref.hash for ref in ToolRecords(store).current("s")}
            pins = {pin.ref.name: pin.ref.hash for pin in ApprovalRecords(store).pins()}
            # What was said to be done is there; the step in progress is there as a whole or not at all.
            assert offered in (version(synced), version(synced + 1))
            if approved >= 0:
                assert pins in (version(approved), version(synced))
                # The last approval may have been kept without being said.
                approved = synced if pins == version(synced) else approved
            # An index made of this store is sound, whatever became of the one that was killed.
            search = SearchService(store, tmp_path / "search", model=None)
            search.open()
            assert search.check().problems == ()
            assert search.check().tools == TOOLS
        turn = synced + 2
