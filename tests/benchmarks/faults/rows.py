"""The single measures of supervision, each with servers and a gateway of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from client import Session, WrongAnswer
from fault_parts import entry, logged, remote_server
from gateway_parts import alive
from processes import TOKEN, Gateway, gateway, rss_mib
from table import Row

SESSIONS, PARALLEL = 500, 300


async def _listed(url: str, tools: int) -> None:
    """Wait until every server was listed."""
    async with asyncio.timeout(30), Session(url, token=TOKEN) as session:
        while len((await session.request("tools/list", {}))["tools"]) < tools:
            await asyncio.sleep(0.05)


async def _together(url: str, server: str) -> float:
    await _listed(url, 6)
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
    await _listed(url, 6)
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
        asyncio.run(_listed(ours.url, 3))
        times = asyncio.run(_list_times(ours.url))
    worst = max(times)
    return [
        Row("tools/list beside 3 dead or silent servers, median", statistics.median(times), "ms"),
        Row("tools/list beside 3 dead or silent servers, slowest of 100", worst, "ms", "<= 50", worst <= 50),
    ]


async def _crowd(ours: Gateway) -> tuple[int, float]:
    await _listed(ours.url, 3)
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
            asyncio.run(_listed(ours.url, 9))
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


def _face(state: Path) -> float:
    """Seconds from the start of a face to its answer to tools/list."""
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "b", "version": "1"}}
    messages: list[Any] = [
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
    ]
    data = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    began = time.perf_counter()
    command = [sys.executable, "-m", "gateway", "stdio", "--state-dir", str(state)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(data)
        process.stdin.flush()
        for line in process.stdout:
            if json.loads(line).get("id") == 1:
                break
        took = time.perf_counter() - began
        process.stdin.close()
    return took


def faces(root: Path) -> list[Row]:
    """``toolyard stdio`` to the first answered tools/list while a gateway runs."""
    with gateway(root / "faces", {"child": entry()}) as ours:
        asyncio.run(_listed(ours.url, 3))
        took = statistics.median(_face(root / "faces" / "state") for _ in range(9))
    return [
        Row("toolyard stdio to the first tools/list, gateway running", took, "s", "<= 0.15", took <= 0.15)
    ]


ROWS: dict[str, Callable[[Path], list[Row]]] = {
    "sleepers": sleepers,
    "kills": kills,
    "silent": silent,
    "sessions": sessions,
    "ends": ends,
    "faces": faces,
}
