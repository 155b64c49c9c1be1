"""A hundred random faults beside steady load on healthy servers: errors, latency and memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client import Session, WrongAnswer
from fault_parts import RemoteServer, entry
from processes import TOKEN, Gateway, gateway, rss_mib
from table import Row

FAULTS = 100
CALLERS = 4
PAUSE = 0.02
SETTLE = 10.0


@dataclass
class Load:
    """What callers of healthy servers saw."""

    milliseconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        ordered = sorted(self.milliseconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def steady(url: str, seconds: float, load: Load) -> None:
    """Callers of two healthy servers, each calling fifty times a second at most."""
    end = time.monotonic() + seconds

    async def caller(server: str, number: int) -> None:
        async with Session(url, f"{server}__", TOKEN) as session:
            turn = 0
            while time.monotonic() < end:
                turn += 1
                began = time.perf_counter()
                try:
                    async with asyncio.timeout(20):
                        await session.call("echo", {"text": f"{server} {number} {turn}"})
                except (WrongAnswer, TimeoutError, OSError) as error:
                    load.errors.append(f"{type(error).__name__}: {error}")
                load.milliseconds.append((time.perf_counter() - began) * 1000)
                await asyncio.sleep(PAUSE)

    await asyncio.gather(*(caller(s, n) for s in ("steady", "far") for n in range(CALLERS)))


@contextlib.contextmanager
def kept(server: RemoteServer) -> Iterator[None]:
    """Start a server again, half a second after it has ended."""
    leave = threading.Event()

    def keep() -> None:
        while not leave.wait(0.5):
            if server.process is not None and server.process.poll() is not None:
                server.kill()
                server.start()

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        leave.set()
        keeper.join()
        server.kill()


async def _phases(ours: Gateway, seconds: float, seed: int) -> tuple[Load, Load, float, float, Any]:
    warm, calm, stormy = Load(), Load(), Load()
    await steady(ours.url, 3.0, warm)
    await steady(ours.url, max(10.0, seconds / 4), calm)
    before = rss_mib(ours.pid)
    injector = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("injector.py")),
        ours.url,
        str(seconds),
        str(FAULTS),
        str(seed),
        stdout=asyncio.subprocess.PIPE,
    )
    await steady(ours.url, seconds, stormy)
    output, _ = await injector.communicate()
    await asyncio.sleep(SETTLE)
    await steady(ours.url, 3.0, warm)
    return calm, stormy, before, rss_mib(ours.pid), json.loads(output)


def chaos(root: Path, seconds: float, seed: int = 7) -> list[Row]:
    """The measure. Starts and ends everything it needs."""
    far, bad = RemoteServer(), RemoteServer()
    far.start()
    bad.start()
    servers = {
        "steady": entry(),
        "far": {"url": far.url},
        "child": entry(timeout=5),
        "remote": {"url": bad.url, "timeout": 5},
        "dns": {"url": "http://no-such-host.invalid/mcp"},
        "refused": {"url": "http://127.0.0.1:1/mcp"},
    }
    with kept(far), kept(bad), gateway(root / "chaos", servers) as ours:
        calm, stormy, before, after, faults = asyncio.run(_phases(ours, seconds, seed))
    injected = sum(faults["outcomes"].values())
    print(f"  … {injected} faults: {faults['modes']}", file=sys.stderr)
    print(f"  … their callers got: {faults['outcomes']}", file=sys.stderr)
    for error in stormy.errors[:5]:
        print(f"  … {error}", file=sys.stderr)
    ratio = stormy.percentile(0.99) / calm.percentile(0.99)
    calls = len(stormy.milliseconds)
    return [
        Row(
            f"{injected} faults in {seconds:g} s: errors in {calls:,} healthy calls",
            len(stormy.errors),
            "",
            "0",
            not stormy.errors,
        ),
        Row("p99 of healthy calls, undisturbed", calm.percentile(0.99), "ms"),
        Row("p99 of healthy calls, under faults", stormy.percentile(0.99), "ms"),
        Row("… as a multiple", ratio, "x", "<= 3", ratio <= 3),
        Row("slowest healthy call under faults", max(stormy.milliseconds), "ms"),
        Row("callers of faults without an answer", faults["outcomes"].get("no answer", 0), ""),
        Row("gateway memory before", before, "MiB"),
        Row("gateway memory after", after, "MiB", "<= 1.2 x", after <= before * 1.2),
    ]
