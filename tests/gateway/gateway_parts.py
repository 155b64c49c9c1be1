"""Parts of the gateway's tests: a gateway in this process, raw HTTP against it, HTTP servers of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from gateway.app import Gateway
from gateway.config.settings import Settings
from gateway.endpoint.http import HttpEndpoint
from gateway.endpoint.subregistry import Subregistry
from gateway.httpd import HttpServer, listen_tcp
from gateway.policy.guard import Guard
from gateway.serve import Front
from gateway.upstream.state import State
from registry.model import ServerSpec, Transport
from registry.store import Store

PEER = Path(__file__).with_name("stdio_peer.py")
TOKEN = "a-token-of-the-tests"
WAIT = 60.0
"""Seconds that anything may take, however slow the machine is; what a test is about takes far longer where it fails."""
NEVER = 600.0
"""Seconds that no test waits for."""
STATELESS = "2026-07-28"
HANDSHAKE = "2025-11-25"


def stdio(name: str = "peer", *words: str, timeout: float | None = None, **more: Any) -> ServerSpec:
    """The misbehaving stdio server, told how."""
    args = ("-I", "-S", str(PEER), *words)
    return ServerSpec(name, Transport.STDIO, sys.executable, args, timeout=timeout, **more)


def remote(name: str, url: str, transport: Transport = Transport.HTTP, **more: Any) -> ServerSpec:
    """A server reached by URL."""
    return ServerSpec(name, transport, url=url, **more)


def meta(**more: Any) -> dict[str, Any]:
    """The ``_meta`` of a 2026-07-28 request."""
    prefix = "io.modelcontextprotocol/"
    own = {
        "protocolVersion": STATELESS,
        "clientInfo": {"name": "test", "version": "1"},
        "clientCapabilities": {},
    }
    return {**{prefix + key: value for key, value in own.items()}, **more}


@dataclass
class Answer:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        """The message; the last of an event stream, as which one comes that takes long."""
        streamed = self.headers.get("content-type") == "text/event-stream"
        return self.events[-1] if streamed else json.loads(self.body)

    @property
    def error(self) -> int:
        """The code of the JSON-RPC error."""
        code: int = self.json["error"]["code"]
        return code

    @property
    def events(self) -> list[Any]:
        """The messages of an event stream."""
        lines = self.body.decode().replace("\r\n", "\n").split("\n")
        return [json.loads(line[5:]) for line in lines if line.startswith("data:") and line[5:].strip()]


class Wire:
    """One raw HTTP/1.1 connection.

    :param wait: seconds for each thing that comes.
    """

    wait = WAIT

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Wire:
        return cls(*await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port, limit=1 << 26), WAIT))

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> None:
        fields = {"Host": "127.0.0.1", **headers}
        if body is not None and not {"content-length", "transfer-encoding"} & {k.lower() for k in fields}:
            fields["Content-Length"] = str(len(body))
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(
            f"{k}: {v}\r\n" for k, v in fields.items() if v != ""
        )
        self.writer.write(head.encode("latin-1") + b"\r\n" + (body or b""))

    async def head(self) -> Answer:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), self.wait)
        first, *lines = raw.decode("latin-1").strip().split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Answer(int(first.split()[1]), headers)

    async def answer(self, method: str = "POST", wait: float | None = None) -> Answer:
        async with asyncio.timeout(self.wait if wait is None else wait):
            answer = await self.head()
            if method == "HEAD" or answer.status in (204, 304):
                return answer
            if answer.headers.get("transfer-encoding") == "chunked":
                while piece := await self.chunk():
                    answer.body += piece
            elif "content-length" in answer.headers:
                answer.body = await self.reader.readexactly(int(answer.headers["content-length"]))
            else:
                answer.body = await self.reader.read()
            return answer

    async def chunk(self) -> bytes:
        size = int(await asyncio.wait_for(self.reader.readuntil(b"\r\n"), self.wait), 16)
        piece = await asyncio.wait_for(self.reader.readexactly(size + 2), self.wait)
        return piece[:-2]

    async def event(self) -> Any:
        """The next message of an event stream, which arrives one chunk an event or so."""
        buffer = getattr(self, "_buffer", b"")
        while True:
            block, found, rest = buffer.partition(b"\r\n\r\n")
            if found:
                buffer = self._buffer = rest
                data = [line[5:] for line in block.split(b"\r\n") if line.startswith(b"data:")]
                if b"".join(data).strip():  # an event without data only says where to come back to
                    return json.loads(b"".join(data))
                continue
            piece = await self.chunk()
            if not piece:
                raise EOFError
            buffer += piece

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def abort(self) -> None:
        self.writer.transport.abort()


class Client:
    """Raw HTTP against one gateway; every request on a connection of its own unless told otherwise."""

    wait = WAIT

    def __init__(self, port: int, token: str | None = TOKEN) -> None:
        self.port = port
        self.token = token
        self.session: str | None = None
        self._ids = itertools.count(1)

    def headers(self, **more: str) -> dict[str, str]:
        base = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.token is not None:
            base["Authorization"] = f"Bearer {self.token}"
        if self.session is not None:
            base["Mcp-Session-Id"] = self.session
            base["Mcp-Protocol-Version"] = HANDSHAKE
        return {**base, **{name.replace("_", "-"): value for name, value in more.items()}}

    @contextlib.asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        wire = await Wire.open(self.port)
        wire.wait = self.wait
        try:
            yield wire
        finally:
            await wire.close()

    async def http(
        self,
        method: str,
        path: str = "/mcp",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        async with self.wire() as wire:
            wire.send(method, path, self.headers() if headers is None else headers, body)
            return await wire.answer(method)

    async def post(self, body: bytes | Any, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http("POST", headers=self.headers(**headers), body=data)

    async def initialize(self, version: str = HANDSHAKE) -> Answer:
        self.session = None
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        answer = await self.post(self.message("initialize", params))
        self.session = answer.headers["mcp-session-id"]
        await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def message(self, method: str, params: Any = None, ident: Any = None) -> dict[str, Any]:
        fields = {"jsonrpc": "2.0", "id": ident if ident is not None else next(self._ids), "method": method}
        return fields if params is None else {**fields, "params": params}

    async def request(self, method: str, params: Any = None, ident: Any = None, **headers: str) -> Answer:
        """A handshake-era request."""
        return await self.post(self.message(method, params, ident), **headers)

    async def call(self, name: str, arguments: Any = None, **params: Any) -> Any:
        """The answer, or last event, of a handshake-era tool call."""
        return (await self.request("tools/call", {"name": name, "arguments": arguments or {}, **params})).json

    def modern(
        self, method: str, params: Any = None, ident: Any = None, **extra: Any
    ) -> tuple[bytes, dict[str, str]]:
        """Body and headers of a 2026-07-28 request."""
        params = {**(params or {}), "_meta": meta(**extra)}
        fields = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": method}
        if method in ("tools/call", "prompts/get", "resources/read"):
            fields["Mcp-Name"] = params.get("name") or params.get("uri") or ""
        return json.dumps(self.message(method, params, ident)).encode(), fields

    async def modern_request(self, method: str, params: Any = None, **headers: str) -> Answer:
        body, fields = self.modern(method, params)
        fields.update({name.replace("_", "-"): value for name, value in headers.items()})
        return await self.http("POST", headers={**self.headers(), **fields}, body=body)

    async def modern_call(self, name: str, arguments: Any = None, **headers: str) -> Any:
        params = {"name": name, "arguments": arguments or {}}
        return (await self.modern_request("tools/call", params, **headers)).json

    async def names(self) -> list[str]:
        answer = await self.request("tools/list")
        return [tool["name"] for tool in answer.json["result"]["tools"]]


@dataclass
class Running:
    """A gateway that runs in this process."""

    gateway: Gateway
    endpoint: HttpEndpoint
    port: int
    root: Path
    caches: list[bytes] = field(default_factory=list)

    def client(self, token: str | None = TOKEN) -> Client:
        return Client(self.port, token)

    async def session(self) -> Client:
        client = self.client()
        await client.initialize()
        return client

    def upstream(self, name: str = "peer") -> Any:
        return self.gateway.upstreams[name]

    async def ready(self, *names: str) -> None:
        """Wait until these servers run and their tools can be called."""

        def there(name: str) -> bool:
            return self.upstream(name).state is State.READY and name in self.gateway.catalog.servers

        await until(lambda: all(map(there, names)), what=f"{names} are ready")

    @property
    def awaited(self) -> frozenset[str]:
        """The servers whose lists are still waited for; where the first list waited for them all, none is."""
        return frozenset(self.gateway._listings._unseen)

    def pending(self) -> int:
        """Calls in flight, in every table there is."""
        count = sum(len(session.calls) for session in self.gateway.sessions)
        for upstream in self.gateway.upstreams.values():
            count += upstream.in_flight
            count += sum(len(getattr(connection, "_pending", ())) for connection in upstream.connections)
        return count


def settings(**more: Any) -> Settings:
    """Settings of a gateway under test."""
    base: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 0,
        "names": "prefix",
        "timeout": NEVER,
        "max_body": 1 << 20,
        "allowed_hosts": (),
        "allowed_origins": (),
        "page_size": 2000,
        "first_list_grace": WAIT,
        "log_level": "info",
    }
    return Settings(**{**base, **more})


@contextlib.asynccontextmanager
async def running_gateway(
    specs: Iterable[ServerSpec] = (),
    *,
    root: Path | None = None,
    token: str | None = TOKEN,
    trust: bool = True,
    journal: bool = False,
    search_dir: Path | None = None,
    **options: Any,
) -> AsyncIterator[Running]:
    """A gateway with its HTTP server on a free port; everything has ended when the block has."""
    with contextlib.ExitStack() as stack:
        if root is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = stack.enter_context(Store.open(root / "store.db"))
        chosen = settings(**options)
        sock = listen_tcp("127.0.0.1", 0)
        stack.callback(sock.close)
        async with anyio.create_task_group() as tasks:
            caches: list[bytes] = []
            gateway = Gateway(
                chosen,
                store,
                tasks,
                cache_writer=caches.append,
                trust_config=trust,
                journal=root / "runs.db" if journal else None,
                search_dir=search_dir,
            )
            endpoint = HttpEndpoint(gateway.dispatcher, gateway.notices, gateway.events, chosen.max_body)
            guard = Guard(
                Front(endpoint, gateway.toolsets, Subregistry(gateway.published)),
                token,
                (*chosen.allowed_hosts, chosen.host),
                chosen.allowed_origins,
            )
            server = HttpServer.of(guard)
            await gateway.start(specs)
            serving = asyncio.create_task(server.serve([sock]))
            try:
                yield Running(gateway, endpoint, sock.getsockname()[1], root, caches)
            finally:
                server.should_exit = True
                with anyio.CancelScope(shield=True):
                    await asyncio.wait_for(gateway.close(), WAIT)
                    await asyncio.wait_for(serving, WAIT)
                tasks.cancel_scope.cancel()


async def until(condition: Callable[[], Any], wait: float = WAIT, what: str = "") -> Any:
    """Wait for what has no event of its own to wait for."""
    deadline = time.monotonic() + wait
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"did not happen within {wait:g} s: {what or condition}")
        await asyncio.sleep(0.01)
    return value


def text(answer: Any) -> str:
    """The text of a tool's answer."""
    assert "result" in answer, answer
    value: str = answer["result"]["content"][0]["text"]
    return value


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def descriptors() -> int:
    """Open file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


# servers of the test's own


@dataclass
class Request:
    """What an HTTP server of the test's was sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def rpc(self) -> str:
        """The JSON-RPC method, or the HTTP one where there is none."""
        return self.json.get("method", "answer") if self.body else self.method


