"""Killed at any moment of a sync or an approval, a gateway's registry loses nothing that was said to be done."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from registry.approvals import ApprovalRecords
from registry.definition import definition_hash
from registry.search.service import SearchService
from registry.store import Store
from registry.tools import ToolRecords

TOOLS = 30
WORKER = """
import asyncio, sys, itertools
from gateway.policy.pins import PinPolicy
from gateway.registering import Registrar
from registry.model import Origin, Server, ServerCatalog, ServerSpec, Transport
from registry.search.service import SearchService
from registry.store import Store
from pathlib import Path

async def work():
    store = Store.open(sys.argv[1])
    store.put_server(Server(ServerSpec("s", Transport.HTTP, url="http://x"), Origin.ADDED))
    async def stored(work):
        return work()
    registrar = Registrar(store, stored, lambda name: PinPolicy.PIN)
    search = SearchService(store, Path(sys.argv[1]).parent / "search", model=None)
    search.open()
    registrar.listen(search.apply)
    await registrar.load(store.catalogs().values())
    for turn in itertools.count(int(sys.argv[2])):
        tools = tuple(b'{"name":"t%d","description":"%d"}' % (i, turn) for i in range(int(sys.argv[3])))
        catalog = ServerCatalog("s", "handshake", "2025-11-25", tools=tools, synced_at=float(turn))
        store.put_catalog(catalog)
        await registrar.sync(catalog)
        print("synced", turn, flush=True)
        hashes = {ref.name: ref.hash for ref in registrar.tools.current("s")}
        await registrar.approve("s", hashes, "me")
        print("approved", turn, flush=True)

asyncio.run(work())
"""


def version(turn: int) -> dict[str, str]:
    return {f"t{i}": definition_hash(b'{"name":"t%d","description":"%d"}' % (i, turn)) for i in range(TOOLS)}


def test_killed_twenty_times(tmp_path: Path) -> None:
    path = tmp_path / "toolyard.db"
    Store.open(path).close()
    chance = random.Random(11)
    turn, approved = 0, -1
    for _ in range(20):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), str(turn), str(TOOLS)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdout is not None
        said = [worker.stdout.readline()]
        # Not a wait for anything: the moment of the kill is meant to be any.
        time.sleep(chance.uniform(0, 0.08))
        worker.send_signal(signal.SIGKILL)
        said += worker.stdout.read().splitlines()
        worker.wait(timeout=30)
        worker.stdout.close()
        done = [line.split() for line in said if len(line.split()) == 2]
        synced = max((int(number) for what, number in done if what == "synced"), default=turn - 1)
        approved = max([approved, *(int(number) for what, number in done if what == "approved")])
        with Store.open(path) as store:
            records = ToolRecords(store)
            offered = {ref.name: ref.hash for ref in records.current("s")}
            pins = {pin.ref.name: pin.ref.hash for pin in ApprovalRecords(store).pins()}
            # What was said to be done is there; the step in progress is there as a whole or not at all.
            assert offered in (version(synced), version(synced + 1))
            if approved >= 0:
                assert pins in (
                    version(approved),
                    version(approved + 1),
                    version(synced),
                    version(synced + 1),
                )
                assert pins != version(approved - 1)
            # An index made of this store is sound, whatever became of the one that was killed.
            search = SearchService(store, tmp_path / "search", model=None)
            search.open()
            assert search.check().problems == ()
            assert search.check().tools == TOOLS
        turn = synced + 2
