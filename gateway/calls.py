"""What calls of tools came to: counted and logged off the call path, a group at a time.

A call costs one entry in a list. A worker thread makes of the list what the store keeps: sums by
tool, and the audit log.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

import msgspec

from gateway import jsonrpc, protocol
from gateway.errors import GatewayError
from gateway.jsonrpc import Raw, Shallow
from gateway.policy.redaction import shape_of
from gateway.registering import StoreWork
from registry.audit import AuditedCall, AuditRecords
from registry.errors import RegistryError
from registry.store import Store
from registry.tools import Statistics, ToolRecords

log = logging.getLogger("toolyard")

FLUSH: Final = 3.0
"""Seconds after which calls are written: what a kill can cost of the statistics."""
EARLY: Final = 5_000
"""Calls that are written at once, however soon."""
MAX_PENDING: Final = 20_000
"""Calls that may wait to be written; more are not counted, and that is said."""
MAX_ARGUMENTS: Final = 4096
"""Bytes of arguments that are kept until then; of longer ones only the size."""

_IS_ERROR: Final = re.compile(rb'"isError"\s*:\s*true')
"""Within a string its quotes would be escaped, so it is a key, though perhaps a nested one."""
_HEAD: Final = len(b'{"jsonrpc":"2.0","id":')


_Call: TypeAlias = tuple[str, str, str | bytes, float, float, str, bytes]
"""One call as it is noted down: server, name, client (its name, or the ``_meta`` of a stateless request),
seconds, when it ended by `time.perf_counter`, outcome, arguments. A plain tuple, for it is made on every
call; everything else is worked out later."""


class CallLog:
    """Notes calls down, and writes them to the store now and then.

    :param stored: does store work in a worker thread.
    :param cost: what one call of a tool costs, by server and name.
    :param audit: whether single calls are kept, and not only what they add up to.
    """

    def __init__(
        self, store: Store, stored: StoreWork, cost: Callable[[str, str], float], *, audit: bool
    ) -> None:
        self._tools = ToolRecords(store)
        self._audit = AuditRecords(store) if audit else None
        self._stored = stored
        self._cost = cost
        self._pending: list[_Call] = []
        self._unsaved: dict[tuple[str, str], Statistics] = {}
        self._lost = 0
        self._due = asyncio.Event()
        self._full = asyncio.Event()
        self._turn = asyncio.Lock()

    def answered(
        self,
        server: str,
        name: str,
        client: str | Raw | None,
        params: Shallow,
        started: float,
        ident: Raw,
        answer: bytes,
    ) -> None:
        """A call got the response ``answer`` to the request ``ident``. Never blocks or raises."""
        if not answer.startswith(b',"r', _HEAD + len(bytes(ident))):
            outcome = "rpc_error"
        elif b"isError" in answer and _IS_ERROR.search(answer):
            outcome = result_outcome(jsonrpc.shallow(answer)["result"])
        else:
            outcome = "ok"
        self.note(server, name, client, params, started, outcome)

    def failed(
        self,
        server: str,
        name: str,
        client: str | Raw | None,
        params: Shallow,
        started: float,
        error: BaseException,
    ) -> None:
        """A call ended without a response of the server's. Never blocks or raises."""
        outcome = error.kind if isinstance(error, GatewayError) else "cancelled"
        self.note(server, name, client, params, started, outcome)

    def note(
        self, server: str, name: str, client: str | Raw | None, params: Shallow, started: float, outcome: str
    ) -> None:
        """A call ended like this. Never blocks or raises.

        :param started: when it began, by `time.perf_counter`.
        """
        pending = self._pending
        if len(pending) >= MAX_PENDING:
            self._lost += 1
            return
        kept = b""
        if self._audit is not None and (arguments := params.get("arguments")) is not None:
            kept = bytes(arguments)
            if len(kept) > MAX_ARGUMENTS:
                kept = b"%d" % len(kept)
        ended = time.perf_counter()
        who = client if isinstance(client, str) else bytes(client or b"")
        pending.append((server, name, who, ended - started, ended, outcome, kept))
        if len(pending) == 1:
            self._due.set()
        elif len(pending) == EARLY:
            self._full.set()

    async def run(self) -> None:
        """Write what was noted, for ever; asleep while nobody calls."""
        while True:
            await self._due.wait()
            try:
                async with asyncio.timeout(FLUSH):
                    await self._full.wait()
            except TimeoutError:
                pass
            await self.flush()

    async def flush(self) -> None:
        """Write what was noted. What cannot be written is kept as sums, and logged."""
        async with self._turn:
            calls, self._pending = self._pending, []
            lost, self._lost = self._lost, 0
            self._due.clear()
            self._full.clear()
            if lost:
                log.warning("%d calls were not counted: there were more than can be kept", lost)
            if not calls and not self._unsaved:
                return
            sums = await self._stored(partial(self._sums, calls))
            try:
                await self._stored(
                    partial(self._tools.count, [(*tool, total) for tool, total in sums.items()])
                )
                self._unsaved = {}
            except RegistryError as error:
                self._unsaved = sums
                log.error("calls could not be counted in the store, and will be later: %s", error)
                return
            if self._audit is not None and calls:
                try:
                    await self._stored(partial(self._write_audit, self._audit, calls))
                except RegistryError as error:
                    log.error("%d calls are missing from the audit log: %s", len(calls), error)

    def _sums(self, calls: list[_Call]) -> dict[tuple[str, str], Statistics]:
        counted: dict[tuple[str, str], list[float]] = {}
        for server, name, _, seconds, _, outcome, _ in calls:
            total = counted.get((server, name))
            if total is None:
                total = counted[server, name] = [0, 0, 0.0]
            total[0] += 1
            total[1] += outcome == "ok"
            total[2] += seconds
        sums = dict(self._unsaved)
        for tool, (number, good, seconds) in counted.items():
            old = sums.get(tool, _NOTHING)
            sums[tool] = Statistics(
                old.calls + int(number),
                old.successes + int(good),
                old.seconds + seconds,
                old.cost + number * self._cost(*tool),
            )
        return sums

    @staticmethod
    def _write_audit(audit: AuditRecords, calls: list[_Call]) -> None:
        zero = time.time() - time.perf_counter()
        shapes: dict[bytes, str] = {}
        clients: dict[bytes, str] = {}
        rows = []
        for server, name, client, seconds, ended, outcome, arguments in calls:
            shape = shapes.get(arguments)
            if shape is None:
                shape = shapes[arguments] = _kept(arguments)
            if isinstance(client, bytes):
                who = clients.get(client)
                if who is None:
                    who = clients[client] = _named(client)
                client = who
            rows.append(AuditedCall(zero + ended - seconds, client, server, name, outcome, seconds, shape))
        audit.add(rows)


_NOTHING: Final = Statistics()


def _kept(arguments: bytes) -> str:
    return (
        f'"{arguments.decode()} bytes"' if arguments.isdigit() else shape_of(arguments) if arguments else ""
    )


def result_outcome(result: Raw) -> str:
    """``tool_error`` where a tool's result says so itself, else ``ok``."""
    try:
        flag = jsonrpc.shallow(result).get("isError") if b"isError" in bytes(result) else None
    except msgspec.MsgspecError:
        return "ok"
    return "tool_error" if flag is not None and bytes(flag) == b"true" else "ok"


def _named(meta: bytes) -> str:
    """What a stateless client calls itself in the ``_meta`` of its request."""
    try:
        info = jsonrpc.value(jsonrpc.shallow(meta)[protocol.META_CLIENT_INFO])
    except (msgspec.MsgspecError, KeyError, RecursionError):
        return ""
    return f"{info.get('name', '')} {info.get('version', '')}".strip()[:200] if isinstance(info, dict) else ""
