"""``tasks/get``, ``tasks/update``, ``tasks/cancel``, and ``tools/call`` of a client that takes tasks.

SEP-2663, extension io.modelcontextprotocol/tasks; 2026-07-28 only. A handshake-era client gets no
tasks, the experimental ones of 2025-11-25 included: they are not offered to it, so its call goes on
until it is answered, with progress.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any, Final, Protocol

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.tasks import Tasks, TaskSite
from gateway.bridge.taskstate import Suspended, Task
from gateway.endpoint.caller import Caller
from gateway.errors import RpcError, UpstreamUnavailable
from gateway.jsonrpc import Raw, Shallow
from gateway.protocol import Era
from gateway.sealing import Sealer
from gateway.upstream.supervisor import Upstream

OWN: Final = ""
"""The server of a task that is ours."""
WRAPPED_LIFETIME: Final = 30 * 24 * 3600.0
"""Seconds that the id of a server's own task is good for; the server may forget it sooner."""
_NEEDLE: Final = protocol.TASKS_EXTENSION.encode()
_ACK: Final = b'{"resultType":"complete"}'


class Calls(Protocol):
    """What the dispatcher does for tasks."""

    def upstream(self, name: str) -> Upstream | None:
        """The server of that name."""

    async def attempt(
        self, caller: Caller, ident: Raw, server: str, params: Shallow, headers: bytes
    ) -> bytes:
        """Pass a tool call on: the whole response. Raises GatewayError."""

    def abandon(self, principal: str, server: str, method: str, params: Shallow, handle: str) -> None:
        """Give up a call that is parked."""


class TaskCaller(Caller):
    """Who a task's call is made for: a client of the stateless era that may have gone meanwhile."""

    __slots__ = ("_site",)

    def __init__(self, site: TaskSite, log_level: int | None, headers: Mapping[bytes, bytes] | None) -> None:
        super().__init__(Era.STATELESS, None, None, log_level, headers, site.principal)
        self._site = site
        site.forward_cancel(self)

    def notify(self, message: Shallow) -> None:
        self._site.notify(message)


