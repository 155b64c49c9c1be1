"""The toolsets of a gateway: those of config.toml, those in the store, and a view for each that is used."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import anyio
import anyio.abc
import anyio.to_thread

from gateway import protocol
from gateway.bridge.taskstate import Task
from gateway.catalog import ValidatorCache
from gateway.config.settings import Settings
from gateway.endpoint.http import HttpEndpoint
from gateway.errors import NotFound, RpcError
from gateway.finder import Finder
from gateway.jsonrpc import Shallow
from gateway.policy.consent import Approvals
from gateway.registering import StoreWork
from gateway.toolsets import rows
from gateway.toolsets.dispatch import Plans, Services
from gateway.toolsets.project import Projection, project, server_tags
from gateway.toolsets.trail import Trail
from gateway.toolsets.view import View, Wants, Yard
from registry.errors import BadToolset
from registry.store import Store
from registry.toolsets import Toolset, ToolsetRecords

log = logging.getLogger("toolyard")


class Listed(NamedTuple):
    """A toolset, and where it was defined: ``config`` or ``added``."""

    toolset: Toolset
    origin: str


class Toolsets:
    """All toolsets by name. Views are made when the first client comes, and kept.

    :param stored: does store work in a worker thread.
    :param cache_writer: keeps a toolset's first lists on disk, by its name; blocks.
    :param plans: serves the tools that run plans; None where none are run.
    """

    def __init__(
        self,
        yard: Yard,
        store: Store,
        stored: StoreWork,
        settings: Settings,
        tasks: anyio.abc.TaskGroup,
        interests: Wants,
        finder: Finder,
        cache_writer: Callable[[str, bytes], None] | None = None,
        plans: Plans | None = None,
    ) -> None:
        self._yard = yard
        self._store = store
        self._stored = stored
        self._settings = settings
        self._tasks = tasks
        self._interests = interests
        self._cache_writer = cache_writer
        self._records = ToolsetRecords(store)
        self._known: dict[str, Listed] = {n: Listed(t, "config") for n, t in settings.toolsets.items()}
        self._views: dict[str, View] = {}
        self.approvals = Approvals()
        self.finder = finder
        self.trail = Trail(self._keep_feedback, kept=settings.search.feedback)
        self._services = Services(
            finder, self.trail, self.approvals, ValidatorCache(), yard.registrar.book, yard.calls, plans
        )

    async def load(self) -> None:
        """Take up the toolsets of the store; config.toml wins over one of the same name."""
        try:
            known = await self._stored(self._records.all)
        except BadToolset as error:
            log.error("the stored toolsets cannot be read: %s", error)
            return
        for name, toolset in known.items():
            if name not in self._known:
                self._known[name] = Listed(toolset, "added")
            else:
                log.warning("toolset '%s' of the store is not used: config.toml has one of that name", name)

    async def follow(self) -> None:
        """Another gateway has changed toolsets of the store: serve them as they are now. Raises StoreError."""
        try:
            stored = await self._stored(self._records.all)
        except BadToolset as error:
            log.error("the stored toolsets cannot be read: %s", error)
            return
        added = {name for name, listed in self._known.items() if listed.origin == "added"}
        for name in added - stored.keys():
            await self._drop(name)
        for name, toolset in stored.items():
            if name in added or name not in self._known:
                await self._take(toolset)

    @property
    def watched_tasks(self) -> set[str]:
        """The tasks that clients of toolsets listen to."""
        return {ident for view in self._views.values() for ident in view.notices.watched_tasks}

    def all(self) -> Mapping[str, Listed]:
        """Every toolset, by name."""
        return dict(sorted(self._known.items()))

    def get(self, name: str) -> Listed:
        """A toolset. Raises NotFound."""
        found = self._known.get(name)
        if found is None:
            raise NotFound(
                f"There is no toolset named '{name[:64]}'.", "See: toolyard registry toolset list."
            )
        return found

    async def view(self, name: str) -> View:
        """The view of a toolset, with its projection made. Raises NotFound."""
        view = self._views.get(name)
        if view is None:
            toolset = self.get(name).toolset
            writer = partial(self._cache_writer, name) if self._cache_writer is not None else None
            view = self._views[name] = View(
                toolset,
                self._yard,
                self._interests,
                self._services,
                page_size=self._settings.page_size,
                max_body=self._settings.max_body,
                write_cache=writer,
            )
        await view.refresh()
        return view

    async def endpoint(self, name: str) -> HttpEndpoint:
        """The HTTP endpoint of a toolset. Raises RpcError with HTTP status 404."""
        try:
            return (await self.view(name)).endpoint
        except NotFound as error:
            raise RpcError(protocol.INVALID_REQUEST, error.message, error.hint, status=404) from None

    async def projected(self, name: str) -> Projection:
        """What a toolset comes to now, whether it has clients or not. Raises NotFound."""
        view = self._views.get(name)
        if view is not None:
            await view.refresh()
            return view.projection
        return await self.project(self.get(name).toolset)

    async def project(self, toolset: Toolset) -> Projection:
        """Apply a toolset to the catalog as it is."""
        tags = server_tags(self._yard.servers.values())
        catalog = self._yard.catalog
        return await anyio.to_thread.run_sync(
            partial(project, toolset, catalog, tags, plans=self._services.plans is not None)
        )

    # changes

    async def put(self, toolset: Toolset, *, new: bool) -> None:
        """Add a toolset, or change one; its clients are told what looks different.

        Raises RpcError (409) for one of config.toml, and for a new one whose name is taken; NotFound for
        a change of none; RegistryError.
        """
        if new and toolset.name in self._known:
            raise RpcError(
                protocol.INVALID_PARAMS,
                f"There is a toolset named '{toolset.name}' already.",
                f"Change it with: toolyard registry toolset edit {toolset.name}.",
                status=409,
            )
        if not new:
            self._own(toolset.name)
        await self._stored(partial(self._records.put, toolset))
        await self._take(toolset)

    async def _take(self, toolset: Toolset) -> None:
        known = self._known.get(toolset.name)
        if known is not None and known.toolset == toolset:
            return
        self._known[toolset.name] = Listed(toolset, "added")
        if (view := self._views.get(toolset.name)) is not None:
            view.toolset = toolset
            await view.refresh()

    async def remove(self, name: str) -> None:
        """Forget a toolset; its clients' sessions end. Raises NotFound, RpcError (409), RegistryError."""
        self._own(name)
        await self._stored(partial(self._records.remove, name))
        await self._drop(name)

    async def _drop(self, name: str) -> None:
        self._known.pop(name, None)
        if (view := self._views.pop(name, None)) is not None:
            await view.remove()

    def _own(self, name: str) -> None:
        if self.get(name).origin == "config":
            raise RpcError(
                protocol.INVALID_PARAMS,
                f"Toolset '{name}' is set by {self._settings.file}.",
                f"Change [toolsets.{name}] there, and restart the gateway.",
                status=409,
            )

    def catalog_changed(self) -> None:
        """The merged catalog was replaced: bring every view with clients up to date, in the background."""
        for view in self._views.values():
            self._tasks.start_soon(self._refresh, view, name=f"refresh {view.toolset.name}")

    @staticmethod
    async def _refresh(view: View) -> None:
        with contextlib.suppress(RpcError):  # it was removed meanwhile
            await view.refresh()

    def resource_updated(self, server: str, uri: str, params: Shallow) -> None:
        """A server says that a resource has changed."""
        for view in self._views.values():
            view.resource_updated(server, uri, params)

    def task_changed(self, task: Task) -> None:
        """A task has another status now."""
        for view in self._views.values():
            view.notices.task_changed(task)

    # feedback

    def _keep_feedback(self, pairs: list[tuple[str, str, str]]) -> None:
        from registry.tools import ToolRecords

        ToolRecords(self._store).put_feedback(pairs, now=time.time())

    async def keep_feedback(self) -> None:
        """Store the feedback that waits, in the background; called now and then."""
        if self.trail.waiting:
            self.finder.taught(await self._stored(partial(self.trail.store, self.trail.take())))

    def row(self, listed: Listed, projection: Projection) -> dict[str, Any]:
        """One toolset as the control socket shows it."""
        view = self._views.get(listed.toolset.name)
        clients = len(view.sessions) if view is not None else 0
        return rows.row(listed.toolset, listed.origin, projection, clients)

    async def close(self) -> None:
        """End the streams and parked calls of every view, and store what waits."""
        self.finder.close()
        for view in list(self._views.values()):
            await view.close()
        await self.keep_feedback()
