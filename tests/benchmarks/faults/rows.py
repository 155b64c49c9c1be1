"""The single measures of supervision, each with servers and a gateway of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from client import Session, WrongAnswer
from faces import crew, faces, listed
from fault_parts import entry, logged, remote_server
from gateway_parts import alive
from processes import TOKEN, Gateway, gateway, rss_mib
from table import Row

SESSIONS, PARALLEL = 500, 300


async def _together(url: str, server: str) -> float:
    await listed(url, 6)
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(Session(url, f"{server}__", TOKEN)) for _ in range(64)]
        await asyncio.gather(*(s.call("echo", {"text": "warm"}) for s in sessions))
        began = time.perf_counter()
        await asyncio.gather(
            *(s.call("sleep", {"seconds": 1, "text": str(n)}) for n, s in enumerate(sessions))
        )
        return time.perf_counter() - began


def sleepers(root: Path) -> list[Row]:
    """64 sessions that each call sleep(1 s) at the same moment."""
    with (
        remote_server() as far,
        gateway(root / "sleepers", {"child": entry(), "far": {"url": far.url}}) as ours,
    ):
        rows = []
        for server in ("child", "far"):
            took = asyncio.run(_together(ours.url, server))
            rows.append(Row(f"64 sessions x sleep(1 s), {server}", took, "s", "<= 1.5", took <= 1.5))
        return rows


async def _killed(
    url: str, server: str, kill: Callable[[], None], revive: Callable[[], None]
) -> tuple[float, float]:
    await listed(url, 6)
    async with Session(url, f"{server}__", TOKEN) as session, Session(url, f"{server}__", TOKEN) as other:
        hanging = asyncio.create_task(
            session.request("tools/call", {"name": f"{server}__do", "arguments": {"mode": "hang"}})
        )
        await other.call("echo", {"text": "it is under way"})
        began = time.perf_counter()
        await asyncio.to_thread(kill)
        with contextlib.suppress(WrongAnswer):
            await hanging
        failed = time.perf_counter() - began
        await asyncio.to_thread(revive)
        began = time.perf_counter()
        while True:
            with contextlib.suppress(WrongAnswer):
                await other.call("echo", {"text": "back"})
                return failed, time.perf_counter() - began


def kills(root: Path) -> list[Row]:
    """An upstream killed in mid-call: how soon its caller knows, how soon the next call works."""
    rows = []
    log = root / "kills.log"
    with remote_server() as far:
        servers = {"child": entry("--log", str(log)), "far": {"url": far.url}}
        with gateway(root / "kills", servers) as ours:
            ways: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
                "child": (lambda: os.kill(int(logged(log, "start")[-1]), signal.SIGKILL), lambda: None),
                "far": (far.kill, far.start),
            }
            for server, (kill, revive) in ways.items():
                error, back = asyncio.run(_killed(ours.url, server, kill, revive))
                rows.append(Row(f"kill -9 mid-call, {server}: error after", error, "s", "<= 1", error <= 1))
                rows.append(
                    Row(f"kill -9 mid-call, {server}: next call works after", back, "s", "<= 5", back <= 5)
                )
    return rows


async def _list_times(url: str) -> list[float]:
    async with Session(url, token=TOKEN) as session:
        await session.request("tools/list", {})
        times = []
        for _ in range(100):
            began = time.perf_counter()
            assert len((await session.request("tools/list", {}))["tools"]) == 3
            times.append((time.perf_counter() - began) * 1000)
        return times


def silent(root: Path) -> list[Row]:
    """tools/list with three dead or silent servers beside a good one."""
    servers = {
        "good": entry(),
        "dead": entry("--start", "dead"),
        "hung": entry("--start", "hang"),
        "gone": {"url": "http://127.0.0.1:1/mcp"},
    }
    with gateway(root / "silent", servers) as ours:
        asyncio.run(listed(ours.url, 3))
        times = asyncio.run(_list_times(ours.url))
    worst = max(times)
    return [
        Row("tools/list beside 3 dead or silent servers, median", statistics.median(times), "ms"),
        Row("tools/list beside 3 dead or silent servers, slowest of 100", worst, "ms", "<= 50", worst <= 50),
    ]


async def _crowd(ours: Gateway) -> tuple[int, float]:
    await listed(ours.url, 3)
    before = rss_mib(ours.pid)
    errors = 0
    async with AsyncExitStack() as stack:
        sessions = []
        for _ in range(SESSIONS):
            sessions.append(await stack.enter_async_context(Session(ours.url, "child__", TOKEN)))
        for turn in range(3):
            calls = [s.call("echo", {"text": f"{turn} {n}"}) for n, s in enumerate(sessions[:PARALLEL])]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            errors += sum(isinstance(answer, Exception) for answer in answers)
        return errors, (rss_mib(ours.pid) - before) / SESSIONS


def sessions(root: Path) -> list[Row]:
    """500 sessions at a time, 300 of them calling at the same moment, three times."""
    with gateway(root / "sessions", {"child": entry()}) as ours:
        errors, each = asyncio.run(_crowd(ours))
    return [
        Row(f"{SESSIONS} sessions, 3 x {PARALLEL} parallel calls: errors", errors, "", "0", not errors),
        Row("memory per session", each, "MiB", "<= 1", each <= 1),
    ]


async def _under_load(ours: Gateway, number: int, pids: list[int]) -> float:
    async def ask() -> None:
        with contextlib.suppress(WrongAnswer, OSError, EOFError):
            async with Session(ours.url, "s0__", TOKEN) as session:
                while True:
                    await session.call("echo", {"text": "load"})

    asking = [asyncio.create_task(ask()) for _ in range(16)]
    await asyncio.sleep(1)
    began = time.perf_counter()
    os.kill(ours.pid, number)
    while any(map(alive, pids)) and time.perf_counter() - began < 30:
        await asyncio.sleep(0.005)
    took = time.perf_counter() - began
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    return took


def ends(root: Path) -> list[Row]:
    """The gateway ended under load: how soon every child and grandchild is gone."""
    rows = []
    for name in ("SIGTERM", "SIGKILL"):
        logs = [root / f"{name}{n}.log" for n in range(3)]
        servers = {f"s{n}": entry("--log", str(log), "--brood") for n, log in enumerate(logs)}
        with gateway(root / name, servers) as ours:
            asyncio.run(listed(ours.url, 9))
            pids = [int(pid) for log in logs for word in ("start", "grandchild") for pid in logged(log, word)]
            took = asyncio.run(_under_load(ours, getattr(signal, name), pids))
        rows.append(
            Row(
                f"{name} under load: {len(pids)} children and grandchildren gone after",
                took,
                "s",
                "<= 5",
                took <= 5,
            )
        )
    return rows


ROWS: dict[str, Callable[[Path], list[Row]]] = {
    "sleepers": sleepers,
    "kills": kills,
    "silent": silent,
    "sessions": sessions,
    "ends": ends,
    "faces": faces,
    "crew": crew,
}
