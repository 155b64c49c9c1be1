"""The history of 64 clients with faults in between: each request answered once, with its own answer."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fault_parts import child, entry, executed, kill, remote_server
from gateway_parts import Client, Running, remote, running_gateway, until
from relay_peer import Client as Face
from test_gateway_ends import all_names, answer, gateway, shake

CALLS = 12
FAULTS = ("garbage", "slow", "flood-stderr", "huge", "exit", "kill")
HTTP_FAULTS = ("500", "reset", "cut", "garbage", "forget", "404")


async def _client(running: Running, name: str, servers: list[str], history: list[tuple[str, Any]]) -> None:
    client: Client = await running.session()
    for turn in range(CALLS):
        server = servers[turn % len(servers)]
        text = f"{name} {turn} {server}"
        history.append((text, await client.call(f"{server}__echo", {"text": text})))


@pytest.mark.anyio
async def test_64_clients_over_http_each_get_their_own_answer_once_while_servers_fail(tmp_path: Path) -> None:
    logs = [tmp_path / name for name in ("a", "b", "far", "far2")]
    chance = random.Random(20)
    history: list[tuple[str, Any]] = []
    with remote_server(logs[2]) as far, remote_server(logs[3]) as far2:
        specs = [
            child("a", "--log", str(logs[0])),
            child("b", "--log", str(logs[1])),
            remote("far", far.url),
            remote("far2", far2.url),
        ]
        async with running_gateway(specs) as running:
            servers = ["a", "b", "far", "far2"]
            await until(lambda: len(running.gateway.catalog.servers) == 4)
            trouble = await running.session()
            clients = [asyncio.create_task(_client(running, f"c{n}", servers, history)) for n in range(64)]
            faults = 0
            while not all(task.done() for task in clients):
                server = chance.choice(["a", "far"])
                mode = chance.choice(FAULTS if server == "a" else HTTP_FAULTS)
                await trouble.call(
                    f"{server}__do", {"mode": mode, "mib": 1, "seconds": 0.05, "text": "fault"}
                )
                faults += 1
            await asyncio.gather(*clients)
            assert faults >= 3
            await until(lambda: running.pending() == 0)
    assert Counter(text for text, _ in history) == Counter(
        f"c{n} {turn} {servers[turn % 4]}" for n in range(64) for turn in range(CALLS)
    )
    carried_out = sum((executed(log) for log in logs), Counter[str]())
    for text, reply in history:
        server = text.split()[-1]
        if "result" in reply:
            assert reply["result"]["content"][0]["text"] == text
            assert carried_out[text] == 1
        else:
            assert server in ("a", "far"), (text, reply)
            assert carried_out[text] <= 1, text
            assert reply["error"]["data"]["type"].startswith("upstream_"), reply
    good = [reply for text, reply in history if "result" in reply]
    assert len(good) >= len(history) // 2


def test_clients_over_several_faces_each_get_their_own_answer_once_while_a_server_fails(
    tmp_path: Path,
) -> None:
    logs = {name: tmp_path / name for name in ("good", "bad")}
    servers = {name: entry("--log", str(log)) for name, log in logs.items()}
    with gateway(tmp_path, servers), ExitStack() as stack:
        faces = [stack.enter_context(Face(tmp_path / "state")) for _ in range(6)]
        for face in faces:
            shake(face)
        for face in faces:
            all_names(face, 2)
        asked: set[str] = set()
        answered: set[str] = set()

        def take_answers() -> None:
            for number, face in enumerate(faces):
                waiting = {text for text in asked - answered if text.startswith(f"{number} ")}
                while waiting:
                    message = face.message()
                    if "id" not in message:
                        continue
                    waiting.remove(message["id"])  # neither answered twice nor another face's
                    answered.add(message["id"])
                    if "result" in message:
                        assert message["result"]["content"][0]["text"] == message["id"]
                    else:
                        assert message["id"].endswith("bad"), message

        for turn in range(30):
            for number, face in enumerate(faces):
                for name in servers:
                    text = f"{number} {turn} {name}"
                    face.request(text, "tools/call", {"name": f"{name}__echo", "arguments": {"text": text}})
                    asked.add(text)
            if turn in (7, 17, 27):
                kill(int(logs["bad"].read_text().rpartition("start ")[2].split()[0]))
            if turn % 5 == 4:
                take_answers()
        assert answered == asked
        for face in faces:
            face.request("last", "ping")
            assert answer(face, "last")["result"] == {}
    for log in logs.values():
        assert max(executed(log).values()) == 1
