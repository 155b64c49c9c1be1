"""The registry, kept in step with what servers list: tools, versions, pins, and whoever follows them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar

from gateway import protocol
from gateway.errors import NotFound, RpcError
from gateway.policy.pins import PinBook, PinPolicy
from registry.approvals import FIRST_USE, LATER_USE, PERSON, SUSPICIOUS, ApprovalRecords, Hold
from registry.errors import RegistryError
from registry.model import ServerCatalog
from registry.profiles import ProfileRecords
from registry.store import Store
from registry.sync import Offer, SyncReport, read_offer, sync_offer
from registry.tools import Pin, ToolRecords, ToolRef

log = logging.getLogger("toolyard")
T = TypeVar("T")

_SAID: Final = 5
"""Tools that the log names for one sync; a server can offer very many."""

Listener = Callable[[SyncReport], object]
"""Takes every report in which something changed, in the worker thread that writes the store. May block
for milliseconds, may read the store; what takes longer belongs into a thread of its own."""


class StoreWork(Protocol):
    """Does a piece of store work in a worker thread, one at a time."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]:
        """The result of the work; raises what it raises."""


class _Judged(NamedTuple):
    report: SyncReport
    pins: list[Pin]
    holds: list[Hold]


class Registrar:
    """Takes up each server's tools: what is new, changed or gone, and which of it is approved.

    :param stored: does store work in a worker thread.
    :param policy: the pin policy of a server, by its name.
    """

    def __init__(self, store: Store, stored: StoreWork, policy: Callable[[str], PinPolicy]) -> None:
        self.tools = ToolRecords(store)
        self.approvals = ApprovalRecords(store)
        self.profiles = ProfileRecords(store)
        self.book = PinBook(policy)
        self.reports: dict[str, SyncReport] = {}
        self._stored = stored
        self._listeners: list[Listener] = []
        self._turn = asyncio.Lock()

    def listen(self, listener: Listener) -> None:
        """Have every further change reported."""
        self._listeners.append(listener)

    async def load(self, catalogs: Iterable[ServerCatalog]) -> None:
        """Take up what the store knows, and the catalogs that were seen last. Raises StoreError.

        A process that was killed between keeping a catalog and its tools leaves the two apart: this
        brings them together.
        """
        async with self._turn:
            self.book.take(await self._stored(self.approvals.pins), await self._stored(self.approvals.holds))
        for catalog in catalogs:
            await self.sync(catalog)

    async def follow(self) -> None:
        """Another process has approved or withheld tools: what the store says now holds. Raises StoreError."""
        async with self._turn:
            pins, holds = await self._stored(self.approvals.both)
            self.book.replace(pins, holds)

    async def sync(self, catalog: ServerCatalog) -> SyncReport:
        """Make the registry's tools of a server those it lists now, and decide about what is new.

        A store that cannot be written is logged: what was decided holds in memory, and is written
        with the next sync.
        """
        async with self._turn:
            try:
                judged = await self._stored(partial(self._sync, catalog))
            except RegistryError as error:
                log.error("the tools of server '%s' could not be kept: %s", catalog.server, error)
                judged = await self._stored(partial(self._unkept, catalog))
            self.book.take(judged.pins, judged.holds)
            self.reports[catalog.server] = judged.report
        self._say(judged)
        return judged.report

    def _say(self, judged: _Judged) -> None:
        server = judged.report.server
        for hold in judged.holds[:_SAID]:
            log.warning("tool '%s' of server '%s' is withheld: %s", hold.ref.name, server, hold.detail)
        if len(judged.holds) > _SAID:
            log.warning("%d tools of server '%s' are withheld", len(judged.holds), server)
        if changed := [change.name for change in judged.report.updated]:
            named = ", ".join(changed[:_SAID]) + (" …" if len(changed) > _SAID else "")
            policy = self.book.policy(server)
            log.warning("server '%s' has changed %d tools (%s): %s", server, len(changed), policy, named)

    async def gone(self, servers: Iterable[str]) -> None:
        """These servers are not configured any more: their tools are offered no longer, pins stay."""
        async with self._turn:
            for server in servers:
                await self._stored(partial(self._write, server, Offer({})))
                self.reports.pop(server, None)

    async def forget(self, server: str) -> None:
        """A person removed the server: its tools go, and the approvals it had."""
        await self.gone([server])
        async with self._turn:
            await self._stored(partial(self.approvals.forget, server))
            self.book.forget(server)

    async def approve(self, server: str, tools: Mapping[str, str], by: str) -> list[ToolRef]:
        """A person approves definitions: as they now are, and only while they still are.

        :param tools: the definition hash of each, by name.
        :raises NotFound: the server offers no such tool.
        :raises RpcError: one has changed since the person looked at it.
        """
        async with self._turn:
            current = await self._offered(server)
            for name, digest in tools.items():
                self._known(server, name, current)
                if current[name] != digest:
                    raise RpcError(
                        protocol.INVALID_PARAMS,
                        f"Tool {server}/{name} has changed again since it was looked at.",
                        f"Look at it once more: toolyard registry diff {server}/{name}.",
                        status=409,
                    )
            pins = [Pin(ToolRef(server, name, digest), time.time(), by) for name, digest in tools.items()]
            await self._stored(partial(self.approvals.approve, pins))
            self.book.approve(pins)
            return [pin.ref for pin in pins]

    async def withhold(self, server: str, name: str, detail: str) -> ToolRef:
        """A person withholds a tool, however it is defined, until a person approves it. Raises NotFound."""
        async with self._turn:
            current = await self._offered(server)
            self._known(server, name, current)
            hold = Hold(ToolRef(server, name, current[name]), PERSON, detail, time.time())
            await self._stored(partial(self.approvals.judge, [], [hold]))
            self.book.take([], [hold])
            return hold.ref

    async def adopt(self, approved: Sequence[tuple[Pin, bytes]]) -> int:
        """Take over approvals that were given elsewhere, with the definitions they are about."""
        async with self._turn:
            await self._stored(partial(self.approvals.adopt, approved))
            self.book.approve([pin for pin, _ in approved], by_name=False)
            return len(approved)

    async def _offered(self, server: str) -> dict[str, str]:
        refs = await self._stored(partial(self.tools.current, server))
        return {ref.name: ref.hash for ref in refs}

    @staticmethod
    def _known(server: str, name: str, current: Mapping[str, str]) -> None:
        if name not in current:
            raise NotFound(
                f"Server '{server}' offers no tool named '{name}'.", f"See: toolyard registry list {server}."
            )

    def _sync(self, catalog: ServerCatalog) -> _Judged:
        offer = read_offer(catalog.tools)
        pins, holds = self._judge(catalog.server, offer)
        report = self._write(catalog.server, offer)
        self.approvals.judge(pins, holds)
        hashes = {name: digest for name, (digest, _) in offer.tools.items()}
        self.profiles.put(catalog, hashes, now=time.time())
        return _Judged(report, pins, holds)

    def _unkept(self, catalog: ServerCatalog) -> _Judged:
        offer = read_offer(catalog.tools)
        return _Judged(
            SyncReport(catalog.server, problems=offer.problems), *self._judge(catalog.server, offer)
        )

    def _write(self, server: str, offer: Offer) -> SyncReport:
        report = sync_offer(self.tools, server, offer)
        if report.changes:
            for listener in self._listeners:
                try:
                    listener(report)
                except Exception:  # whoever follows the registry must not keep it from its work
                    log.exception("following the tools of server '%s' failed", server)
        return report

    def _judge(self, server: str, offer: Offer) -> tuple[list[Pin], list[Hold]]:
        """Trust on first use, but for what looks poisoned: that waits for a person."""
        now = time.time()
        by = LATER_USE if self.book.knows(server) else FIRST_USE
        pins: list[Pin] = []
        holds: list[Hold] = []
        for name, (digest, body) in offer.tools.items():
            pin = self.book.pin(server, name)
            if (pin is not None and pin.ref.hash == digest) or self.book.hold(server, name) is not None:
                continue
            ref = ToolRef(server, name, digest)
            if (detail := suspicion(body)) is not None:
                holds.append(Hold(ref, SUSPICIOUS, detail, now))
            elif pin is None:
                pins.append(Pin(ref, now, by))
        return pins, holds


def suspicion(definition: bytes) -> str | None:
    """Why a definition waits for a person, in words; None where it need not."""
    from registry.poison import inspect, visible  # its patterns take 20 ms to compile

    try:
        finding = inspect(definition)
    except (ValueError, RecursionError) as error:
        return f"it cannot be looked at: {error}"
    if not finding.withhold:
        return None
    hidden: Mapping[str, str] = {path: visible(one.text) for path, one in finding.hidden}
    said = [f"{name}: {visible(words)!r}" for name, words in finding.signs]
    said += [f"a hidden character in {visible(path) or 'its top'} ({char})" for path, char in hidden.items()]
    return f"{'; '.join(said[:8])} (score {finding.score:g})"
