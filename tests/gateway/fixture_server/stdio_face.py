"""The fixture server on stdin and stdout: newline-delimited JSON-RPC."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from rpc import META, RpcError, dumps
from server import Listener, Server, Session


class Stdio:
    """One client on two pipes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._session: Session | None = None
        self._running: dict[Any, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Serve until stdin ends."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        async with asyncio.TaskGroup() as tasks:
            while line := await reader.readline():
                self._take(json.loads(line), tasks)
            for task in self._running.values():
                task.cancel()

    def _send(self, message: dict[str, Any]) -> None:
        sys.stdout.write(dumps(message) + "\n")
        sys.stdout.flush()

    def _take(self, message: dict[str, Any], tasks: asyncio.TaskGroup) -> None:
        method, ident = message.get("method"), message.get("id")
        if method is None:
            if self._session is not None:
                self._session.asker.answered(message)
        elif method == "notifications/cancelled":
            task = self._running.get((message.get("params") or {}).get("requestId"))
            if task is not None:
                task.cancel()
        elif method == "notifications/initialized" and self._session is not None:
            tasks.create_task(self._server.initialized(self._session))
        elif ident is not None:
            task = self._running[ident] = tasks.create_task(self._serve(ident, method, message))
            task.add_done_callback(lambda _: self._running.pop(ident, None))

    async def _serve(self, ident: Any, method: str, message: dict[str, Any]) -> None:
        params = message.get("params") or {}
        modern = META + "protocolVersion" in (params.get("_meta") or {})
        try:
            if method == "initialize":
                self._session, result = self._server.initialize(params, self._send)
                self._send({"jsonrpc": "2.0", "id": ident, "result": result})
                return
            if self._session is None and not modern and self._server.handshake:
                raise RpcError(-32600, "Send initialize first.")
        except RpcError as error:
            self._send({"jsonrpc": "2.0", "id": ident, "error": error.error})
            return
        if modern and method == "subscriptions/listen" and self._server.stateless:
            await self._listen(ident, params)
            return
        session = None if modern else self._session
        self._send(await self._server.serve(session, message, self._send, lambda: None))

    async def _listen(self, ident: Any, params: dict[str, Any]) -> None:
        listener = Listener(ident, params.get("notifications") or {}, self._send)
        listener.acknowledge()
        self._server.listeners.append(listener)
        try:
            await asyncio.Event().wait()  # until it is cancelled, or stdin ends
        finally:
            self._server.listeners.remove(listener)
