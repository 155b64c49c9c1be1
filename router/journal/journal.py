"""The journal: intents and outcomes, durable before anything relies on them.

A step's intent is written before its call, its outcome after it (write-ahead logging). What several
steps write at the same moment goes into one transaction (group commit; DeWitt et al. 1984): a commit
costs a disk flush, and a wave of parallel steps costs one, not one each.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

from router.errors import JournalError
from router.journal.database import Database
from router.journal.records import Change, Records
from router.runs import Decision, Run

T = TypeVar("T")

LEASE: Final = 60.0
"""Seconds after which the owner of a run that has written nothing is believed dead."""
RETENTION: Final = 30 * 86400.0
MAX_RUNS: Final = 10_000
TURNS: Final = 5
MAX_PENDING: Final = 65_536
"""Changes that may wait for the disk."""


class Journal(AbstractAsyncContextManager["Journal"]):
    """An async context manager over one database; every method is durable when it returns.

    Database work happens in one thread of its own. Raises JournalError.

    :param exclusive: whether this process alone may run what is in the journal, so that a run that is
        under way and not ours belongs to a process that is dead. True for one gateway per state
        directory, false for replicas, which go by leases.
    """

    def __init__(self, where: str | os.PathLike[str], *, exclusive: bool | None = None) -> None:
        self.owner = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._where = where
        self._exclusive = exclusive
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._pending: list[tuple[Change, asyncio.Future[None]]] = []
        self._last: asyncio.Future[None] | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._records: Records | None = None
        self._broken: dict[str, JournalError] = {}

    async def __aenter__(self) -> Self:
        try:
            database = await self._do(lambda: Database.open(self._where))
            self._records = Records(database)
            await self.prune()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        if self._records is not None:
            await self._do(self._records.database.close)
            self._records = None
        self._thread.shutdown(wait=False)

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    @property
    def _open(self) -> Records:
        if self._records is None:
            raise JournalError("The journal is closed.", "Open it first.")
        return self._records

    @property
    def force(self) -> bool:
        """Whether a run under way that is not ours has lost its owner for certain."""
        return not self._open.database.shared if self._exclusive is None else self._exclusive

    @property
    def shared(self) -> bool:
        """Whether other processes run what is in the journal, too: then leases have to be kept alive."""
        return not self.force

    async def read(self, work: Callable[[Records], T]) -> T:
        """Read what is there once all that was queued is: ``await journal.read(lambda r: r.steps(run))``."""
        records = self._open
        if self._last is not None and not self._last.done():
            await asyncio.wait([self._last])
        return await self._do(lambda: work(records))

    async def claim(self, run: str) -> Run:
        """Become the owner of a run that nobody runs. Raises UnknownRun, RunLost."""
        records, now, force = self._open, time.time(), self.force
        self._broken.pop(run, None)
        return await self._do(lambda: records.claim(run, self.owner, now=now, lease=now + LEASE, force=force))

    async def orphans(self) -> list[str]:
        """The runs that were under way when their process died, oldest first."""
        return await self.read(lambda records: records.orphans(now=time.time(), force=self.force))

    async def decide(self, run: str, step: str, decision: Decision) -> None:
        """Keep a person's word on a step. Raises UnknownRun."""
        await self.read(lambda records: records.decide(run, step, decision))

    async def prune(self) -> int:
        """Forget runs that ended long ago. Returns how many."""
        before = time.time() - RETENTION
        return await self.read(lambda records: records.prune(before=before, keep=MAX_RUNS))

    def write(self, change: Change) -> asyncio.Future[None]:
        """Queue a change; it is durable when the future is done.

        Changes of a run become durable in the order they were queued in, and none does after one that
        could not be written: a change that is found durable proves that all before it are.

        :raises JournalError: too many wait already.
        """
        if self._records is None or len(self._pending) >= MAX_PENDING:
            raise JournalError(
                "The journal takes no more changes: it is closed, or its disk does not keep up.",
                "Check the disk.",
            )
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(_seen)
        self._pending.append((change, future))
        self._last = future
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush(), name="journal")
        return future

    async def _flush(self) -> None:
        records = self._open
        while self._pending:
            # An outcome is followed by the intents of the steps that waited for it, or by the end of
            # the run. A few turns of the loop let those join: one disk flush a step instead of two.
            for _ in range(TURNS):
                await asyncio.sleep(0)
            group, self._pending = self._pending, []
            now = time.time()
            work = partial(records.apply, now=now, lease=now + LEASE)
            changes = [change for change, _ in group if change.run not in self._broken]
            try:
                refused = dict(zip(map(id, changes), await self._do(partial(work, changes)), strict=True))
            except Exception as error:  # whatever it is, those who wait have to learn of it
                failure = error if isinstance(error, JournalError) else _unforeseen(error)
                self._broken |= dict.fromkeys((change.run for change in changes), failure)
                refused = {}
            for change, future in group:
                refusal = refused.get(id(change)) or self._broken.get(change.run)
                if future.done():
                    continue
                if refusal is None:
                    future.set_result(None)
                else:
                    future.set_exception(refusal)


def _unforeseen(error: Exception) -> JournalError:
    failure = JournalError(f"A change could not be journalled: {type(error).__name__}: {error}.")
    failure.__cause__ = error
    return failure


def _seen(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
