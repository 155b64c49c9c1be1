"""Calls that go on after their client was given a task (SEP-2663, extension io.modelcontextprotocol/tasks).

A call of a client that negotiated the extension is answered as usual where the answer comes soon;
where it does not, the client gets a task, and the call goes on here. The server needs to know nothing
of it. What it asks of the client meanwhile is the task's ``inputRequests``: every round of a call, in
either era, is an ``input_required`` result and a retry with the answers.

Tasks are written to the store before a client hears of them and whenever their status changes. After a
restart, those whose call was under way are ``failed`` and say so; one that waits for input of a server
that keeps no state goes on.

Of several gateways on one store, the one that makes a task's call owns it. The others read how it stands
and pass on what clients say of it; when the owner is dead, one of them takes the task over, as it would
its own after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import anyio.abc
import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.rounds import MAX_ROUNDS, input_required
from gateway.bridge.taskstate import Status, Suspended, Task
from gateway.errors import GatewayError, UpstreamProtocolError
from gateway.jsonrpc import Shallow
from gateway.upstream.call import CallCancelled, CallSite
from registry.errors import RegistryError
from registry.tasks import TaskRecord, TaskRecords

log = logging.getLogger("toolyard")
T = TypeVar("T")

PATIENCE: Final = 0.5
"""Seconds after which a call that has not been answered becomes a task."""
LIFETIME: Final = 3600.0
"""Seconds a task is kept from its creation on; ``ttlMs``."""
MAX_TASKS: Final = 1000
MAX_BYTES: Final = 256 * 1024 * 1024
"""Tasks, and bytes of their results, that are kept at a time; past that calls are answered as usual."""
SWEEP: Final = 15.0
_ANSWERS: Final = "answers"
_CANCEL: Final = "cancel"
"""Kinds of messages to the owner of a task."""


class StoreWork(Protocol):
    """Does a piece of store work in a worker thread, one at a time."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]:
        """The result of the work; raises what it raises."""


class TaskSite(CallSite):
    """The call site of a call that may become a task.

    :param principal: whose call it is.
    :param notify_client: takes what the server says while the client still waits for the answer.
    :param endpoint: the toolset it was made at, "" for the plain endpoint.
    """

    def __init__(
        self,
        principal: str,
        notify_client: Callable[[Shallow], None] | None = None,
        endpoint: str = "",
    ) -> None:
        super().__init__()
        self.principal = principal
        self.endpoint = endpoint
        self._notify_client = notify_client
        self.task: Task | None = None

    def notify(self, message: Shallow) -> None:
        if self.task is None:
            if self._notify_client is not None:
                self._notify_client(message)
        elif jsonrpc.text(message.get("method")) == "notifications/progress":
            # Not sent on ("not supported on tasks"), but what it says is the task's status message.
            said = jsonrpc.text((jsonrpc.object_of(message.get("params")) or {}).get("message"))
            if said is not None and self.task.status is Status.WORKING:
                self.task.message = said[:500]


class Endpoint(Protocol):
    """Where tasks' calls are made: what a server gives for the retry is sealed for it alone."""

    async def attempt(self, site: TaskSite, server: str, params: Shallow, headers: str) -> bytes:
        """Make one attempt at a call, with these HTTP header lines: the whole response. Raises GatewayError."""

    def abandon(self, server: str, waiting: Suspended) -> None:
        """Give up a call that waits for input."""


