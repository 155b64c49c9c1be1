"""Measure the gateway against its own upstream server, on this machine, over loopback.

    python tests/benchmarks/gateway/run.py [--rounds N] [--seconds S] [--only NAME ...] [--json]

What is compared is measured alternately, in rounds whose order rotates; shown are medians, and the
median of the ratios within each round.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from client import Session, WrongAnswer
from processes import TOKEN, Gateway, cpu_seconds, gateway, peers, rss_mib, stdio_peer

WARM_UP = 50
SERVERS, TOOLS_EACH = 10, 100
SETTLE = 3.0
WAIT = 60.0


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure, what it is compared with, and the bar it should reach."""

    measure: str
    value: float
    unit: str
    direct: float | None = None
    ratio: float | None = None
    bar: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Target:
    """An endpoint: the server itself, or the gateway in front of it."""

    name: str
    url: str
    prefix: str = ""
    token: str | None = None
    pid: int | None = None

    def session(self) -> Session:
        return Session(self.url, self.prefix, self.token)


@dataclass(frozen=True)
class Load:
    """What one run of callers has shown."""

    rate: float
    p50_ms: float
    cpu_ms: float | None


async def load(target: Target, callers: int, seconds: float) -> Load:
    """So many callers, each with a session and a connection of its own, calling echo all the time."""
    times: list[float] = []
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(target.session()) for _ in range(callers)]
        arguments = {"text": "hello gateway"}
        for _ in range(max(1, WARM_UP // callers)):
            await asyncio.gather(*(session.call("echo", arguments) for session in sessions))

        async def caller(session: Session, end: float) -> None:
            while (begun := time.perf_counter()) < end:
                await session.call("echo", arguments)
                times.append(time.perf_counter() - begun)

        used = cpu_seconds(target.pid) if target.pid else 0.0
        started = time.perf_counter()
        async with asyncio.timeout(seconds + WAIT):
            await asyncio.gather(*(caller(session, started + seconds) for session in sessions))
        wall = time.perf_counter() - started
        cpu = (cpu_seconds(target.pid) - used) * 1000 / len(times) if target.pid else None
    return Load(len(times) / wall, statistics.median(times) * 1000, cpu)


async def timed(target: Target, count: int, tool: str, kib: int) -> float:
    """Median milliseconds of a call with a large answer."""
    times = []
    async with target.session() as session:
        for _ in range(count + 1):
            begun = time.perf_counter()
            await session.call(tool, {"kib": kib}, size=kib * 1024)
            times.append(time.perf_counter() - begun)
    return statistics.median(times[1:]) * 1000


async def listing(target: Target, count: int) -> float:
    """Median milliseconds of a complete tools/list, once it is complete."""
    times = []
    async with asyncio.timeout(WAIT), target.session() as session:
        while True:
            begun = time.perf_counter()
            tools, cursor = 0, None
            while True:
                page = await session.request("tools/list", {"cursor": cursor} if cursor else {})
                tools += len(page["tools"])
                if not (cursor := page.get("nextCursor")):
                    break
            elapsed = time.perf_counter() - begun
            if tools < SERVERS * TOOLS_EACH:
                await asyncio.sleep(0.1)  # some server has not been listed yet
                continue
            times.append(elapsed)
            if len(times) > count:
                return statistics.median(times[1:]) * 1000


async def first_call(target: Target) -> None:
    """Ask until a call is answered."""
    deadline = time.monotonic() + WAIT
    while True:
        try:
            async with target.session() as session:
                await session.call("echo", {"text": "first"})
            return
        except (OSError, WrongAnswer):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.01)


class Benchmark:
    """The measures, in one run."""

    def __init__(self, rounds: int, seconds: float, root: Path) -> None:
        self._rounds = rounds
        self._seconds = seconds
        self._root = root

    def _rotated(self, targets: list[Target]) -> Iterator[Target]:
        for number in range(self._rounds):
            turn = number % len(targets)
            yield from targets[turn:] + targets[:turn]

    def _note(self, text: str) -> None:
        print(f"  … {text}", file=sys.stderr, flush=True)

    def calls(self) -> list[Row]:
        """Latency, CPU per call, throughput and a large answer, each against the server itself."""
        with ExitStack() as stack:
            (url,) = stack.enter_context(peers(1, 2))
            servers = {"web": {"url": url}, "child": stdio_peer()}
            ours = stack.enter_context(gateway(self._root / "calls", servers))
            direct = Target("direct", url)
            web = Target("HTTP upstream", ours.url, "web__", TOKEN, ours.pid)
            child = Target("stdio upstream", ours.url, "child__", TOKEN, ours.pid)
            for target in (direct, web, child):
                asyncio.run(first_call(target))
            rows = self._one_caller(direct, web, child)
            for callers in (16, 64):
                rows.append(self._throughput(direct, web, callers))
            rows.append(self._large(direct, web))
            return rows

    def _one_caller(self, direct: Target, web: Target, child: Target) -> list[Row]:
        found: dict[str, list[Load]] = {target.name: [] for target in (direct, web, child)}
        for target in self._rotated([direct, web, child]):
            self._note(f"one caller, {target.name}")
            found[target.name].append(asyncio.run(load(target, 1, self._seconds)))
        rows = []
        for target in (web, child):
            cpu = statistics.median(run.cpu_ms or 0.0 for run in found[target.name])
            rows.append(
                Row(f"gateway CPU per call, {target.name}", cpu, "ms", bar="<= 0.7 ms", met=cpu <= 0.7)
            )
        for target in (web, child):
            base, value, ratio = self._against(found[direct.name], found[target.name], lambda run: run.p50_ms)
            bar = ("<= 1.8 x", ratio <= 1.8) if target is web else ("", None)
            rows.append(Row(f"p50 latency, one caller, {target.name}", value, "ms", base, ratio, *bar))
        return rows

    def _throughput(self, direct: Target, web: Target, callers: int) -> Row:
        found: dict[str, list[Load]] = {direct.name: [], web.name: []}
        for target in self._rotated([direct, web]):
            self._note(f"{callers} callers, {target.name}")
            found[target.name].append(asyncio.run(load(target, callers, self._seconds)))
        base, value, ratio = self._against(found[direct.name], found[web.name], lambda run: run.rate)
        return Row(f"calls/s, {callers} callers", value, "/s", base, ratio, ">= 0.8 x", ratio >= 0.8)

    def _large(self, direct: Target, web: Target) -> Row:
        found: dict[str, list[Load]] = {direct.name: [], web.name: []}
        for target in self._rotated([direct, web]):
            self._note(f"1 MiB answers, {target.name}")
            found[target.name].append(Load(0, asyncio.run(timed(target, 6, "big", 1024)), None))
        base, value, ratio = self._against(found[direct.name], found[web.name], lambda run: run.p50_ms)
        return Row("1 MiB answer", value, "ms", base, ratio, "<= 1.5 x", ratio <= 1.5)

    @staticmethod
    def _against(
        base: list[Load], ours: list[Load], figure: Callable[[Load], float]
    ) -> tuple[float, float, float]:
        """Both medians, and the median of the ratios of runs of the same round."""
        ratios = [figure(b) / figure(a) for a, b in zip(base, ours, strict=True)]
        return (
            statistics.median(map(figure, base)),
            statistics.median(map(figure, ours)),
            statistics.median(ratios),
        )

    def many(self) -> list[Row]:
        """Ten servers with a hundred tools each: the list, memory at rest, and starting up."""
        lists, memory, started = [], [], []
        with peers(SERVERS, TOOLS_EACH) as urls:
            servers = {f"s{number}": {"url": url} for number, url in enumerate(urls)}
            for url in urls:
                asyncio.run(first_call(Target("direct", url)))
            for number in range(self._rounds):
                self._note(f"ten servers, start {number + 1}")
                with gateway(self._root / f"many{number}", servers) as ours:
                    target = self._first(ours)
                    started.append(cpu_seconds(ours.pid))
                    lists.append(asyncio.run(listing(target, 7)))
                    time.sleep(SETTLE)  # at rest means: nobody has asked for anything for a while
                    memory.append(rss_mib(ours.pid))
        listed, rss, cold = map(statistics.median, (lists, memory, started))
        count = SERVERS * TOOLS_EACH
        return [
            Row(
                f"complete tools/list, {count} tools, {SERVERS} servers",
                listed,
                "ms",
                bar="<= 15 ms",
                met=listed <= 15,
            ),
            Row(f"memory at rest, {SERVERS} HTTP servers", rss, "MiB", bar="<= 90 MiB", met=rss <= 90),
            Row("CPU from start to first answered call", cold, "s", bar="<= 1.2 s", met=cold <= 1.2),
        ]

    @staticmethod
    def _first(ours: Gateway) -> Target:
        target = Target("gateway", ours.url, "s0__", TOKEN, ours.pid)
        asyncio.run(first_call(target))
        return target


def show(rows: list[Row]) -> None:
    """The table, and the state of the machine that it holds for."""
    lines = [("measure", "gateway", "direct", "ratio", "bar", "")]
    for row in rows:
        direct = f"{row.direct:.4g} {row.unit}" if row.direct is not None else ""
        ratio = f"{row.ratio:.2f} x" if row.ratio is not None else ""
        met = "" if row.met is None else "ok" if row.met else "MISSED"
        lines.append((row.measure, f"{row.value:.4g} {row.unit}", direct, ratio, row.bar, met))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.ljust(w) if n in (0, 4) else cell.rjust(w)
            for n, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    print(f"\n{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of everything (default 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run of callers (default 2)")
    parser.add_argument("--only", choices=["calls", "many"], help="half of the measures")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    gc.disable()  # the client's own pauses are not the other side's latency
    rows = []
    with tempfile.TemporaryDirectory(prefix="toolyard-benchmark-") as directory:
        benchmark = Benchmark(options.rounds, options.seconds, Path(directory))
        if options.only != "many":
            rows += benchmark.calls()
        if options.only != "calls":
            rows += benchmark.many()
    if options.json:
        machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "python": sys.version.split()[0]}
        print(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=2))
    else:
        show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