class TaskMethods:
    """Serves the extension's requests.

    :param ids: seals task ids.
    :param endpoint: whose clients it serves, as the sealer knows it; tasks' calls are made through it.
    """

    def __init__(self, tasks: Tasks, calls: Calls, ids: Sealer, endpoint: str = "") -> None:
        self._tasks = tasks
        self._calls = calls
        self._ids = ids
        self._endpoint = endpoint
        tasks.endpoints[endpoint] = self

    @staticmethod
    def concerns(params: Shallow, definition: bytes) -> bool:
        """Whether a tool call has to do with tasks: the client takes some, or the tool needs one."""
        return (_NEEDLE in bytes(params["_meta"]) if "_meta" in params else False) or task_support(
            definition
        ) == "required"

    async def call(
        self, caller: Caller, ident: Raw, server: str, params: Shallow, headers: bytes, definition: bytes
    ) -> bytes:
        """A tool call that has to do with tasks. Raises GatewayError."""
        support = task_support(definition)
        if not declares_tasks(params):
            if support == "required":
                raise missing_extension()
            return await self._calls.attempt(caller, ident, server, params, headers)
        if support == "forbidden" or await self._offers_tasks(server):
            answer = await self._calls.attempt(caller, ident, server, params, headers)
            return self._with_wrapped_id(caller, server, answer)
        site = TaskSite(caller.principal, caller.notify, self._endpoint)
        caller.forward_cancel(site)
        lines = headers.decode("latin-1")
        done = await self._tasks.call(site, server, params, lines, lambda: self._portable(server))
        if isinstance(done, bytes):
            message = jsonrpc.shallow(done)
            if "error" in message:
                return jsonrpc.error(ident, message["error"])
            return jsonrpc.result(ident, message["result"])
        lifetime = done.expires_at - done.created_at
        task_id = self._ids.seal(caller.principal, "", f"{OWN}\0{done.ident}", lifetime)
        return jsonrpc.result(ident, jsonrpc.encode({"resultType": "task", **done.fields(task_id)}))

    async def get(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        """``tasks/get``. Raises GatewayError."""
        task_id, found = await self._find(caller, params, "tasks/get")
        if isinstance(found, Task):
            return jsonrpc.result(
                ident, jsonrpc.encode({"resultType": "complete", **found.detailed(task_id)})
            )
        return await self._passed_on(caller, ident, "tasks/get", found, params)

    async def update(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        """``tasks/update``. Raises GatewayError."""
        _, found = await self._find(caller, params, "tasks/update")
        if not isinstance(found, Task):
            return await self._passed_on(caller, ident, "tasks/update", found, params)
        responses = jsonrpc.object_of(params.get("inputResponses"))
        if responses is None:
            raise RpcError(protocol.INVALID_PARAMS, "tasks/update needs inputResponses, an object.")
        await self._tasks.update(found, responses)
        return jsonrpc.result(ident, _ACK)

    async def cancel(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        """``tasks/cancel``. Raises GatewayError."""
        _, found = await self._find(caller, params, "tasks/cancel")
        if not isinstance(found, Task):
            return await self._passed_on(caller, ident, "tasks/cancel", found, params)
        await self._tasks.give_up(found)
        return jsonrpc.result(ident, _ACK)

    async def watchable(self, caller: Caller, task_ids: Iterable[str]) -> dict[str, str]:
        """Of these task ids those whose changes we tell of, by the task's own id."""
        opened = ((task_id, self._opened(caller, task_id)) for task_id in task_ids)
        return {own[1]: task_id for task_id, own in opened if own is not None and own[0] == OWN}

    async def follow(
        self, caller: Caller, task_ids: Iterable[str], tell: Callable[[str, Shallow], None]
    ) -> tuple[list[str], Callable[[], None]]:
        """Have servers tell of tasks of their own: the ids of those they agree to, and how to end it.

        :param tell: takes the id that the client knows, and the task as the server tells of it.
        """
        watches = []
        for task_id in task_ids:
            opened = self._opened(caller, task_id)
            upstream = self._calls.upstream(opened[0]) if opened is not None and opened[0] != OWN else None
            if opened is not None and upstream is not None:
                watches.append((task_id, upstream.task_watches, opened[1], partial(tell, task_id)))

        def end() -> None:
            for _, server, own, told in watches:
                server.remove(own, told)

        try:
            agreed = await asyncio.gather(*(server.add(own, told) for _, server, own, told in watches))
        except BaseException:
            end()
            raise
        return [watch[0] for watch, yes in zip(watches, agreed, strict=True) if yes], end

    async def state(self, own: str, task_id: str) -> dict[str, Any] | None:
        """A task as a notification tells of it."""
        task = await self._tasks.get(own)
        return task.detailed(task_id) if task is not None else None

    # ids

    def _opened(self, caller: Caller, task_id: str) -> tuple[str, str] | None:
        payload = self._ids.open(caller.principal, "", task_id)
        if payload is None:
            return None
        server, _, own = payload.partition("\0")
        return server, own

    async def _find(self, caller: Caller, params: Shallow, method: str) -> tuple[str, Task | tuple[str, str]]:
        """The id a client gave, and its task: ours, or a server and its own id. Raises RpcError."""
        if caller.era is not Era.STATELESS:
            raise RpcError(protocol.METHOD_NOT_FOUND, f"Method not found: {method}")
        if not declares_tasks(params):
            raise missing_extension()
        task_id = jsonrpc.text(params.get("taskId"))
        opened = self._opened(caller, task_id) if task_id is not None else None
        if task_id is not None and opened is not None:
            if opened[0] != OWN:
                return task_id, opened
            task = await self._tasks.get(opened[1])
            if task is not None:
                return task_id, task
        raise RpcError(
            protocol.INVALID_PARAMS,
            "Task not found: the id is none that this gateway gave you, or the task has expired.",
            "Call the tool again.",
        )

    # servers that have tasks of their own

    async def _offers_tasks(self, server: str) -> bool:
        upstream = self._calls.upstream(server)
        if upstream is None or await upstream.era(Era.STATELESS) is not Era.STATELESS:
            return False
        peers = (connection.peer for connection in upstream.connections)
        return any(
            peer.era is Era.STATELESS and peer.offers("extensions", protocol.TASKS_EXTENSION)
            for peer in peers
            if peer is not None
        )

    def _with_wrapped_id(self, caller: Caller, server: str, answer: bytes) -> bytes:
        """The answer to a call; where it is a task of the server's, under an id of ours."""
        if b'"task"' not in answer:
            return answer
        message = jsonrpc.shallow(answer)
        fields = jsonrpc.object_of(message.get("result")) or {}
        own = jsonrpc.text(fields.get("taskId"))
        if jsonrpc.text(fields.get("resultType")) != "task" or own is None:
            return answer
        sealed = self._ids.seal(caller.principal, "", f"{server}\0{own}", WRAPPED_LIFETIME)
        return jsonrpc.result(message["id"], jsonrpc.encode({**fields, "taskId": sealed}))

    async def _passed_on(
        self, caller: Caller, ident: Raw, method: str, found: tuple[str, str], params: Shallow
    ) -> bytes:
        server, own = found
        upstream = self._calls.upstream(server)
        if upstream is None:
            raise UpstreamUnavailable(f"Server '{server}', which has this task, was removed.")
        given = params["taskId"]
        _, reply = await upstream.request(
            caller.era, method, {**params, "taskId": jsonrpc.raw(own)}, site=caller
        )
        if reply.result is None:
            return jsonrpc.error(
                ident, reply.error or {"code": protocol.INTERNAL_ERROR, "message": "No result."}
            )
        fields = jsonrpc.object_of(reply.result) or {}
        if "taskId" in fields:
            fields["taskId"] = given
        return jsonrpc.result(ident, jsonrpc.encode(fields))

    # what the tasks need of us

    async def attempt(self, site: TaskSite, server: str, params: Shallow, headers: str) -> bytes:
        """Make one attempt at a task's call: the whole response. Raises GatewayError."""
        caller = TaskCaller(site, None, None)
        return await self._calls.attempt(caller, msgspec.Raw(b"0"), server, params, headers.encode("latin-1"))

    def abandon(self, server: str, waiting: Suspended) -> None:
        """Give up a call of a task that waits for input."""
        handle = jsonrpc.text(waiting.state)
        if handle is not None:
            self._calls.abandon(waiting.principal, server, "tools/call", waiting.params, handle)

    def _portable(self, server: str) -> bool:
        """Whether a server keeps nothing of a call that waits for input: those of 2026-07-28."""
        upstream = self._calls.upstream(server)
        peers = [c.peer for c in upstream.connections if c.peer is not None] if upstream is not None else []
        return any(peer.era is Era.STATELESS for peer in peers)


def declares_tasks(params: Shallow) -> bool:
    """Whether the client of a request declared the extension on it."""
    if "_meta" not in params or _NEEDLE not in bytes(params["_meta"]):
        return False
    try:
        meta = jsonrpc.object_of(params["_meta"]) or {}
        declared = jsonrpc.object_of(meta.get(protocol.META_CLIENT_CAPABILITIES)) or {}
        extensions = jsonrpc.object_of(declared.get("extensions")) or {}
    except msgspec.MsgspecError:
        return False
    return not jsonrpc.is_null(extensions.get(protocol.TASKS_EXTENSION))


def missing_extension() -> RpcError:
    """The error for a client that did not declare the extension on a request that needs it."""
    return RpcError(
        protocol.MISSING_CLIENT_CAPABILITY,
        "Missing required client capability",
        status=400,
        requiredCapabilities={"extensions": {protocol.TASKS_EXTENSION: {}}},
    )


@lru_cache(maxsize=4096)
def task_support(definition: bytes) -> str | None:
    """What a tool's definition says of tasks in ``execution.taskSupport``.

    ``required``: it is refused to clients that take none. ``forbidden``: it never becomes one. Where it
    says nothing a call becomes a task when it takes long.
    """
    if b"taskSupport" not in definition:
        return None
    try:
        execution = jsonrpc.object_of(jsonrpc.shallow(definition).get("execution")) or {}
    except msgspec.MsgspecError:
        return None
    return jsonrpc.text(execution.get("taskSupport"))
