"""How long the registry takes to be in step: 10,000 tools at first sight, unchanged, and with 100 changed.

python tests/benchmarks/registry/sync.py [--tools N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gateway.policy.pins import PinPolicy
from gateway.registering import Registrar
from registry.model import Origin, Server, ServerCatalog, ServerSpec, Transport
from registry.store import Store

T = TypeVar("T")


async def _stored(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)


def catalog(tools: int, changed: int, moment: float) -> ServerCatalog:
    """A server's catalog of so many tools, so many of which differ from the plain ones."""
    schema = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(5)}}
    made = (
        {
            "name": f"tool_{i}",
            "description": f"Does thing {i}{' anew' * (i < changed)}. " * 8,
            "inputSchema": schema,
        }
        for i in range(tools)
    )
    items = tuple(json.dumps(item).encode() for item in made)
    return ServerCatalog("s", "handshake", "2025-11-25", tools=items, synced_at=moment)


async def measure(tools: int) -> None:
    """Print a line for each case."""
    with tempfile.TemporaryDirectory() as directory, Store.open(Path(directory) / "toolyard.db") as store:
        store.put_server(Server(ServerSpec("s", Transport.HTTP, url="http://x"), Origin.ADDED))
        registrar = Registrar(store, _stored, lambda name: PinPolicy.PIN)
        cases = (("first sight", 0), ("unchanged", 0), ("unchanged again", 0), ("100 changed", 100))
        for number, (name, changed) in enumerate(cases):
            seen = catalog(tools, changed, float(number))
            began = time.perf_counter()
            report = await registrar.sync(seen)
            print(
                f"{name:<16} {time.perf_counter() - began:6.2f} s  {len(report.created)} new, "
                f"{len(report.updated)} changed, {report.unchanged} unchanged"
            )
        again = Registrar(store, _stored, lambda name: PinPolicy.PIN)
        began = time.perf_counter()
        await again.load([catalog(tools, 100, 9.0)])
        print(f"{'a start':<16} {time.perf_counter() - began:6.2f} s")


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tools", type=int, default=10_000)
    asyncio.run(measure(parser.parse_args().tools))
    return 0


if __name__ == "__main__":
    sys.exit(main())