Handler = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


class HttpPeer:
    """An HTTP server whose every byte a test decides on."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.seen: list[Request] = []
        self.open: set[asyncio.StreamWriter] = set()
        self.accepted = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def methods(self) -> list[str]:
        return [request.rpc for request in self.seen]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open.add(writer)
        try:
            while True:
                raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = raw.strip().split("\r\n")
                method, path, _ = first.split(" ")
                headers = {}
                for line in lines:
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                request = Request(method, path, headers, body)
                self.seen.append(request)
                await self.handler(request, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    def drop(self) -> None:
        """Close every connection."""
        for writer in list(self.open):
            writer.transport.abort()


@contextlib.asynccontextmanager
async def http_peer(handler: Handler, ssl: Any = None) -> AsyncIterator[HttpPeer]:
    """Serve for the length of a block."""
    peer = HttpPeer(handler)
    server = await asyncio.start_server(peer._serve, "127.0.0.1", 0, limit=1 << 26, ssl=ssl)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        peer.drop()


def reply(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes = b"",
    kind: str = "application/json",
    **headers: str,
) -> None:
    """Write a plain response."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    if kind:
        lines.append(f"Content-Type: {kind}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def answer(writer: asyncio.StreamWriter, request: Request, result: Any, **headers: str) -> None:
    """Answer a JSON-RPC request with a result."""
    message = {"jsonrpc": "2.0", "id": request.json["id"], "result": result}
    reply(writer, 200, json.dumps(message).encode(), **headers)


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


ECHOED = {"content": [{"type": "text", "text": "hello"}]}


def mcp(
    tools: Iterable[Mapping[str, Any]] = (tool("echo"),),
    session: str | None = "s1",
    **handlers: Handler,
) -> Handler:
    """A handshake-era server that behaves, but for the methods given (``/`` written as ``_``)."""

    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        rpc = request.rpc
        if (special := handlers.get(rpc.replace("/", "_"))) is not None:
            await special(request, writer)
        elif request.method != "POST":
            reply(writer, 405)
        elif "id" not in request.json or rpc == "answer":
            reply(writer, 202, kind="")
        elif rpc == "initialize":
            value = {"protocolVersion": HANDSHAKE, "capabilities": {"tools": {"listChanged": True}}}
            more = {"Mcp_Session_Id": session} if session else {}
            answer(writer, request, {**value, "serverInfo": {"name": "p", "version": "1"}}, **more)
        elif rpc == "tools/list":
            answer(writer, request, {"tools": list(tools)})
        elif rpc == "tools/call":
            answer(writer, request, ECHOED)
        elif rpc == "server/discover":
            body = {"jsonrpc": "2.0", "id": request.json["id"], "error": {"code": -32601, "message": "no"}}
            reply(writer, 400, json.dumps(body).encode())
        else:
            answer(writer, request, {})

    return handle


def modern_mcp(tools: Iterable[Mapping[str, Any]] = (tool("echo"),), **handlers: Handler) -> Handler:
    """A server that speaks 2026-07-28 alone."""

    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        rpc = request.rpc
        if (special := handlers.get(rpc.replace("/", "_"))) is not None:
            await special(request, writer)
        elif request.method != "POST":
            reply(writer, 405)
        elif rpc == "server/discover":
            value = {
                "supportedVersions": [STATELESS],
                "capabilities": {"tools": {}},
                "resultType": "complete",
            }
            answer(writer, request, value)
        elif rpc == "tools/list":
            answer(writer, request, {"tools": list(tools), "resultType": "complete"})
        elif rpc == "tools/call":
            answer(writer, request, {**ECHOED, "resultType": "complete"})
        elif rpc == "subscriptions/listen":
            writer.write(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n: open\n\n")
        else:
            data = {"supported": [STATELESS], "requested": HANDSHAKE}
            error = {"code": -32022, "message": "Unsupported protocol version", "data": data}
            reply(
                writer,
                400,
                json.dumps({"jsonrpc": "2.0", "id": request.json.get("id"), "error": error}).encode(),
            )

    return handle
