"""A stdio server: a child process of ours in a process group of its own, one JSON message per line."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final, cast

import anyio

from gateway import jsonrpc, protocol
from gateway.errors import RpcError, UpstreamError, UpstreamProtocolError, UpstreamUnavailable
from gateway.jsonrpc import Shallow
from gateway.protocol import Era
from gateway.upstream import base
from gateway.upstream.base import MAX_MESSAGE
from gateway.upstream.call import CallSite, PendingCall, Reply
from gateway.upstream.lifeline import MARKER, Lifeline
from gateway.upstream.onestream import OneStreamConnection
from gateway.upstream.peer import (
    Peer,
    WrongEraError,
    initialize_params,
    peer_from_discover,
    peer_from_initialize,
    stateless_meta,
)
from gateway.upstream.serverlog import LINE, ServerLog

log = logging.getLogger("toolyard.upstream")

EOF_GRACE: Final = 1.5
"""Seconds a child has to leave after its stdin was closed, and again after SIGTERM."""
LAST_WORDS: Final = 0.2
"""Seconds to go on reading the pipes of a child that has exited."""
UNNOTICED: Final = 0.005
"""Seconds that taking what a child wrote may keep others waiting before the child has to wait too."""
STDERR_LINES: Final = 1000
"""Lines of one read that are looked at; a flood is skipped to its end."""
STDERR_LINE: Final = LINE
WRITE_HIGH_WATER: Final = 4 * 1024 * 1024
"""Bytes that may wait for a child that does not read its stdin, before callers have to wait."""


class StdioConnection(OneStreamConnection):
    """Starts ``argv`` and speaks newline-delimited JSON-RPC with it.

    The reader is tolerant: a line on stdout that is no JSON-RPC message is counted, kept for the
    log and skipped, so that a server which prints is still a server.
    """

    def __init__(
        self,
        server: str,
        era: Era,
        argv: list[str],
        env: Mapping[str, str],
        cwd: str | None,
        lifeline: Lifeline,
        server_log: ServerLog,
        on_message: Callable[[Shallow], None],
        on_lost: Callable[[str], None],
    ) -> None:
        super().__init__(server, on_message, on_lost)
        self._era = era
        self._argv, self._env, self._cwd = argv, env, cwd
        self._lifeline = lifeline
        self._log = server_log
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._exited = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._closing = False
        self._end_reason = ""
        self._last_words = ""
        self.garbage = 0

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        return self._transport.get_pid() if self._transport and not self._exited.is_set() else None

    async def open(self, timeout: float) -> Peer:
        loop = asyncio.get_running_loop()
        marker = self._lifeline.marker()
        try:
            transport, _ = await loop.subprocess_exec(
                lambda: _ChildProtocol(self),
                *self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**self._env, MARKER: marker},
                cwd=self._cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise UpstreamUnavailable(
                f"Cannot start '{self._argv[0]}' for server '{self.server}': {error.strerror or error}.",
                "Check the command and its directory.",
            ) from None
        self._transport = transport
        self._lifeline.add(transport.get_pid(), marker)
        self._stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
        try:
            if self._stdin.is_closing():  # it has ended already: its exit code and last words say why
                await self._exits_within(5 * LAST_WORDS)
            else:
                self._stdin.set_write_buffer_limits(high=WRITE_HIGH_WATER)
            async with asyncio.timeout(timeout):
                self.peer = await self._handshake(timeout)
            if self.peer.era is Era.STATELESS:
                await self._start_listening(self._listen)
            return self.peer
        except TimeoutError:
            await self._close_for_sure()
            raise UpstreamUnavailable(
                f"Server '{self.server}' started but did not finish its handshake within {timeout:g} s"
                f"{self._said()}.",
                "Run its command by hand to see what it waits for.",
            ) from None
        except BaseException:
            await self._close_for_sure()
            raise

    async def _close_for_sure(self) -> None:
        """Close although whoever opened it was cancelled: a child must not stay behind."""
        with anyio.CancelScope(shield=True):
            await self.close()

    async def _handshake(self, timeout: float) -> Peer:
        # `initialize` first, although the specification suggests probing with server/discover: nearly
        # every server of today knows it, some old ones never answer an unknown first request, and a
        # 2026-07-28 server must refuse it with an error, which settles its era at once.
        refusal = None
        if self._era is Era.HANDSHAKE:
            reply = await self.request("initialize", initialize_params(self.declared), timeout=timeout)
            if reply.result is not None:
                peer = peer_from_initialize(self.server, reply)
                await self.notify("notifications/initialized")
                return peer
            refusal = reply.error
        params = {"_meta": jsonrpc.raw(dict(stateless_meta()))}
        discover = await self.request("server/discover", params, timeout=timeout)
        found = peer_from_discover(self.server, discover)
        if found is not None:
            return found
        if refusal is None:
            raise WrongEraError(f"Server '{self.server}' does not speak {protocol.LATEST_STATELESS}.")
        raise UpstreamProtocolError(
            f"Server '{self.server}' refused the handshake: {jsonrpc.describe(refusal)}.",
            "Check the server's log and its version.",
        )

    async def _listen(self, ident: int, params: Shallow) -> Reply:
        return await self._request(ident, "subscriptions/listen", params, base.FOR_EVER)

    async def request(
        self,
        method: str,
        params: Shallow,
        *,
        timeout: float,
        site: CallSite | None = None,
        headers: bytes = b"",
    ) -> Reply:
        return await self._request(self.new_id(), method, params, timeout, site)

    async def _request(
        self, ident: int, method: str, params: Shallow, timeout: float, site: CallSite | None = None
    ) -> Reply:
        if not self._writable.is_set():
            await self._drain(timeout)
        data, token = self.prepare(params, ident)
        what = f"{method} on server '{self.server}'"
        call = PendingCall(ident, timeout, site, token, what, params.get("name"))
        self._pending[ident] = call
        try:
            self._write(jsonrpc.request(ident, method, data))
            reply = await call.wait()
            self._attribution.answered(call)
            return reply
        except (asyncio.CancelledError, UpstreamError) as error:
            self._attribution.given_up(call)
            if self._stdin is not None and not self._closing and method != "initialize":
                reason = "timeout" if isinstance(error, UpstreamError) else "cancelled by the caller"
                params = {"requestId": jsonrpc.raw(ident), "reason": jsonrpc.raw(reason)}
                self._write_quietly(jsonrpc.notification("notifications/cancelled", jsonrpc.encode(params)))
            raise
        finally:
            call.settle()
            self._pending.pop(ident, None)

    async def notify(self, method: str, params: Shallow | None = None) -> None:
        if not self._writable.is_set():
            await self._drain(10.0)
        self._write(jsonrpc.notification(method, jsonrpc.encode(params) if params is not None else None))

    async def _drain(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._writable.wait()
        except TimeoutError:
            raise UpstreamUnavailable(
                f"Server '{self.server}' does not read its input.", "Restart the server."
            ) from None

    def _write(self, line: bytes) -> None:
        if self._stdin is None or self._stdin.is_closing() or self._end_reason:
            raise UpstreamUnavailable(
                self._end_reason or f"Server '{self.server}' is not running{self._said()}.",
                "It is started again on the next call.",
            )
        self._stdin.write(line.replace(b"\n", b" ") + b"\n" if b"\n" in line else line + b"\n")

    def _write_quietly(self, line: bytes) -> None:
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.write(line + b"\n")

    def _said(self) -> str:
        return f" (its last words: {self._last_words!r})" if self._last_words else ""

    # from the child

    def rest(self, fd: int, seconds: float) -> None:
        """Read nothing of a pipe for a while: a child that floods us has half of our time at most."""
        pipe = (
            cast(asyncio.ReadTransport, self._transport.get_pipe_transport(fd)) if self._transport else None
        )
        if pipe is None or pipe.is_closing() or not pipe.is_reading():
            return
        pipe.pause_reading()

        def resume() -> None:
            if not pipe.is_closing():
                pipe.resume_reading()

        asyncio.get_running_loop().call_later(seconds, resume)

    def line_received(self, line: bytes) -> None:
        """A complete line of the child's stdout."""
        start = line.lstrip()[:1]
        if not start:
            return
        try:
            messages = jsonrpc.parse(line) if start in b"{[" else None
        except RpcError:
            messages = None
        if messages is None:
            self.garbage += 1
            if self.garbage <= 20:
                self.wrote(b"[stdout] " + line)
            return
        for message in messages if isinstance(messages, list) else [messages]:
            self._take(message, self._write_quietly)

    def wrote(self, line: bytes) -> None:
        """A line for the server's log."""
        self._last_words = line[:STDERR_LINE].decode(errors="replace").rstrip()
        self._log.write(self._last_words)

    def child_exited(self) -> None:
        """The child has ended, for whatever reason."""
        if self._exited.is_set():
            return
        code = self._transport.get_returncode() if self._transport else None
        self._exited.set()
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"exited with code {code}"
        self._end(how)

    def output_closed(self) -> None:
        """The child closed its stdout and lives on: no answer can come any more."""
        if not self._exited.is_set():
            self._end("closed its output")

    def _end(self, how: str) -> None:
        if self._end_reason:
            return
        self._writable.set()
        self._attribution.close()
        self._end_reason = f"Server '{self.server}' {how}{self._said()}."
        for call in list(self._pending.values()):
            call.fail(UpstreamUnavailable(self._end_reason, "It is started again on the next call."))
        if not self._closing and self.peer is not None:  # else whoever opens it is told by an error
            self._on_lost(self._end_reason)

    def overflow(self) -> None:
        """The child wrote a line longer than a message may be."""
        reason = f"Server '{self.server}' sent a line longer than {MAX_MESSAGE >> 20} MiB."
        for call in list(self._pending.values()):
            call.fail(UpstreamProtocolError(reason, "Ask for less, or page the result."))

    async def close(self) -> None:
        """stdin EOF, then SIGTERM, then SIGKILL to the whole group (2025-11-25, Lifecycle: Shutdown)."""
        if self._transport is None:
            return
        self._closing = True
        if self._listening is not None:
            await self._listening.close()
        pid = self._transport.get_pid()
        if self._stdin is not None:
            self._stdin.close()
        if not await self._exits_within(EOF_GRACE):
            _signal_group(pid, signal.SIGTERM)
            if not await self._exits_within(EOF_GRACE):
                _signal_group(pid, _SIGKILL)
                await self._exits_within(EOF_GRACE)
        _signal_group(pid, _SIGKILL)  # what the child left behind in its group
        self._lifeline.discard(pid)
        self._transport.close()
        for call in list(self._pending.values()):
            call.fail(UpstreamUnavailable(f"Server '{self.server}' was stopped."))

    async def _exits_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        except TimeoutError:
            return False
        return True


_SIGKILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)


def _signal_group(pid: int, number: int) -> None:
    try:
        if sys.platform == "win32":
            os.kill(pid, number)
        else:
            os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # the group is gone already


class _ChildProtocol(asyncio.SubprocessProtocol):
    """Splits the child's output into lines, in time linear in its length."""

    def __init__(self, connection: StdioConnection) -> None:
        self._connection = connection
        self._parts: dict[int, list[bytes]] = {1: [], 2: []}
        self._size = {1: 0, 2: 0}
        self._skipping = False
        self._last_call: asyncio.TimerHandle | None = None

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._stderr(data)
            return
        began = time.perf_counter()
        self._stdout(data)
        spent = time.perf_counter() - began
        if spent > UNNOTICED:
            self._connection.rest(fd, spent)

    def _stdout(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            parts = self._parts[1]
            if self._skipping:
                self._skipping = False
            elif parts:
                parts.append(line)
                self._connection.line_received(b"".join(parts))
            else:
                self._connection.line_received(line)
            self._parts[1], self._size[1] = [], 0
        if rest and not self._skipping:
            self._parts[1].append(rest)
            self._size[1] += len(rest)
            if self._size[1] > MAX_MESSAGE:
                self._parts[1], self._size[1], self._skipping = [], 0, True
                self._connection.overflow()

    def _stderr(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines[-STDERR_LINES:]:
            whole = b"".join(self._parts[2]) + line
            self._parts[2], self._size[2] = [], 0
            if whole.strip():
                self._connection.wrote(whole)
        if rest and self._size[2] < STDERR_LINE:
            self._parts[2].append(rest[:STDERR_LINE])
            self._size[2] += len(rest)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:  # before a child's exit, or instead of it
            asyncio.get_running_loop().call_later(LAST_WORDS, self._connection.output_closed)
        elif fd == 2 and self._parts[2]:
            self._stderr(b"\n")  # the last words need not end a line

    def process_exited(self) -> None:
        # Its last words may still be in the pipes, which a grandchild may hold open for ever.
        self._last_call = asyncio.get_running_loop().call_later(LAST_WORDS, self._connection.child_exited)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._last_call is not None:
            self._last_call.cancel()
        self._connection.child_exited()

    def pause_writing(self) -> None:
        self._connection._writable.clear()

    def resume_writing(self) -> None:
        self._connection._writable.set()
