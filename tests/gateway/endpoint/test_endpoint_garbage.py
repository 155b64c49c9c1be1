"""Generated garbage: whatever is sent, a JSON-RPC answer or a 4xx comes back and the next call works."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import uvloop
from gateway_parts import WAIT, Client, Wire, meta, running_gateway, stdio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

METHODS = [
    "initialize",
    "ping",
    "tools/list",
    "tools/call",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/templates/list",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
    "logging/setLevel",
    "server/discover",
    "notifications/cancelled",
    "notifications/initialized",
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["peer__echo", "", "\u0000"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda c: (
        st.lists(c, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "uri", "x", "_meta"]), c, max_size=3)
    ),
    max_leaves=6,
)
PARAMS = st.one_of(
    VALUES,
    st.fixed_dictionaries(
        {},
        optional={
            "name": VALUES,
            "uri": VALUES,
            "cursor": VALUES,
            "arguments": VALUES,
            "level": VALUES,
            "ref": VALUES,
            "requestId": VALUES,
            "protocolVersion": VALUES,
            "clientInfo": VALUES,
            "notifications": VALUES,
            "_meta": st.one_of(VALUES, st.just(meta()), st.builds(lambda v: meta(progressToken=v), VALUES)),
        },
    ),
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | VALUES,
        "id": VALUES,
        "method": st.sampled_from(METHODS) | VALUES,
        "params": PARAMS,
    },
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A valid-looking message or batch, perhaps with some of its bytes changed."""
    message: Any = draw(MESSAGES | st.lists(MESSAGES, max_size=4))
    data = bytearray(json.dumps(message).encode())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["set", "cut", "add"])):
            case "set" if data:
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at:]
            case _:
                data[at:at] = draw(st.binary(max_size=4))
    return bytes(data)


HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "MCP-Protocol-Version": st.sampled_from(["2026-07-28", "2025-11-25", "2025-03-26", "1", "\u00ff"]),
        "Mcp-Method": st.sampled_from([*METHODS, "x"]),
        "Mcp-Name": st.sampled_from(["peer__echo", "=?base64?eA==?=", "=?base64?\u00ff?="]),
        "Accept": st.sampled_from(["application/json", "*/*", "text/html"]),
    },
)


class Server:
    """A gateway on a loop of its own thread's, for tests that are not async."""

    def __enter__(self) -> Server:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._runner.run(self._start())
        self.faults: list[Any] = []
        self._runner.get_loop().set_exception_handler(lambda loop, context: self.faults.append(context))
        self.client = self.running.client()
        self._runner.run(self.client.initialize("2025-03-26"))
        return self

    def __exit__(self, *exc: object) -> None:
        self._runner.run(self._stop())
        self._runner.close()

    async def _start(self) -> None:
        ready, self._done = asyncio.Event(), asyncio.Event()

        async def hold() -> None:  # enters and leaves in one task, as cancel scopes must
            async with running_gateway([stdio()]) as self.running:
                ready.set()
                await self._done.wait()

        self._holder = asyncio.create_task(hold())
        await asyncio.wait_for(ready.wait(), WAIT)

    async def _stop(self) -> None:
        self._done.set()
        await asyncio.wait_for(self._holder, WAIT)

    def send(self, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        return self._runner.run(self._send(body, headers))

    async def _send(self, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        async with self.client.wire() as wire:
            wire.send("POST", "/mcp", {**self.client.headers(), **headers}, body)
            answer = await wire.head()
            if "content-length" in answer.headers:
                answer.body = await wire.reader.readexactly(int(answer.headers["content-length"]))
            return answer.status, answer.headers.get("content-type", ""), answer.body

    def works(self) -> bool:
        async def call(client: Client) -> Any:
            async with client.wire() as wire:
                assert isinstance(wire, Wire)
            return await client.call("peer__echo", {"q": 1})

        return bool(self._runner.run(call(self.client))["result"])


def test_no_garbage_brings_anything_but_an_answer_or_a_4xx() -> None:
    with Server() as server:

        @settings(max_examples=400, suppress_health_check=list(HealthCheck))
        @given(bodies(), HEADERS, st.booleans())
        def check(body: bytes, headers: dict[str, str], with_session: bool) -> None:
            more = headers if with_session else {**headers, "Mcp-Session-Id": ""}
            status, kind, data = server.send(body, more)
            assert status in (200, 202) or 400 <= status < 500, (status, data)
            if kind == "application/json":
                answers = json.loads(data)
                for answer in answers if isinstance(answers, list) else [answers]:
                    assert answer["jsonrpc"] == "2.0"
                    assert ("result" in answer) != ("error" in answer)
                    assert "Traceback" not in str(answer)
            else:
                assert status in (202, 405) or kind == "text/event-stream", (status, kind, data)
            assert server.faults == []

        check()
        assert server.works()
