"""Search in a running gateway: loaded on first use, in threads of its own, in step with the catalogs.

Until somebody searches, nothing of it is imported and nothing read. The model is exported by a child
process and vectors are made in the background; until then search is by words, which is said once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import anyio.abc

from gateway.config.settings import SearchSettings
from gateway.threads import daemon
from registry.errors import RegistryError, SearchError
from registry.store import Store

if TYPE_CHECKING:
    from registry.search.engine import Found
    from registry.search.scope import Scope
    from registry.search.service import Health, SearchService
    from registry.sync import SyncReport

log = logging.getLogger("toolyard.search")
T = TypeVar("T")

AT_ONCE: Final = 2
"""Searches at a time: more would only wait for each other's CPU."""
LEARN_AFTER: Final = 100
LEARN_EVERY: Final = 3600.0
"""New rows of feedback, and seconds, between two trainings of the query adapter."""


class Finder:
    """Owns the search service of a gateway. Its methods belong to the event loop.

    :param cache: folder for exported models and index generations; None for search by words alone.
    """

    def __init__(
        self,
        store: Store,
        cache: Path | None,
        settings: SearchSettings,
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self._store = store
        self._cache = cache
        self._model = settings.model if cache is not None and settings.model else None
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._service: SearchService | None = None
        self._loading: asyncio.Task[SearchService] | None = None
        self._turn = asyncio.Lock()
        self._searches = asyncio.Semaphore(AT_ONCE)
        self._reports: list[SyncReport] = []
        self._wanted = False
        self._preparing = False
        self._learned_at = 0.0
        self._fresh = 0
        self._closed = False

    @property
    def loaded(self) -> bool:
        """Whether search is in memory."""
        return self._service is not None

    async def find(self, query: str, limit: int, scope: Scope) -> Found:
        """The tools that answer a request. Raises RegistryError."""
        return await self.search(lambda service: service.find(query, limit, scope))

    async def search(self, work: Callable[[SearchService], T]) -> T:
        """Have some work done with the search service, in a thread. Raises RegistryError."""
        try:
            service = await self._ready()
            async with self._searches:
                return await _threaded(partial(work, service))
        except RegistryError:
            raise
        except Exception as error:  # of a library below: a search fails, the gateway does not
            log.exception("a search failed")
            raise SearchError(
                f"The search failed: {type(error).__name__}: {error}.", "See the log."
            ) from error

    async def health(self) -> Health | None:
        """What the self-check finds; None while nothing is loaded."""
        return None if self._service is None else await _threaded(self._service.check)

    async def _ready(self) -> SearchService:
        if self._service is not None:
            return self._service
        if self._loading is None:
            self._wanted = True
            self._loading = asyncio.create_task(self._open(), name="search loads")
        loading = self._loading
        try:
            return await asyncio.shield(loading)  # who gives up waiting does not end it for the others
        finally:
            if loading.done() and self._loading is loading:
                self._loading = None  # done, or to be tried again

    async def _open(self) -> SearchService:
        began = time.perf_counter()
        service = self._service = await _threaded(self._load)
        log.info("search is loaded (%.1f s)", time.perf_counter() - began)
        self._follow()
        self._prepare(service)
        return service

    def _load(self) -> SearchService:
        from registry.search.service import SearchService

        service = SearchService(
            self._store,
            self._cache or Path(),
            model=self._model,
            say=lambda line: log.info("%s", line),
        )
        service.open()
        return service

    # keeping in step

    def hear(self, report: SyncReport) -> None:
        """Take over what a sync changed. From any thread; never blocks."""
        try:
            self._loop.call_soon_threadsafe(self.apply, report)
        except RuntimeError:
            return  # the gateway has ended

    def apply(self, report: SyncReport) -> None:
        """Take over what a sync changed. Costs nothing while nobody has searched: the store has it all."""
        if self._wanted and report.changes:
            self._reports.append(report)
            self._follow()

    async def follow(self) -> None:
        """Another process has changed the tools or the adapter in the store: search what is there now."""
        service = self._service
        if service is None or self._closed:
            return  # loading reads it all
        async with self._turn:  # after what we are told of our own changes
            if await _threaded(service.follow):
                self._prepare(service)

    def _follow(self) -> None:
        if not self._closed:
            self._tasks.start_soon(self._catch_up, name="search follows")

    async def _catch_up(self) -> None:
        async with self._turn:
            service = self._service
            if service is None or self._closed:
                return  # loading reads the store, and then comes here
            reports, self._reports = self._reports, []
            try:
                waiting = await _threaded(partial(self._apply, service, reports))
            except Exception:  # whatever it is: the next change, or the next start, makes up for it
                log.exception("search could not follow a change")
                return
        if waiting:
            self._prepare(service)

    @staticmethod
    def _apply(service: SearchService, reports: list[SyncReport]) -> int:
        waiting = 0
        for report in reports:
            waiting = service.apply(report)
        return waiting

    def _prepare(self, service: SearchService) -> None:
        if self._model is not None and not self._preparing and not self._closed:
            self._preparing = True
            self._tasks.start_soon(self._prepare_now, service, name="search prepares")

    async def _prepare_now(self, service: SearchService) -> None:
        try:
            while not self._closed:
                if not await _threaded(service.prepare):
                    return
                if not await _threaded(service.searcher.index.lacking):
                    return
        except Exception:  # a full disk, a library's fault: search goes on with what it has
            log.exception("search by meaning could not be prepared")
        finally:
            self._preparing = False

    # learning

    def taught(self, rows: int) -> None:
        """So many rows of feedback were stored: learn from them when there are enough."""
        self._fresh += rows
        due = self._fresh >= LEARN_AFTER and time.monotonic() - self._learned_at >= LEARN_EVERY
        service = self._service
        if due and service is not None and service.searcher.encoder is not None and not self._closed:
            self._fresh, self._learned_at = 0, time.monotonic()
            self._tasks.start_soon(self._learn, service, name="search learns")

    async def _learn(self, service: SearchService) -> None:
        try:
            report = await _threaded(service.learn)
        except Exception:  # the adapter in use stays
            log.exception("search did not learn")
        else:
            log.info("search learned from %s requests; kept: %s", report.get("pairs"), report.get("kept"))

    def close(self) -> None:
        """Start nothing more. What runs in threads ends with the process, and its children with that."""
        self._closed = True
        if self._loading is not None:
            self._loading.cancel()


async def _threaded(work: Callable[[], T]) -> T:
    """Do work that the end of the process need not wait for: training may outlast it."""
    return await daemon(work, "search")
