"""A real gateway over its life: bytes, pages, names, restarts, reloads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from yard import WAIT, Yard, raw_client, raw_stdio, serving, until

from gateway.httpd import listen_tcp

ODD = (
    '{"content":[{"type":"text","text":"\\u00e9 \\/ é 🌍","com.example/colour":1e400}],'
    '"isError":false,"_meta":{"com.example/z":{"b":1.10,"a":12345678901234567890123}},"unknown":[-0.0,1E+2,null],'
    '"structuredContent":{"z":1,"a":0.1000000000000000055}}'
).encode()
ODD_TOOL = '{"com.example/first":1.50,"name":"odd","inputSchema":{"type":"object","x-big":1e400},"_meta":{"b":1,"a":2}}'


class OddHandler(BaseHTTPRequestHandler):
    """A streamable HTTP server of the handshake era that answers every call with ``ODD``."""

    protocol_version = "HTTP/1.1"
    stream = False

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "id" not in message:
            self.answer(202, "application/json", b"")
            return
        if message["method"] == "initialize":
            capabilities = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
            result = json.dumps({**capabilities, "serverInfo": {"name": "odd", "version": "0"}}).encode()
        elif message["method"] == "tools/list":
            result = b'{"tools":[%b]}' % ODD_TOOL.encode()
        else:
            result = ODD
        body = b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (message["id"], result)
        if self.stream:
            self.answer(200, "text/event-stream", b"event: message\ndata: " + body + b"\n\n")
        else:
            self.answer(200, "application/json", body)

    def do_GET(self) -> None:
        self.answer(405, "text/plain", b"")

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing to say."""


class OddStream(OddHandler):
    stream = True


@pytest.fixture(params=["stdio", "json", "sse-answers"])
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Yard]:
    """A gateway with one server, named odd, that answers ``raw`` with ``ODD``."""
    if request.param == "stdio":
        (tmp_path / "result").write_bytes(ODD)
        entry = raw_stdio(
            "--result", str(tmp_path / "result"), "--heard", str(tmp_path / "heard"), "--definition", ODD_TOOL
        )
        with serving(tmp_path, {"odd": entry}) as yard:
            yield yard
        return
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), OddStream if request.param == "sse-answers" else OddHandler
    )
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        with serving(tmp_path, {"odd": {"url": f"http://127.0.0.1:{server.server_port}/mcp"}}) as yard:
            yield yard
    finally:
        server.shutdown()
        server.server_close()
        thread.join(WAIT)


def test_a_result_arrives_byte_for_byte(odd: Yard) -> None:
    with raw_client(odd) as client:
        answer = client.request("tools/call", b'{"name":"odd__odd","arguments":{}}')
        if odd.root.joinpath("result").exists():
            answer = client.request("tools/call", b'{"name":"odd__raw","arguments":{}}')
    assert answer == b'{"jsonrpc":"2.0","id":7,"result":%b}' % ODD


def test_a_definition_keeps_everything_but_its_name(odd: Yard) -> None:
    with raw_client(odd) as client:
        listed = client.request("tools/list")
    assert ODD_TOOL.replace('"odd"', '"odd__odd"').encode() in listed


def test_arguments_and_vendor_meta_reach_the_server_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "result").write_bytes(b'{"content":[]}')
    arguments = '{"n":1.10,"big":12345678901234567890123,"e":1E+2,"u":"\\u00e9\\/é"}'.encode()
    meta = b'{"com.example/trace":{"b":1,"a":[1e400]}}'
    entry = raw_stdio("--result", str(tmp_path / "result"), "--heard", str(tmp_path / "heard"))
    with serving(tmp_path, {"odd": entry}) as yard, raw_client(yard) as client:
        client.request("tools/call", b'{"name":"odd__raw","arguments":%b,"_meta":%b}' % (arguments, meta))
    heard = (tmp_path / "heard").read_bytes()
    assert b'"arguments":' + arguments in heard
    assert b'"_meta":' + meta in heard


def test_a_thousand_tools_of_ten_servers_are_one_page(tmp_path: Path) -> None:
    servers = {f"s{number}": raw_stdio("--tools", "98") for number in range(10)}
    with serving(tmp_path, servers) as yard, raw_client(yard) as client:
        until("all tools", lambda: True if len(client.names()) == 1000 else None)
        page = json.loads(client.request("tools/list"))["result"]
        assert "nextCursor" not in page
        names = [tool["name"] for tool in page["tools"]]
        assert len(set(names)) == 1000
        assert names == client.names()
        assert client.call("s9__t097")["result"]["content"][0]["text"] == "one of many"


