"""Clients of both eras that go on calling while their gateway is ended and started anew."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from continuity_parts import PEER, Event, Stream
from gateway_parts import HANDSHAKE, TOKEN, Client, Wire

UP_WITHIN = 60.0
PAUSE = 0.05
"""Seconds a client waits after a retriable error."""


@dataclass
class Tally:
    """What became of one client's requests."""

    answered: int = 0
    retriable: int = 0
    broken: int = 0
    """The connection broke before a response: all that kill -9 can leave a client without a stream."""
    resumed: int = 0
    """Streams that were come back to."""
    wrong: list[str] = field(default_factory=list)
    """Anything else: another answer, another error, a session that was gone."""
    slowest: float = 0.0
    """Seconds between a call's first request and its answer."""


class Process:
    """A gateway on one port and one state directory, ended and started again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = int(sock.getsockname()[1])
        self._process: asyncio.subprocess.Process | None = None
        servers = {"memo": {"command": sys.executable, "args": ["-I", "-S", str(PEER)]}}
        (root / "servers.json").write_text(json.dumps({"mcpServers": servers}))

    async def start(self) -> None:
        """Start it; returns when it listens."""
        words = ["serve", "--config", "servers.json", "--port", str(self.port), "--token", TOKEN]
        with (self._root / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway", *words, "--state-dir", "state",
                cwd=self._root, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "TOOLYARD_CONFIG_DIR": str(self._root / "config"),
                     "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip
        deadline = time.monotonic() + UP_WITHIN
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                (await asyncio.open_connection("127.0.0.1", self.port))[1].close()
                return
            await asyncio.sleep(0.02)
        raise TimeoutError((self._root / "log").read_text()[-2000:])

    async def end(self, number: int) -> None:
        """End it with a signal, and wait until it has ended."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        await asyncio.wait_for(self._process.wait(), 30)


@contextlib.asynccontextmanager
async def process(root: Path) -> AsyncIterator[Process]:
    """A gateway that listens, ended with the block."""
    running = Process(root)
    await running.start()
    try:
        yield running
    finally:
        await running.end(signal.SIGKILL)


class Caller:
    """One client: a request is sent again after a retriable error, as clients are told to.

    :param modern: it speaks 2026-07-28, else the handshake era.
    """

    def __init__(self, port: int, *, modern: bool) -> None:
        self.client = Client(port)
        self.modern = modern
        self.tally = Tally()
        self._last: Event | None = None

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """The answer to a tool call, in the end."""
        began = time.monotonic()
        while True:
            message = await self._once(name, arguments)
            if message is not None and "result" in message:
                self.tally.answered += 1
                self.tally.slowest = max(self.tally.slowest, time.monotonic() - began)
                return message["result"]
            if message is None:
                self.tally.broken += 1
            elif (message["error"].get("data") or {}).get("retriable") is True:
                self.tally.retriable += 1
            else:
                self.tally.wrong.append(json.dumps(message)[:300])
                return None
            await asyncio.sleep(PAUSE)

    async def _once(self, name: str, arguments: dict[str, Any]) -> Any:
        """What became of one request: its response, or None where its connection broke before one."""
        params: dict[str, Any] = {"name": name, "arguments": arguments}
        if self.modern:
            body, more = self.client.modern("tools/call", params)
        else:
            params["_meta"] = {"progressToken": 1}
            body, more = json.dumps(self.client.message("tools/call", params)).encode(), {}
        self._last = None
        message = await self._exchange("POST", {**self.client.headers(), **more}, body)
        while message is None and self._last is not None:
            self.tally.resumed += 1
            await asyncio.sleep(PAUSE)
            headers = self.client.headers(Accept="text/event-stream", Last_Event_Id=self._last.ident)
            message = await self._exchange("GET", headers, None)
        return message

    async def _exchange(self, verb: str, headers: dict[str, str], body: bytes | None) -> Any:
        wire = await self._connected()
        try:
            wire.send(verb, "/mcp", headers, body)
            async with asyncio.timeout(30):
                head = await wire.head()
                if head.headers.get("content-type") == "text/event-stream":
                    return await self._read(Stream(wire))
                data = await wire.reader.readexactly(int(head.headers.get("content-length", "0")))
            return json.loads(data)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        finally:
            wire.abort()

    async def _read(self, stream: Stream) -> Any:
        while (event := await stream.next()) is not None:
            if event.ident:
                self._last = event
            if event.data and "method" not in event.message:
                return event.message
        return None

    async def _connected(self) -> Wire:
        """A connection; while nobody listens, nothing has been sent and nothing is lost."""
        async with asyncio.timeout(UP_WITHIN):
            while True:
                with contextlib.suppress(OSError):
                    return await Wire.open(self.client.port)
                await asyncio.sleep(PAUSE)


async def calls_through_restarts(root: Path, calls: int, signals: list[int]) -> dict[str, Tally]:
    """Make calls in both eras while the gateway is ended with each of these signals and started anew.

    Every third call of the handshake era answers with a stream. At the end, the subscription and the
    log level of the beginning are looked for at the server; what is missing of them is `wrong`.
    """
    async with process(root) as gateway:
        old, new = Caller(gateway.port, modern=False), Caller(gateway.port, modern=True)
        await old.client.initialize(HANDSHAKE)
        await old.call("memo__count", {})
        for method, params in (
            ("resources/subscribe", {"uri": "memo://1"}),
            ("logging/setLevel", {"level": "error"}),
        ):
            answer = await old.client.request(method, params)
            if answer.json.get("result") != {}:
                old.tally.wrong.append(answer.body.decode())
        done = {"old": 0, "new": 0}

        async def go_on(name: str, caller: Caller) -> None:
            for number in range(calls):
                streams = number % 3 == 2 and not caller.modern
                await caller.call(
                    "memo__progress" if streams else "memo__count",
                    {"steps": 3, "pause": 0.01} if streams else {},
                )
                done[name] += 1

        async def restart() -> None:
            for number, kind in enumerate(signals, 1):
                while min(done.values()) < number * calls // (len(signals) + 1):
                    await asyncio.sleep(0.005)
                await gateway.end(kind)
                await gateway.start()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(go_on("old", old))
            tasks.create_task(go_on("new", new))
            tasks.create_task(restart())
        await _look_for_wishes(old)
    return {"handshake era": old.tally, "2026-07-28": new.tally}


async def _look_for_wishes(caller: Caller) -> None:
    wanted = [{"resources/subscribe": "memo://1"}, {"logging/setLevel": "error"}]
    deadline, told = time.monotonic() + 10, []
    while not all(wish in told for wish in wanted):
        result = await caller.call("memo__told", {})
        told = json.loads(result["content"][0]["text"])
        if time.monotonic() > deadline:
            caller.tally.wrong.append(f"the server was told no more than {told}")
            return