class Tasks:
    """The tasks of a gateway.

    :param tasks: the task group that the calls run in.
    :param stored: does store work.
    :param changed: told of every change of status.
    :param owner: the id of this gateway where others share the store, else "".
    """

    def __init__(
        self,
        records: TaskRecords,
        stored: StoreWork,
        tasks: anyio.abc.TaskGroup,
        changed: Callable[[Task], None],
        clock: Callable[[], float] = time.time,
        owner: str = "",
    ) -> None:
        self._owner = owner
        self._revision = 0
        self._records = records
        self._stored = stored
        self._group = tasks
        self._changed = changed
        self._clock = clock
        self._live: dict[str, Task] = {}
        self._sites: dict[str, TaskSite] = {}
        self._count = self._bytes = 0
        self._claiming = asyncio.Lock()  # whoever reads messages finds what was claimed taken up
        self.endpoints: dict[str, Endpoint] = {}
        """By toolset, "" for the plain one."""
        self.watched: Callable[[], set[str]] = set
        """The tasks that clients here listen to."""
        self.opener: Callable[[str], Awaitable[object]] | None = None
        """Opens the endpoint of a toolset that nobody has come to yet. Raises GatewayError."""

    def __len__(self) -> int:
        return len(self._live)

    async def start(self) -> None:
        """Take up the tasks of the process before this one, and begin to forget what has expired."""
        try:
            await self._stored(partial(self._records.expire, self._clock()))
            claim = partial(self._records.claim, self._owner, started=True)
            for record in await self._stored(claim):
                await self._take_up(record, "restarted")
            self._revision, _ = await self._stored(partial(self._records.since, 0, ()))
            self._count, self._bytes = await self._stored(self._records.size)
        except RegistryError as error:
            log.error("tasks of an earlier run cannot be taken up: %s", error)
        self._group.start_soon(self._sweep, name="expire tasks")

    async def _take_up(self, record: TaskRecord, why: str) -> None:
        """Go on with a task that a process left behind, or say that its call is lost."""
        try:
            task = Task.of(record)
        except (msgspec.MsgspecError, ValueError) as error:
            log.warning("task %s cannot be read: %s", record.ident, error)
            return
        if task.status is Status.INPUT_REQUIRED and task.suspended and task.suspended.portable:
            site = TaskSite(task.suspended.principal, endpoint=task.suspended.endpoint)
            self._live[task.ident], self._sites[task.ident] = task, site
            self._group.start_soon(self._go_on, task, site, name=f"task {task.ident}")
        else:
            task.move(Status.FAILED, self._clock(), *_lost(why))
            await self._stored(partial(self._records.put, task.record(self._owner)))

    async def _claim(self) -> None:
        """Take up what gateways that are dead have left."""
        for record in await self._stored(partial(self._records.claim, self._owner)):
            await self._take_up(record, "lost")

    async def follow(self) -> None:
        """Other gateways have written tasks: take what they pass on, and tell who listens here. Raises StoreError."""
        async with self._claiming:
            await self._claim()
            messages = await self._stored(partial(self._records.messages, self._owner))
            for message in messages:
                task = self._live.get(message.task)
                if task is None:
                    continue  # it has come to its end meanwhile
                if message.kind == _CANCEL:
                    self.cancel(task)
                elif task.answer(jsonrpc.shallow(message.body), self._clock()):
                    self._changed(task)
                    await self._save(task)
            await self._stored(partial(self._records.took, messages))
        others = self.watched() - self._live.keys()
        self._revision, changed = await self._stored(partial(self._records.since, self._revision, others))
        for record in changed:
            try:
                self._changed(Task.of(record))
            except (msgspec.MsgspecError, ValueError) as error:
                log.warning("task %s cannot be read: %s", record.ident, error)

    async def close(self) -> None:
        """Write down where tasks stand: calls under way are lost, what waits for input may go on elsewhere."""
        for task in list(self._live.values()):
            if task.status is Status.WORKING or (task.suspended and not task.suspended.portable):
                task.move(Status.FAILED, self._clock(), *_lost("stopped"))
            await self._save(task)

    async def call(
        self, site: TaskSite, server: str, params: Shallow, headers: str, portable: Callable[[], bool]
    ) -> bytes | Task:
        """Make a call: its answer, or a task that is on disk, whose call goes on.

        :param portable: whether the server keeps nothing of a call that waits for input.
        :raises GatewayError: as the call did.
        """
        first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._group.start_soon(self._first, site, server, dict(params), headers, first, name="call")
        try:
            await asyncio.wait({first}, timeout=PATIENCE)
            if first.done() or self._full:
                return await first
            now = self._clock()
            task = Task(secrets.token_urlsafe(18), server, now, now, now + LIFETIME)
            try:
                await self._stored(partial(self._records.put, task.record(self._owner)))
            except RegistryError as error:
                log.error("a call does not become a task: %s", error)
                return await first
        except asyncio.CancelledError:
            site.cancel("the client left")
            first.cancel()
            raise
        self._count += 1
        site.task = task
        site.allow(LIFETIME)
        self._live[task.ident], self._sites[task.ident] = task, site  # from now on it can be cancelled
        self._group.start_soon(
            self._see_through, task, site, first, params, headers, portable, name=f"task {task.ident}"
        )
        return task

    @property
    def _full(self) -> bool:
        return self._count >= MAX_TASKS or self._bytes >= MAX_BYTES

    async def get(self, ident: str) -> Task | None:
        """A task; None where there is none of that id, or no more. Raises StoreError."""
        task = self._live.get(ident)
        if task is None:
            record = await self._stored(partial(self._records.get, ident))
            if record is None:
                return None
            try:
                task = Task.of(record)
            except (msgspec.MsgspecError, ValueError) as error:
                log.warning("task %s cannot be read: %s", ident, error)
                return None
        return task if task.expires_at > self._clock() else None

    async def update(self, task: Task, responses: Shallow) -> None:
        """Take a client's answers; the call goes on once none is missing. Raises StoreError."""
        # Asked for by its id: what the client's request found in the store may have become ours since.
        live = self._live.get(task.ident)
        if live is not None:
            if live.answer(responses, self._clock()):
                self._changed(live)
        elif not task.over:
            body = jsonrpc.encode(responses)
            await self._stored(partial(self._records.send, task.ident, _ANSWERS, body))

    async def give_up(self, task: Task) -> None:
        """`cancel` for a client, also where another gateway makes the call. Raises StoreError."""
        live = self._live.get(task.ident)
        if live is not None:
            self.cancel(live)
        elif not task.over:
            await self._stored(partial(self._records.send, task.ident, _CANCEL))

    def cancel(self, task: Task) -> None:
        """Give a task's call up; the server is told. A task that is over stays as it is."""
        waiting = task.suspended
        if not task.move(Status.CANCELLED, self._clock(), "The client cancelled the task."):
            return
        site = self._sites.get(task.ident)
        if site is not None:
            site.cancel("the client cancelled the task")
        if waiting is not None:
            self._abandon(task.server, waiting)
        task.woken.set()
        self._changed(task)

    def leave(self, endpoint: str) -> None:
        """An endpoint is no more: nobody can ask for the tasks of its clients."""
        for ident in [ident for ident, site in self._sites.items() if site.endpoint == endpoint]:
            self.cancel(self._live[ident])
        self.endpoints.pop(endpoint, None)

    async def _attempt(self, site: TaskSite, server: str, params: Shallow, headers: str) -> bytes:
        if site.endpoint not in self.endpoints and self.opener is not None:
            with contextlib.suppress(GatewayError):  # it was removed
                await self.opener(site.endpoint)
        endpoint = self.endpoints.get(site.endpoint)
        if endpoint is None:
            raise CallCancelled(f"the toolset '{site.endpoint}' was removed")
        return await endpoint.attempt(site, server, params, headers)

    def _abandon(self, server: str, waiting: Suspended) -> None:
        # An endpoint that nobody has come to since the start has no call that could be given up.
        if (endpoint := self.endpoints.get(waiting.endpoint)) is not None:
            endpoint.abandon(server, waiting)

    # the call

    async def _first(
        self,
        site: TaskSite,
        server: str,
        params: Shallow,
        headers: str,
        first: asyncio.Future[bytes],
    ) -> None:
        """The first attempt, whose answer the client may still wait for."""
        try:
            answer = await self._attempt(site, server, params, headers)
        except Exception as error:
            if not first.done():
                first.set_exception(error)
                first.exception()  # seen: where the client has left, nobody waits for it
            elif not isinstance(error, GatewayError):
                log.exception("the call of a task failed after its client had left")
        except BaseException:
            first.cancel()
            raise
        else:
            if not first.done():
                first.set_result(answer)

    async def _see_through(
        self,
        task: Task,
        site: TaskSite,
        first: asyncio.Future[bytes],
        params: Shallow,
        headers: str,
        portable: Callable[[], bool],
    ) -> None:
        """Follow a call that has become a task to its end."""
        if self._settle(task, site, await self._outcome(first), params, headers, portable()):
            await self._finish(task)
        else:
            await self._go_on(task, site)

    async def _go_on(self, task: Task, site: TaskSite) -> None:
        """Wait for input and repeat the call with it, until it needs no more."""
        site.task = task
        site.allow(LIFETIME)
        for _ in range(MAX_ROUNDS):
            if task.status is Status.INPUT_REQUIRED:
                self._changed(task)
            await self._save(task)
            await task.woken.wait()
            task.woken.clear()
            waiting = task.suspended
            if task.over or waiting is None:
                break
            await self._save(task)
            params = dict(waiting.params)
            params["inputResponses"] = jsonrpc.raw({waiting.keys[key]: v for key, v in waiting.given.items()})
            if not jsonrpc.is_null(waiting.state):
                params["requestState"] = waiting.state
            outcome = await self._outcome(self._attempt(site, task.server, params, waiting.headers))
            if self._settle(task, site, outcome, waiting.params, waiting.headers, waiting.portable):
                break
        else:
            if task.suspended is not None:
                self._abandon(task.server, task.suspended)
            error = UpstreamProtocolError(f"Server '{task.server}' asked for input {MAX_ROUNDS} times.")
            self._settle(task, site, error, {}, "", False)
        await self._finish(task)

    @staticmethod
    async def _outcome(answer: Awaitable[bytes]) -> bytes | GatewayError:
        try:
            return await answer
        except GatewayError as error:
            return error
        except Exception as error:
            log.exception("the call of a task failed")
            return GatewayError(f"The gateway could not make the call: {type(error).__name__}.")

    def _settle(
        self,
        task: Task,
        site: TaskSite,
        outcome: bytes | GatewayError,
        params: Shallow,
        headers: str,
        portable: bool,
    ) -> bool:
        """Have a task take what its call came to. Returns whether it is over."""
        now = self._clock()
        if isinstance(outcome, CallCancelled):
            task.move(Status.CANCELLED, now, outcome.message)
        elif isinstance(outcome, GatewayError):
            task.move(Status.FAILED, now, outcome.message, jsonrpc.encode(outcome.to_error()))
        else:
            message = jsonrpc.shallow(outcome)
            if "error" in message:
                task.move(Status.FAILED, now, jsonrpc.describe(message["error"]), bytes(message["error"]))
            elif (wanted := input_required(message["result"])) is None:
                task.move(Status.COMPLETED, now, None, bytes(message["result"]))
            else:
                retry = {k: v for k, v in params.items() if k not in ("inputResponses", "requestState")}
                try:
                    task.suspend(site.principal, retry, headers, wanted, portable, now, site.endpoint)
                except msgspec.MsgspecError:
                    error = UpstreamProtocolError(
                        f"Server '{task.server}' asks for input in a form that is not MCP."
                    )
                    task.move(Status.FAILED, now, error.message, jsonrpc.encode(error.to_error()))
        return task.over

    async def _finish(self, task: Task) -> None:
        """A task is over: from now on the store alone knows of it."""
        self._sites.pop(task.ident, None)
        self._bytes += len(task.body)
        if task.over:  # else another gateway has it by now
            self._changed(task)
        if task.expires_at <= self._clock():
            self._live.pop(task.ident, None)
            await self._forget(task)
        elif await self._save(task):
            self._live.pop(task.ident, None)

    async def _forget(self, task: Task) -> None:
        try:
            await self._stored(partial(self._records.remove, task.ident))
        except RegistryError as error:
            log.error("task %s stays on disk until the next start: %s", task.ident, error)

    async def _save(self, task: Task) -> bool:
        """Write a task down. Where that fails it is still served, as long as this process lives."""
        try:
            kept = await self._stored(partial(self._records.put, task.record(self._owner)))
        except RegistryError as error:
            log.error("task %s is not on disk: %s", task.ident, error)
            return False
        if not kept:  # this process was silent for so long that it counted as dead
            log.warning("task %s was taken over by another gateway", task.ident)
            task.suspended = None
            task.woken.set()
        return True

    async def _sweep(self) -> None:
        """Forget what has expired, every now and then; a call that still runs is given up."""
        while True:
            await asyncio.sleep(SWEEP)
            now = self._clock()
            for task in [task for task in self._live.values() if task.expires_at <= now]:
                self.cancel(task)
                if task.ident not in self._sites:
                    self._live.pop(task.ident, None)
            try:
                if self._owner:
                    async with self._claiming:
                        await self._claim()
                if self._count or self._owner:
                    await self._stored(partial(self._records.expire, now))
                    self._count, self._bytes = await self._stored(self._records.size)
            except RegistryError as error:
                log.error("expired tasks could not be deleted: %s", error)


def _lost(why: str) -> tuple[str, bytes]:
    told = f"The gateway was {why} while the call was under way."
    error: dict[str, Any] = {
        "code": protocol.INTERNAL_ERROR,
        "message": f"{told} Find out whether it took effect before you call again.",
        "data": {"type": "task_lost", "retriable": False},
    }
    return told, jsonrpc.encode(error)
