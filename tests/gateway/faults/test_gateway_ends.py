"""A real gateway under load that is ended, killed, left alone: nothing it started outlives it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fault_parts import children_of, entry, kill, logged, zombies_of
from gateway_parts import Client as HttpClient
from gateway_parts import alive, until
from relay_peer import Client, initialize

TOKEN = "a-token-of-the-tests"
WAIT = 60.0


def eventually(what: str, check: Any, wait: float = WAIT) -> Any:
    """Wait for what has no event of its own."""
    deadline = time.monotonic() + wait
    while not (found := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {wait:g} s: {what}")
        time.sleep(0.01)
    return found


@contextmanager
def gateway(root: Path, servers: dict[str, Any], *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """``toolyard serve`` in a process of its own."""
    (root / "servers.json").write_text(json.dumps({"mcpServers": servers}))
    (root / "config").mkdir(exist_ok=True)
    (root / "config" / "config.toml").write_text(f"[gateway]\nfirst_list_grace = {WAIT}\n")
    state = root / "state"
    (state / "gateway.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(root / "servers.json")]
    command += ["--port", "0", "--token", TOKEN, "--state-dir", str(state), *flags]
    with open(root / "output", "ab") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, "TOOLYARD_CONFIG_DIR": str(root / "config")},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        eventually("the gateway listens", (state / "gateway.json").exists, 3 * WAIT)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(WAIT)


def shake(client: Client) -> None:
    client.request(0, "initialize", initialize())
    answer(client, 0)
    client.notify("notifications/initialized")


def answer(client: Client, ident: Any, wait: float = WAIT) -> Any:
    """The answer with this id; notifications before it are passed over."""
    while (message := client.message(wait)).get("id") != ident:
        assert "id" not in message, message
    return message


def names(client: Client, ident: Any) -> list[str]:
    client.request(ident, "tools/list")
    return sorted(tool["name"] for tool in answer(client, ident)["result"]["tools"])


def all_names(client: Client, servers: int) -> Any:
    """The names, once every server was listed."""
    numbers = itertools.count()
    return eventually(
        "every server is listed",
        lambda: found if len(found := names(client, f"list {next(numbers)}")) == 3 * servers else None,
    )


@asynccontextmanager
async def load(client: HttpClient, tools: list[str]) -> AsyncIterator[None]:
    """Calls that never cease, until the gateway does."""

    async def ask(tool: str) -> None:
        try:
            while True:
                await client.call(tool, {"text": "x"})
        except (OSError, EOFError, ValueError, KeyError):
            pass  # the gateway has ended

    asking = [asyncio.create_task(ask(tool)) for tool in tools * 4]
    try:
        yield
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


@pytest.mark.anyio
@pytest.mark.parametrize("ending", ["SIGTERM", "SIGKILL", "SIGKILL after its life-line"])
async def test_children_and_grandchildren_are_gone_and_the_names_stay(ending: str, tmp_path: Path) -> None:
    logs = [tmp_path / f"log{n}" for n in range(3)]
    servers = {f"s{n}": entry("--log", str(log), "--brood") for n, log in enumerate(logs)}
    with gateway(tmp_path, servers) as process:
        client = await http_client(tmp_path)
        before = await client.names()
        assert len(before) == 9
        pids = [int(pid) for log in logs for word in ("start", "grandchild") for pid in logged(log, word)]
        answer = await client.call("s0__do", {"mode": "setsid"})
        pids.append(int(answer["result"]["content"][0]["text"]))
        assert len(pids) == 10
        assert all(map(alive, pids))
        async with load(client, [f"s{n}__{tool}" for n in range(3) for tool in ("echo", "sleep")]):
            if ending == "SIGKILL after its life-line":
                lines = _lifelines(process.pid)
                assert len(lines) == 1
                kill(lines[0])
                await until(lambda: _lifelines(process.pid) not in ([], lines))
            process.send_signal(signal.SIGTERM if ending == "SIGTERM" else signal.SIGKILL)
            await until(lambda: not any(map(alive, pids)))  # within 5 s: tests/benchmarks/faults
            process.wait(WAIT)
    kept = {name: entry("--start", "hang") for name in servers}
    with gateway(tmp_path, kept):
        client = await http_client(tmp_path)
        assert await client.names() == before


async def http_client(root: Path) -> HttpClient:
    url = json.loads((root / "state" / "gateway.json").read_text())["url"]
    client = HttpClient(int(url.rpartition(":")[2].split("/")[0]), TOKEN)
    await client.initialize()
    return client


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _lifelines(parent: int) -> list[int]:
    return [pid for pid in children_of(parent) if "lifeline.py" in _command_of(pid)]


def test_ten_faces_share_one_set_of_servers_and_nothing_is_left_when_they_have_gone(tmp_path: Path) -> None:
    log, state = tmp_path / "log", tmp_path / "state"
    servers = {"one": entry("--log", str(log), "--brood")}
    with gateway(tmp_path, servers, "--detached", "--idle-exit", "12") as process, ExitStack() as stack:
        clients = [stack.enter_context(Client(state)) for _ in range(10)]
        for client in clients:
            shake(client)
        for client in clients:
            assert all_names(client, 1) == ["one__do", "one__echo", "one__sleep"]
        for turn in range(20):
            for number, client in enumerate(clients):
                arguments = {"name": "one__echo", "arguments": {"text": f"{number} {turn}"}}
                client.request(turn, "tools/call", arguments)
            for number, client in enumerate(clients):
                reply = answer(client, turn)
                assert "result" in reply, reply
                assert reply["result"]["content"][0]["text"] == f"{number} {turn}"
            if turn == 10:
                kill(int(logged(log, "start")[-1]))
                eventually("it is back", lambda: len(logged(log, "start")) == 2)
        assert len(logged(log, "start")) == 2
        assert not zombies_of(process.pid)
        pids = [int(pid) for word in ("start", "grandchild") for pid in logged(log, word)]
        assert len(pids) == 6
        for client in clients:
            assert client.close() == 0
        assert process.wait(WAIT) == 0
        eventually("nothing is left", lambda: not any(map(alive, pids)))
