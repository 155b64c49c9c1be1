"""The ways in: HTTP paths to their endpoints, and the socket of ``toolyard stdio``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

from gateway.app import Gateway
from gateway.endpoint.http import HttpEndpoint
from gateway.endpoint.relay import MAX_LINE, StreamClient, read_hello, refuse_all
from gateway.errors import GatewayError, RpcError
from gateway.paths import StateDir
from gateway.policy.guard import refuse
from gateway.toolsets.book import Toolsets

log = logging.getLogger("toolyard")


class Front:
    """The outermost application: liveness, the endpoint and those of toolsets, nothing else."""

    def __init__(self, endpoint: HttpEndpoint, toolsets: Toolsets) -> None:
        self._endpoint = endpoint
        self._toolsets = toolsets

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Route one request by its path."""
        path = scope["path"]
        if path in ("/mcp", "/mcp/"):
            await self._endpoint(scope, receive, send)
            return
        if path.startswith("/mcp/"):
            await self._toolset(path[5:].rstrip("/"), scope, receive, send)
            return
        status, body = (200, b'{"status":"alive"}') if path == "/healthz" else (404, b'{"error":"not found"}')
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _toolset(self, name: str, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request to a toolset's endpoint; it keeps an idle gateway alive like any other."""
        plain = self._endpoint
        plain.active += 1
        try:
            endpoint = await self._toolsets.endpoint(name)
            await endpoint(scope, receive, send)
        except RpcError as error:
            await refuse(send, error.status, error.message, error.hint or "")
        finally:
            plain.active -= 1
            plain.served += 1


class Relays:
    """The clients that came through ``toolyard stdio``."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    @contextlib.asynccontextmanager
    async def listening(self, state: StateDir) -> AsyncIterator[None]:
        """Accept relays on the relay socket, where the platform has such sockets."""
        if not hasattr(socket, "AF_UNIX"):
            yield
            return
        from gateway.httpd import listen_unix

        server = await asyncio.start_unix_server(
            self._serve, sock=listen_unix(state.relay_socket), limit=MAX_LINE
        )
        try:
            yield
        finally:
            server.close()
            await self.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            hello = await read_hello(reader)
            if (toolset := hello.get("toolset")) is not None:
                await self._serve_toolset(str(toolset), hello.get("served"), reader, writer)
                return
            served = hello.get("served")
            client = StreamClient(self._gateway.dispatcher, self._gateway.notices, reader, writer)
            await client.serve(stale_lists=served is not None and served != self._gateway.catalog.etag)
        except (RpcError, ConnectionError) as error:
            log.debug("a relay was turned away: %s", error)
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve_toolset(
        self, name: str, served: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve a client of one toolset. It is cut off when that is removed, and told so when it is back."""
        try:
            view = await self._gateway.toolsets.view(name)
        except GatewayError as error:
            await refuse_all(reader, writer, error)
            return
        task = asyncio.current_task()
        assert task is not None
        view.connections.add(task)
        try:
            client = StreamClient(view.dispatcher, view.notices, reader, writer)
            await client.serve(stale_lists=served is not None and served != view.catalog.etag)
        finally:
            view.connections.discard(task)

    async def close(self) -> None:
        """End every relay's connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
