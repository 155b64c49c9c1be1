"""Change notices on their way to every client that wants them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.taskstate import Task
from gateway.endpoint.caller import Caller
from gateway.endpoint.outbox import Outbox
from gateway.endpoint.sessions import Session, Sessions
from gateway.endpoint.tasks import TaskMethods, declares_tasks, missing_extension
from gateway.errors import RpcError
from gateway.jsonrpc import Raw, Shallow
from registry.model import ItemKind

METHODS: Final = {
    ItemKind.TOOL: "notifications/tools/list_changed",
    ItemKind.RESOURCE: "notifications/resources/list_changed",
    ItemKind.TEMPLATE: "notifications/resources/list_changed",
    ItemKind.PROMPT: "notifications/prompts/list_changed",
}
_FIELDS: Final = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}
LARGEST_UPDATE: Final = 16 * 1024
"""Bytes that a server may say along with an update; of more, clients are told the URI alone."""
MAX_SUBSCRIPTIONS: Final = 1000
"""Resources that one session, or one listener, may want to hear of."""
_TASK: Final = "notifications/tasks"


@dataclass(frozen=True, slots=True)
class Filter:
    """What a ``subscriptions/listen`` asks for (2026-07-28, Notification Filter)."""

    methods: frozenset[str]
    uris: frozenset[str]
    tasks: tuple[str, ...] = ()

    @classmethod
    def parse(cls, message: Shallow) -> Filter:
        """The filter of a request. Raises RpcError."""
        try:
            params = jsonrpc.value(message["params"])
            wanted = params["notifications"]
            uris = wanted.get("resourceSubscriptions") or []
            if not all(isinstance(uri, str) for uri in uris) or len(uris) > MAX_SUBSCRIPTIONS:
                raise ValueError
            methods = frozenset(method for field, method in _FIELDS.items() if wanted.get(field) is True)
            tasks = tuple(dict.fromkeys(wanted.get("taskIds") or ()))
            if not all(isinstance(task, str) for task in tasks) or len(tasks) > MAX_SUBSCRIPTIONS:
                raise ValueError
            if tasks and not declares_tasks(jsonrpc.shallow(message["params"])):
                raise missing_extension()
            return cls(methods, frozenset(uris), tasks)
        except (KeyError, TypeError, ValueError, AttributeError, msgspec.MsgspecError):
            raise RpcError(
                protocol.INVALID_PARAMS,
                "subscriptions/listen needs params.notifications, an object of the types wanted.",
                status=400,
            ) from None

    def acknowledged(self, tasks: Iterable[str] = ()) -> dict[str, object]:
        """The part of the filter that is honoured; of tasks these."""
        fields: dict[str, object] = {
            field: True for field, method in _FIELDS.items() if method in self.methods
        }
        if self.uris:
            fields["resourceSubscriptions"] = sorted(self.uris)
        if told := list(tasks):
            fields["taskIds"] = told
        return fields


def look_again(uris: Iterable[str]) -> list[bytes]:
    """The notices for a client that may have missed any: every list and these resources."""
    updated = "notifications/resources/updated"
    messages = [jsonrpc.notification(method) for method in sorted(set(METHODS.values()))]
    return messages + [jsonrpc.notification(updated, jsonrpc.encode({"uri": uri})) for uri in sorted(uris)]


@dataclass(frozen=True, slots=True)
class _Listener:
    outbox: Outbox
    meta: dict[str, Raw]
    wants: Filter
    tasks: dict[str, str]


class Notices:
    """Sends notices to handshake-era sessions and to the listeners of the stateless era.

    :param watch: has servers tell of updates to these resources; does not raise.
    :param unwatch: is told when a listener of these has left.
    """

    def __init__(
        self,
        sessions: Sessions,
        watch: Callable[[frozenset[str]], Awaitable[None]],
        unwatch: Callable[[frozenset[str]], None],
    ) -> None:
        self._sessions = sessions
        self._watch = watch
        self._unwatch = unwatch
        self._listeners: dict[int, _Listener] = {}
        self.tasks: TaskMethods | None = None

    @asynccontextmanager
    async def listening(
        self, outbox: Outbox, ident: Raw, wants: Filter, caller: Caller | None = None
    ) -> AsyncIterator[None]:
        """Deliver to the box what the filter lets through; the acknowledgement goes first.

        It is sent once servers were told what is watched: a client misses nothing from then on.
        """
        tasks: dict[str, str] = {}
        if wants.tasks and caller is not None and self.tasks is not None:
            tasks = await self.tasks.watchable(caller, wants.tasks)
        listener = _Listener(outbox, {protocol.META_SUBSCRIPTION_ID: ident}, wants, tasks)
        early: list[tuple[str, Shallow]] = []

        def tell(task_id: str, params: Shallow) -> None:
            if id(listener) not in self._listeners:
                early.append((task_id, params))  # nothing goes before the acknowledgement
                return
            params = {**params, "taskId": jsonrpc.raw(task_id)}
            outbox.put(_tagged(listener, _TASK, params), task_id.encode())

        theirs: list[str] = []
        unfollow: Callable[[], None] | None = None
        if (
            caller is not None
            and self.tasks is not None
            and (others := set(wants.tasks) - set(tasks.values()))
        ):
            theirs, unfollow = await self.tasks.follow(caller, sorted(others), tell)
        told = [*tasks.values(), *theirs]
        acknowledgement = {"_meta": listener.meta, "notifications": wants.acknowledged(told)}
        outbox.everything = tuple(_tagged(listener, method, {}) for method in sorted(wants.methods))
        try:
            await self._watch(wants.uris)
            outbox.put(
                jsonrpc.notification(
                    "notifications/subscriptions/acknowledged", jsonrpc.encode(acknowledgement)
                )
            )
            self._listeners[id(listener)] = listener
            for task_id, params in early:
                tell(task_id, params)
            await self._tell_of_tasks(listener)
            yield
        finally:
            self._listeners.pop(id(listener), None)
            self._unwatch(wants.uris)
            if unfollow is not None:
                unfollow()

    async def _tell_of_tasks(self, listener: _Listener) -> None:
        """Say how its tasks stand: what changed before it listened is not told of again."""
        for own, task_id in listener.tasks.items():
            assert self.tasks is not None
            state = await self.tasks.state(own, task_id)
            if state is not None:
                listener.outbox.put(_tagged(listener, _TASK, _raw(state)), own.encode())

    @property
    def watched_tasks(self) -> set[str]:
        """The tasks that somebody listens to."""
        return {own for listener in self._listeners.values() for own in listener.tasks}

    def task_changed(self, task: Task) -> None:
        """Tell those who listen to a task how it stands now."""
        for listener in self._listeners.values():
            if task.ident in listener.tasks:
                state = task.detailed(listener.tasks[task.ident])
                listener.outbox.put(_tagged(listener, _TASK, _raw(state)), task.ident.encode())

    def lists_changed(self, kinds: set[ItemKind]) -> None:
        """Tell everybody that lists look different now."""
        for method in sorted({METHODS[kind] for kind in kinds}):
            plain = jsonrpc.notification(method)
            for session in self._sessions:
                session.tell(plain)
            for listener in self._listeners.values():
                if method in listener.wants.methods:
                    listener.outbox.put(_tagged(listener, method, {}))

    @staticmethod
    def lists_changed_for(session: Session, kinds: set[ItemKind]) -> None:
        """Tell one session that lists look different from what it was shown."""
        for method in sorted({METHODS[kind] for kind in kinds}):
            session.tell(jsonrpc.notification(method))

    def resource_updated(self, uri: str, params: Shallow) -> None:
        """Tell those who subscribed to a resource that it has changed."""
        data = jsonrpc.encode(params)
        if len(data) > LARGEST_UPDATE:
            params = {"uri": params["uri"]}
            data = jsonrpc.encode(params)
        plain, about = jsonrpc.notification("notifications/resources/updated", data), uri.encode()
        for session in self._sessions:
            if uri in session.subscriptions:
                session.tell(plain)
        for listener in self._listeners.values():
            if uri in listener.wants.uris:
                listener.outbox.put(_tagged(listener, "notifications/resources/updated", params), about)

    def close(self) -> None:
        """End every listener's stream gracefully."""
        for listener in self._listeners.values():
            listener.outbox.close()


def _raw(fields: Mapping[str, object]) -> Shallow:
    return {key: jsonrpc.raw(value) for key, value in fields.items()}


def _tagged(listener: _Listener, method: str, params: Shallow) -> bytes:
    """A notice with the id of the request that asked for it (2026-07-28, Receiving Notifications)."""
    meta = jsonrpc.object_of(params.get("_meta")) or {}
    fields: dict[str, object] = {**params, "_meta": {**meta, **listener.meta}}
    return jsonrpc.notification(method, jsonrpc.encode(fields))