def test_names_stay_the_same_across_restarts_and_a_new_order(tmp_path: Path) -> None:
    long = "a_server_with_a_name_that_leaves_little_room_for_the_names_of_its_tools"
    servers = {"first": raw_stdio(), long: raw_stdio("--tools", "3"), "second": raw_stdio()}

    def names() -> list[str]:
        with serving(tmp_path, None, "--names", "on-collision") as yard, raw_client(yard) as client:
            until("all tools", lambda: True if len(client.names()) == 9 else None)
            return sorted(client.names())

    (tmp_path / "servers.json").write_text(json.dumps({"mcpServers": servers}))
    before = names()
    assert all(len(name) <= 64 for name in before)
    (tmp_path / "servers.json").write_text(json.dumps({"mcpServers": dict(reversed(servers.items()))}))
    assert names() == before


def test_lists_are_there_right_after_a_restart_although_the_servers_are_dead(tmp_path: Path) -> None:
    dead = tmp_path / "dead"
    entry = {**raw_stdio("--tools", "3", "--dead", str(dead)), "timeout": 10 * WAIT}
    with serving(tmp_path, {"a": entry, "b": entry}) as yard, raw_client(yard) as client:
        until("all tools", lambda: True if len(client.names()) == 10 else None)
        before = client.tools()
    dead.touch()
    with serving(tmp_path) as yard, raw_client(yard) as client:
        assert client.tools() == before
        answer = client.call("a__t000")
        said = answer["error"]["message"] if "error" in answer else answer["result"]["content"][0]["text"]
        assert "'a'" in said
        dead.unlink()
        until("the servers to come back", lambda: client.call("a__t000").get("result"))


def test_a_reload_adds_and_changes_servers_under_a_call_in_flight(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with serving(tmp_path, {"a": raw_stdio()}) as yard, raw_client(yard) as client:
        until("the tools", lambda: True if "a__hold" in client.names() else None)
        answers: list[Any] = []

        def hold() -> None:
            with raw_client(yard) as other:
                answers.append(other.call("a__hold", fifo=str(fifo)))

        call = threading.Thread(target=hold)
        call.start()
        with open(fifo, "w") as gate:  # opens once the server has begun to read: the call is in flight
            yard.configure({"a": raw_stdio("--tools", "1"), "b": raw_stdio("--tools", "2")})
            yard.approve("a", "b")
            until("the new tools", lambda: True if {"a__t000", "b__raw"} <= set(client.names()) else None)
            assert client.call("a__t000")["result"]["content"][0]["text"] == "one of many"
            assert not answers
            gate.write("released")
        call.join(WAIT)
    assert answers[0]["result"]["content"][0]["text"] == "released"


def test_a_server_taken_out_of_the_file_is_gone_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, {"a": raw_stdio(), "b": raw_stdio()}) as yard, raw_client(yard) as client:
        until("the tools", lambda: True if len(client.names()) == 4 else None)
        yard.configure({"b": raw_stdio()})
        until("the change", lambda: True if set(client.names()) == {"b__raw", "b__hold"} else None)
        assert "Unknown tool" in client.call("a__raw")["error"]["message"]


def test_a_broken_file_leaves_the_last_good_one_in_force(tmp_path: Path) -> None:
    with serving(tmp_path, {"a": raw_stdio("--tools", "1")}) as yard, raw_client(yard) as client:
        until("the tools", lambda: True if "a__t000" in client.names() else None)
        yard.configure('{"mcpServers": {\n  "a": oops\n}}')
        problem = until("the complaint", lambda: yard.toolyard("status")["gateway"]["config"]["error"])
        assert "servers.json" in problem
        assert "2" in problem
        assert client.call("a__t000")["result"]["content"][0]["text"] == "one of many"
        yard.configure({"a": raw_stdio("--tools", "2")})
        yard.approve("a")
        until("the mended file", lambda: True if "a__t001" in client.names() else None)
        assert yard.toolyard("status")["gateway"]["config"]["error"] is None


def test_a_second_gateway_on_the_same_state_says_so_and_exits_7(house: Yard) -> None:
    command = [sys.executable, "-m", "gateway", "serve", "--port", "0", "--state-dir", str(house.state)]
    done = subprocess.run(
        command, env=house.environment, capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert done.returncode == 7
    assert str(house.process.pid) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_gateway_ends_and_leaves_no_process(tmp_path: Path) -> None:
    servers = {f"s{number}": raw_stdio() for number in range(3)}
    with serving(tmp_path, servers) as yard, raw_client(yard) as client:
        until("the tools", lambda: True if len(client.names()) == 6 else None)
        pids = [row["pid"] for row in yard.toolyard("status")["servers"]]
        assert yard.end() == 0
    for pid in pids:
        until(f"the end of {pid}", lambda pid=pid: True if gone(pid) else None)


@pytest.mark.anyio
async def test_answers_are_not_held_back_on_any_event_loop() -> None:
    accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    with contextlib.closing(listen_tcp("127.0.0.1", 0)) as listener:
        async with await asyncio.start_server(connected, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            async with asyncio.timeout(WAIT):
                assert await accepted
            writer.close()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
