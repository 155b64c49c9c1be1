"""What the start of a server takes: a person's approval, its environment, its log, its line of life."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import anyio.to_thread

from gateway.config.servers import resolve
from gateway.errors import NotApproved
from gateway.hosted.entry import approval_of, is_hosted, launched
from gateway.hosted.environments import Environments
from gateway.upstream.lifeline import Lifeline
from gateway.upstream.pool import Connector
from gateway.upstream.serverlog import ServerLog, log_path
from gateway.upstream.supervisor import Upstream
from registry.model import Approval, Server, ServerSpec, Transport
from registry.store import Store

T = TypeVar("T")


class Stored(Protocol):
    """Does store work in a worker thread, one piece at a time."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]: ...


class Starting:
    """Nothing starts but through here.

    :param upstreams: the servers by name, as their owner has them.
    :param log_dir: where servers' logs go; None keeps their last lines in memory only.
    """

    def __init__(
        self, store: Store, stored: Stored, upstreams: Mapping[str, Upstream], log_dir: Path | None
    ) -> None:
        self._store = store
        self._stored = stored
        self._upstreams = upstreams
        self._log_dir = log_dir
        self._logs: dict[str, ServerLog] = {}
        self._trusted: dict[str, ServerSpec] = {}
        self._environ = dict(os.environ)
        self.lifeline = Lifeline()
        """What every child of the gateway hangs on."""
        self._environments = Environments(self.lifeline)

    def trust(self, spec: ServerSpec) -> None:
        """Take an entry as approved as it stands: a person named the file it is in, or it is ours."""
        self._trusted[spec.name] = spec

    def distrust(self, name: str) -> None:
        """End that."""
        self._trusted.pop(name, None)

    def switched(self, old: ServerSpec, new: ServerSpec) -> None:
        """An entry was switched on or off, and is otherwise what it was."""
        if self._trusted.get(old.name) == old:
            self._trusted[old.name] = new

    async def approval(self, spec: ServerSpec) -> Approval | None:
        if spec.transport is not Transport.STDIO:
            return None
        key, detail = await anyio.to_thread.run_sync(lambda: approval_of(spec, self._environ))
        return Approval(key, spec.name, detail, time.time())

    async def approval_state(self, spec: ServerSpec) -> dict[str, object] | None:
        """The approval key of a command and whether a person has approved it. Raises GatewayError."""
        approval = await self.approval(spec)
        if approval is None:
            return None
        return {"key": approval.key, "approved": approval.key in await self._stored(self._store.approvals)}

    def server_log(self, name: str) -> ServerLog:
        """The log of a server, the same one across restarts."""
        if name not in self._logs:
            path = log_path(self._log_dir, name) if self._log_dir is not None else None
            self._logs[name] = ServerLog(path)
        return self._logs[name]

    async def connector(self, server: Server) -> Connector:
        """Resolve and check an entry. Raises NotApproved, ConfigError."""
        hosted = is_hosted(server.spec)
        await self.permit(server)
        if not hosted:
            spec = resolve(server.spec, self._environ)
        else:
            spec = await anyio.to_thread.run_sync(launched, server.spec)
            if await self._environments.missing(server.spec):
                await self._build(server.spec)
        return Connector(spec, self._environ, self.lifeline, self.server_log(server.name))

    async def permit(self, server: Server) -> None:
        """Raises NotApproved, and whatever keeps an entry from being approved."""
        approval = await self.approval(server.spec)
        if approval is not None and approval.key not in await self._stored(self._store.approvals):
            if self._trusted.get(server.name) != server.spec:
                raise NotApproved(
                    f"The command of server '{server.name}' has not been approved: {approval.detail}.",
                    f"Run: toolyard approve {server.name}.",
                )
            await self._stored(partial(self._store.approve, approval))
            del self._trusted[server.name]  # as it stood at start: what replaces the program is asked about

    async def _build(self, spec: ServerSpec) -> None:
        upstream, server_log = self._upstreams.get(spec.name), self.server_log(spec.name)
        server_log.write("[toolyard] building the environment")
        with upstream.building() if upstream is not None else nullcontext():
            await self._environments.ready(spec)
        server_log.write("[toolyard] the environment is built")

    async def close(self) -> None:
        """End what is being built, and whatever was started and still runs."""
        await self._environments.close()
        await self.lifeline.close()
        for server_log in self._logs.values():
            server_log.flush()
