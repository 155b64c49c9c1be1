"""The measures of ``toolyard stdio``: how soon a face answers, and what ten of them leave behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from client import Session
from fault_parts import entry, kill, logged, zombies_of
from gateway_parts import alive
from processes import TOKEN, gateway
from relay_peer import Client, initialize
from table import Row

CREW = 10
CALLS = 600
"""An hour of one assistant that calls every six seconds, in as little time as it takes."""
LEAVES = 5
"""How often each assistant is closed and started again meanwhile."""
KILLS = 5
PAUSE = 1.0
"""Seconds between two kills of the server."""
IDLE_EXIT = 3.0


async def listed(url: str, tools: int) -> None:
    """Wait until every server was listed."""
    async with asyncio.timeout(30), Session(url, token=TOKEN) as session:
        while len((await session.request("tools/list", {}))["tools"]) < tools:
            await asyncio.sleep(0.05)


def _first_list(client: Client, began: float) -> float:
    """Seconds from the start of a face to its answer to tools/list."""
    _greet(client)
    client.request(1, "tools/list")
    while client.message().get("id") != 1:
        pass
    return time.perf_counter() - began


def _greet(client: Client) -> None:
    client.request(0, "initialize", initialize())
    client.notify("notifications/initialized")


def faces(root: Path) -> list[Row]:
    """``toolyard stdio`` to the first answered tools/list, while a gateway runs and while none does."""
    state = root / "faces" / "state"
    with gateway(root / "faces", {"child": entry()}) as ours:
        asyncio.run(listed(ours.url, 3))
        running = statistics.median(_running(state) for _ in range(9))
    cold = statistics.median(_cold(state) for _ in range(5))
    return [
        Row(f"toolyard stdio to the first tools/list, {what}", took, "s", f"<= {bar}", took <= bar)
        for what, took, bar in (("gateway running", running, 0.15), ("cold, from the disk cache", cold, 0.3))
    ]


def _running(state: Path) -> float:
    began = time.perf_counter()
    with Client(state) as client:
        return _first_list(client, began)


def _cold(state: Path) -> float:
    """The same where no gateway runs. The one that the face starts behind its answer is ended again."""
    began = time.perf_counter()
    with Client(state) as client:
        took = _first_list(client, began)
        deadline = time.monotonic() + 30
        while not (state / "gateway.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        pid = json.loads((state / "gateway.json").read_text())["pid"]
    os.kill(pid, signal.SIGTERM)
    while alive(pid):
        time.sleep(0.02)
    return took


def _assistant(state: Path, number: int) -> int:
    """One assistant's hour. Returns how many calls got neither their own answer nor an error."""
    wrong = turn = 0
    for _ in range(LEAVES):
        with Client(state) as client:
            _greet(client)
            assert client.message()["id"] == 0
            for _ in range(CALLS // LEAVES):
                turn += 1
                client.request(
                    turn, "tools/call", {"name": "one__echo", "arguments": {"text": f"{number} {turn}"}}
                )
                while (message := client.message()).get("id") != turn:
                    pass
                wrong += not ("error" in message or _text(message) == f"{number} {turn}")
    return wrong


def _text(message: dict[str, Any]) -> str:
    return str(message["result"]["content"][0]["text"])


def crew(root: Path) -> list[Row]:
    """Ten assistants on ``toolyard stdio`` for an hour of calls; their server is killed meanwhile."""
    log = root / "crew.log"
    most, zombies, done = 0, 0, threading.Event()
    flags = ("--detached", "--idle-exit", str(IDLE_EXIT))
    with gateway(root / "crew", {"one": entry("--log", str(log), "--brood")}, *flags) as ours:
        state = root / "crew" / "state"

        def look() -> None:
            nonlocal most, zombies
            while not done.wait(0.05):
                most = max(most, sum(alive(int(pid)) for pid in logged(log, "start")))
                zombies = max(zombies, len(zombies_of(ours.pid)))

        def end_it() -> None:
            for _ in range(KILLS):
                if done.wait(PAUSE):
                    return
                kill(int(logged(log, "start")[-1]))

        with ThreadPoolExecutor(CREW + 2) as pool:
            watching = [pool.submit(look), pool.submit(end_it)]
            wrong = sum(pool.map(lambda number: _assistant(state, number), range(CREW)))
            done.set()
            for watcher in watching:
                watcher.result()
        deadline = time.monotonic() + 30
        pids = [int(pid) for word in ("start", "grandchild") for pid in logged(log, word)]
        while any(map(alive, [ours.pid, *pids])) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = sum(map(alive, [ours.pid, *pids]))
    return [
        Row(f"{CREW} faces, {CREW * CALLS:,} calls: unanswered or wrong", wrong, "", "0", not wrong),
        Row("sets of server processes at a time, at most", most, "", "1", most == 1),
        Row(
            f"zombies seen, {len(logged(log, 'start'))} servers started one after another",
            zombies,
            "",
            "0",
            not zombies,
        ),
        Row("processes left after the last face", left, "", "0", not left),
    ]
