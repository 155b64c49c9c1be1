"""HTTP servers that misbehave: typed errors, no credential astray, no call executed twice."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import (
    ECHOED,
    HANDSHAKE,
    WAIT,
    HttpPeer,
    Request,
    answer,
    http_peer,
    mcp,
    remote,
    reply,
    running_gateway,
    stdio,
    text,
    tool,
    until,
)

from gateway.upstream.eventstream import EventStream
from gateway.upstream.state import State
from registry.model import Transport

pytestmark = pytest.mark.anyio
Writer = asyncio.StreamWriter


def message(request: Request, result: Any = ECHOED) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request.json["id"], "result": result}).encode()


def calls(peer: HttpPeer) -> int:
    return peer.methods().count("tools/call")


async def called(handler: Callable[[Request, Writer], Any], **more: Any) -> tuple[Any, HttpPeer]:
    """The gateway's answer to a call that the server treats so, and the server."""
    async with (
        http_peer(mcp(tools_call=handler, **more)) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        client = await running.session()
        assert "far__echo" in await client.names()
        result = await client.call("far__echo")
        assert running.pending() == 0
        assert (await client.request("ping")).json["result"] == {}
        return result, peer


async def test_a_lost_session_is_opened_anew_and_every_call_repeated_once() -> None:
    sessions = iter(["one", "two", "three", "four", "five"])
    current = ""
    executed = []

    async def initialize(request: Request, writer: Writer) -> None:
        nonlocal current
        current = next(sessions)
        value = {"protocolVersion": HANDSHAKE, "capabilities": {"tools": {}}, "serverInfo": {"name": "p"}}
        answer(writer, request, value, Mcp_Session_Id=current)

    async def call(request: Request, writer: Writer) -> None:
        if request.headers.get("mcp-session-id") != current:
            reply(writer, 404, b"Session not found", "text/plain")
            return
        executed.append(request.json["params"]["arguments"]["n"])
        answer(writer, request, ECHOED)

    async with (
        http_peer(mcp(tools_call=call, initialize=initialize)) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        client = await running.session()
        await client.names()
        current = "restarted"
        answers = await asyncio.gather(*(client.call("far__echo", {"n": n}) for n in range(20)))
        assert [text(result) for result in answers] == ["hello"] * 20
        assert sorted(executed) == list(range(20))


@pytest.mark.parametrize("status", [401, 403])
async def test_a_server_that_wants_a_credential_needs_a_login(status: int) -> None:
    async def refuse(request: Request, writer: Writer) -> None:
        reply(writer, status, b"who are you", "text/plain", WWW_Authenticate="Bearer")

    async with http_peer(refuse) as peer, running_gateway([remote("far", peer.url), stdio()]) as running:
        await until(lambda: running.upstream("far").state is State.NEEDS_LOGIN)
        assert str(status) in running.upstream("far").error.message
        client = await running.session()
        assert "peer__echo" in await client.names()
        assert len(peer.seen) < 6


RESPONSES: dict[str, tuple[bytes, str]] = {
    "500": (b"HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\nboom", "HTTP 500"),
    "502 html": (b"HTTP/1.1 502 X\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>", "HTTP 502"),
    "200 html": (b"HTTP/1.1 200 X\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>", "HTTP 200"),
    "200 empty": (
        b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n",
        "HTTP 200",
    ),
    "202": (b"HTTP/1.1 202 X\r\nContent-Length: 0\r\n\r\n", "202"),
    "204": (b"HTTP/1.1 204 X\r\n\r\n", "HTTP 204"),
    "302": (b"HTTP/1.1 302 X\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n", "HTTP 302"),
    "list": (b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]", "HTTP 200"),
    "no message": (
        b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP 200",
    ),
    "another id": (
        b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n"
        + b'{"jsonrpc":"2.0","id":99999,"result":{}}',
        "another request",
    ),
    "no http": (b"\x16\x03\x01\x02\x00 what\r\n\r\n", "no valid HTTP"),
    "bad chunk": (b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no valid HTTP"),
    "huge head": (b"HTTP/1.1 200 X\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", "64 KiB"),
    "bad gzip": (
        b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip",
        "cannot be read",
    ),
    "cut short": (b"HTTP/1.1 200 X\r\nContent-Length: 400\r\n\r\n{", "closed the connection"),
    "nothing": (b"", "closed the connection"),
    "half a head": (b"HTTP/1.1 200 X\r\nContent-Ty", "closed the connection"),
    "no answer": (
        b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: nothing\n\ndata: {}\n\n",
        "without an answer",
    ),
}


@pytest.mark.parametrize("name", RESPONSES)
async def test_a_response_that_is_no_answer_is_a_typed_error_and_is_never_asked_for_again(name: str) -> None:
    raw, expected = RESPONSES[name]

    async def handle(request: Request, writer: Writer) -> None:
        writer.write(raw)
        await writer.drain()
        if name in ("cut short", "nothing", "half a head", "no http", "no answer", "bad chunk"):
            writer.close()

    result, peer = await called(handle)
    assert expected in result["error"]["message"], result
    assert result["error"]["data"]["type"].startswith("upstream_")
    assert calls(peer) == 1


async def test_a_connection_reset_in_mid_call_is_an_error_and_not_a_second_execution() -> None:
    async def handle(request: Request, writer: Writer) -> None:
        writer.transport.abort()

    result, peer = await called(handle)
    assert result["error"]["data"]["type"] == "upstream_unavailable"
    assert calls(peer) == 1


@pytest.mark.parametrize("where", ["before", "head", "body", "stream"])
async def test_a_slow_server_costs_its_callers_the_timeout_and_is_told_to_stop(where: str) -> None:
    begun = {
        "before": b"",
        "head": b"HTTP/1.1 200 X\r\nContent-Type: appl",
        "body": b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
        "stream": b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n: open\n\n",
    }[where]
    told = asyncio.Event()

    async def handle(request: Request, writer: Writer) -> None:
        writer.write(begun)

    async def cancelled(request: Request, writer: Writer) -> None:
        reply(writer, 202, kind="")
        told.set()

    async with (
        http_peer(mcp(tools_call=handle, notifications_cancelled=cancelled)) as peer,
        running_gateway([remote("far", peer.url, timeout=0.4)]) as running,
    ):
        client = await running.session()
        await client.names()
        await running.ready("far")
        result = await client.call("far__echo")
        assert result["error"]["data"]["type"] == "upstream_timeout"
        await asyncio.wait_for(told.wait(), WAIT)
        ident = next(request.json["id"] for request in peer.seen if request.rpc == "tools/call")
        cancel = next(request for request in peer.seen if request.rpc == "notifications/cancelled")
        assert cancel.json["params"]["requestId"] == ident
        await until(lambda: len(running.upstream("far")._connector._pool._open) <= 4)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
async def test_event_streams_are_read_with_every_line_ending_split_at_every_byte(end: str) -> None:
    note = {
        "jsonrpc": "2.0",
        "method": "notifications/progress",
        "params": {"progressToken": 0, "progress": 1},
    }

    async def handle(request: Request, writer: Writer) -> None:
        token = request.json["params"]["_meta"]["progressToken"]
        first = json.dumps({**note, "params": {"progressToken": token, "progress": 1}})
        body = message(request).decode()
        middle = body.index(",") + 1
        lines = [
            ": a comment",
            "",
            "event: message",
            "id: 7",
            "retry: 10",
            f"data:{first}",
            "",
            "data",
            "",
            "event: other",
            "data: {not for us}",
            "",
            "unknown: field",
            f"data: {body[:middle]}",
            f"data: {body[middle:]}",
            "",
            "",
        ]
        raw = end.join(lines).encode()
        writer.write(
            b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for byte in raw:
            writer.write(b"1\r\n%c\r\n" % byte)
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with (
        http_peer(mcp(tools_call=handle)) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        client = await running.session()
        await client.names()
        params = {"name": "far__echo", "arguments": {}, "_meta": {"progressToken": "mine"}}
        events = (await client.request("tools/call", params)).events
        assert [event.get("params", {}).get("progressToken") for event in events] == ["mine", None]
        assert text(events[-1]) == "hello"


def test_an_event_larger_than_the_limit_is_refused_in_bounded_memory() -> None:
    stream = EventStream(lambda *event: None, 1000)
    for _ in range(19):
        stream.feed(b"data: " + b"x" * 50 + b"\n")
    with pytest.raises(OverflowError):
        stream.feed((b"data: " + b"x" * 50 + b"\n") * 5)
    stream = EventStream(lambda *event: None, 1000)
    with pytest.raises(OverflowError):
        stream.feed(b"x" * 5000)


@pytest.mark.parametrize("kind", ["gzip", "chunked", "close", "json in pieces", "1 MiB"])
async def test_every_way_to_send_a_body_is_understood(kind: str) -> None:
    async def handle(request: Request, writer: Writer) -> None:
        body = message(request)
        head = b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\n"
        if kind == "gzip":
            packed = gzip.compress(body)
            writer.write(
                head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
            )
        elif kind == "chunked":
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for byte in body:
                writer.write(b"1;ext=1\r\n%c\r\n" % byte)
            writer.write(b"0\r\nTrailer: x\r\n\r\n")
        elif kind == "close":
            writer.write(head + b"\r\n" + body)
            await writer.drain()
            writer.close()
        elif kind == "1 MiB":
            big = message(request, {"content": [{"type": "text", "text": "hello" + " " * (1 << 20)}]})
            reply(writer, 200, big)
        else:
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body))
            for byte in body:
                writer.write(bytes([byte]))
                await writer.drain()

    result, _ = await called(handle)
    assert text(result).strip() == "hello"


async def test_an_error_of_the_server_passes_unchanged_whatever_its_status_and_id() -> None:
    for status in (200, 400, 500):
        body = b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32050,"message":"x","data":[1.50],"more":1}}'

        async def handle(request: Request, writer: Writer, status: int = status, body: bytes = body) -> None:
            reply(writer, status, body)

        result, _ = await called(handle)
        assert result["error"] == {"code": -32050, "message": "x", "data": [1.5], "more": 1}


async def test_a_redirect_within_the_origin_is_followed() -> None:
    inner = mcp()

    async def handle(request: Request, writer: Writer) -> None:
        if request.path == "/mcp":
            reply(writer, 307, Location="/elsewhere/mcp")
        else:
            await inner(request, writer)

    async with http_peer(handle) as peer, running_gateway([remote("far", peer.url)]) as running:
        client = await running.session()
        await client.names()
        assert text(await client.call("far__echo")) == "hello"


async def test_a_redirect_to_another_origin_is_refused_and_gets_no_credential() -> None:
    async with http_peer(mcp()) as other:

        async def handle(request: Request, writer: Writer) -> None:
            reply(writer, 307, Location=other.url)

        async with http_peer(handle) as peer:
            spec = remote("far", peer.url, headers={"Authorization": "Bearer secret"})
            async with running_gateway([spec]) as running:
                await until(lambda: running.upstream("far").state is State.FAILED)
                assert "another origin" in running.upstream("far").error.message
        assert other.seen == []


async def test_connections_are_reused_and_stale_ones_are_not() -> None:
    async with http_peer(mcp()) as peer, running_gateway([remote("far", peer.url)]) as running:
        client = await running.session()
        await client.names()
        for _ in range(10):
            await client.call("far__echo")
        assert peer.accepted <= 5
        peer.drop()
        pool = running.upstream("far")._connector._pool
        await until(lambda: not pool._idle)
        assert text(await client.call("far__echo")) == "hello"


async def test_a_server_that_closes_after_every_answer_is_no_trouble() -> None:
    async def handle(request: Request, writer: Writer) -> None:
        reply(writer, 200, message(request), Connection="close")
        await writer.drain()
        writer.close()

    async with (
        http_peer(mcp(tools_call=handle)) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        client = await running.session()
        await client.names()
        results = await asyncio.gather(*(client.call("far__echo") for _ in range(30)))
        assert {text(result) for result in results} == {"hello"}


async def test_bytes_nobody_asked_for_never_become_somebodys_answer() -> None:
    async def handle(request: Request, writer: Writer) -> None:
        forged = json.dumps(
            {"jsonrpc": "2.0", "id": request.json["id"] + 1, "result": {"content": ["forged"]}}
        )
        reply(writer, 200, message(request))
        reply(writer, 200, forged.encode())

    async with (
        http_peer(mcp(tools_call=handle)) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        client = await running.session()
        await client.names()
        for _ in range(10):
            assert text(await client.call("far__echo")) == "hello"
        assert len(running.upstream("far")._connector._pool._idle) <= 2


async def test_streams_left_open_after_the_answer_do_not_use_up_the_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.upstream.http.DRAIN", 0.2)

    async def handle(request: Request, writer: Writer) -> None:
        writer.write(
            b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\ndata: " + message(request) + b"\n\n"
        )

    async with (
        http_peer(mcp(tools_call=handle)) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        client = await running.session()
        await client.names()
        for _ in range(6):
            results = await asyncio.gather(*(client.call("far__echo") for _ in range(50)))
            assert {text(result) for result in results} == {"hello"}
        await until(lambda: len(running.upstream("far")._connector._pool._open) <= 4)


async def test_requests_of_the_server_on_a_calls_stream_are_answered() -> None:
    answers: list[Any] = []

    async def handle(request: Request, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for ident, method in (("a", "ping"), (2, "sampling/createMessage"), (3, "roots/list")):
            writer.write(
                b"data: " + json.dumps({"jsonrpc": "2.0", "id": ident, "method": method}).encode() + b"\n\n"
            )
        await writer.drain()
        await until(lambda: len(answers) == 3)
        writer.write(b"data: " + message(request) + b"\n\n")
        await writer.drain()
        writer.close()

    async def take(request: Request, writer: Writer) -> None:
        answers.append(request.json)
        reply(writer, 202, kind="")

    result, _ = await called(handle, answer=take)
    assert text(result) == "hello"
    assert {item["id"]: item.get("result", item.get("error", {}).get("code")) for item in answers} == {
        "a": {},
        2: -32601,
        3: -32601,
    }


async def test_a_change_notice_on_a_calls_stream_changes_the_list() -> None:
    tools = [tool("echo")]

    async def handle(request: Request, writer: Writer) -> None:
        tools.append(tool("fresh"))
        note = b'data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n\n'
        body = note + b"data: " + message(request) + b"\n\n"
        reply(writer, 200, body, "text/event-stream")

    async with (
        http_peer(mcp(tools, tools_call=handle)) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        client = await running.session()
        await client.names()
        assert text(await client.call("far__echo")) == "hello"
        await until(lambda: "far__fresh" in running.gateway.catalog.entries["tool"])  # type: ignore[index]


async def test_a_server_that_cannot_be_reached_says_why() -> None:
    specs = [
        remote("refused", "http://127.0.0.1:1/mcp"),
        remote("nowhere", "http://no-such-host.invalid/mcp"),
        remote("odd", "http://127.0.0.1:99999/mcp"),
        stdio(),
    ]
    async with running_gateway(specs) as running:
        client = await running.session()
        assert "peer__echo" in await client.names()
        for name in ("refused", "nowhere", "odd"):
            await until(lambda name=name: running.upstream(name).state is State.FAILED)  # type: ignore[misc]
            assert name == "odd" or "Cannot connect" in running.upstream(name).error.message


async def test_a_certificate_that_is_not_trusted_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    files = [
        "-keyout",
        str(tmp_path / "key"),
        "-out",
        str(tmp_path / "cert"),
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    made = subprocess.run([*command, *files], capture_output=True, check=False)
    assert made.returncode == 0, made.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    async with http_peer(mcp(), ssl=context) as peer:
        url = f"https://localhost:{peer.port}/mcp"
        async with running_gateway([remote("far", url, headers={"Authorization": "Bearer s"})]) as running:
            await until(lambda: running.upstream("far").state is State.FAILED)
            assert "TLS" in running.upstream("far").error.message
            assert "certificate" in (running.upstream("far").error.hint or "").lower()
        assert peer.seen == []


def legacy(endpoint: str, streams: list[Writer]) -> Callable[[Request, Writer], Any]:
    """A server of HTTP+SSE (2024-11-05)."""
    inner = mcp()

    class Capture:
        def __init__(self) -> None:
            self.data = b""

        def write(self, data: bytes) -> None:
            self.data += data

    async def handle(request: Request, writer: Writer) -> None:
        if request.method == "GET":
            writer.write(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n")
            writer.write(f"event: endpoint\ndata: {endpoint}\n\n".encode())
            streams.append(writer)
        elif request.path.startswith("/messages"):
            reply(writer, 202, b"Accepted", "text/plain")
            if "id" in request.json and "method" in request.json:
                capture = Capture()
                await inner(request, capture)  # type: ignore[arg-type]
                body = capture.data.partition(b"\r\n\r\n")[2]
                streams[-1].write(b"event: message\ndata: " + body + b"\n\n")
                await streams[-1].drain()
        else:
            reply(writer, 405)

    return handle


@pytest.mark.parametrize("transport", [Transport.HTTP, Transport.SSE])
async def test_a_server_of_http_and_sse_is_found_and_used_and_reconnected(transport: Transport) -> None:
    streams: list[Writer] = []
    async with (
        http_peer(legacy("/messages?session=1", streams)) as peer,
        running_gateway([remote("old", peer.url, transport)]) as running,
    ):
        client = await running.session()
        assert "old__echo" in await client.names()
        assert text(await client.call("old__echo")) == "hello"
        assert text(await running.client().modern_call("old__echo")) == "hello"
        opened = len(streams)
        for stream in streams:
            stream.transport.abort()
        await until(lambda: len(streams) > opened)
        assert text(await client.call("old__echo")) == "hello"


@pytest.mark.parametrize(
    "endpoint", ["http://evil.example/messages", "//evil.example/m", "https://127.0.0.1/m", "http://[::1"]
)
async def test_an_sse_endpoint_on_another_origin_is_refused(endpoint: str) -> None:
    async with http_peer(legacy(endpoint, [])) as peer:
        spec = remote("old", peer.url, Transport.SSE, headers={"Authorization": "Bearer s"})
        async with running_gateway([spec], first_list_grace=0.0) as running:
            await until(lambda: running.upstream("old").state is State.FAILED)
            assert peer.methods().count("initialize") == 0


async def test_the_notification_stream_of_a_server_changes_the_list() -> None:
    tools = [tool("echo")]
    streams: list[Writer] = []

    async def get(request: Request, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n: open\n\n")
        streams.append(writer)

    async with http_peer(mcp(tools, GET=get)) as peer, running_gateway([remote("far", peer.url)]) as running:
        client = await running.session()
        assert await client.names() == ["far__echo"]
        await until(lambda: streams)
        tools.append(tool("fresh"))
        for stream in streams:
            stream.write(b'data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n\n')
        await until(lambda: "far__fresh" in running.gateway.catalog.entries["tool"])  # type: ignore[index]
