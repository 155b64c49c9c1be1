"""One task: its status, what goes with it, and its two forms, on the wire and in the store.

SEP-2663, Tasks Extension: Tasks, Task Status.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from gateway import jsonrpc
from gateway.jsonrpc import Raw, Shallow
from registry.tasks import TaskRecord

POLL_INTERVAL_MS: Final = 1000
NO_STATE: Final = msgspec.Raw(b"null")
"""Where a server gave no ``requestState``; it is never null (2026-07-28, InputRequiredResult)."""


class Status(StrEnum):
    """Where a task stands."""

    WORKING = "working"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Suspended(msgspec.Struct, frozen=True, omit_defaults=True):
    """What it takes to go on with a call that waits for input, in this process or the next.

    :param principal: whose call it is.
    :param params: of the request, as they go to the server.
    :param headers: further HTTP header lines for a server of 2026-07-28.
    :param wanted: the server's requests that are not answered yet, by the key the client knows.
    :param given: the client's answers so far, by the same keys.
    :param keys: the server's own keys, by those; a key must not come twice in a task's life.
    :param state: the ``requestState`` to send back, or NO_STATE.
    :param portable: whether the server keeps nothing of the call meanwhile, so that it survives us.
    :param endpoint: the toolset it was made at, "" for the plain endpoint.
    """

    principal: str
    params: dict[str, Raw]
    wanted: dict[str, Raw]
    keys: dict[str, str]
    given: dict[str, Raw] = {}
    headers: str = ""
    state: Raw = NO_STATE
    portable: bool = False
    endpoint: str = ""


@dataclass(slots=True, eq=False)
class Task:
    """A task that has not come to its end, or whose end is not on disk yet.

    :param created_at: seconds since the epoch, as ``updated_at`` and ``expires_at``.
    :param body: the result of a completed task, the error of a failed one, as JSON.
    :param used: every key of a request for input that this task ever had.
    """

    ident: str
    server: str
    created_at: float
    updated_at: float
    expires_at: float
    status: Status = Status.WORKING
    message: str | None = None
    body: bytes = b""
    suspended: Suspended | None = None
    used: set[str] = field(default_factory=set)
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def over(self) -> bool:
        """Whether the status is final."""
        return self.status not in (Status.WORKING, Status.INPUT_REQUIRED)

    def move(self, status: Status, now: float, message: str | None = None, body: bytes = b"") -> bool:
        """Take a new status; a final one stays. Returns whether it was taken."""
        if self.over:
            return False
        self.status, self.message, self.body, self.updated_at = status, message, body, now
        if status is not Status.INPUT_REQUIRED:
            self.suspended = None
        return True

    def suspend(
        self,
        principal: str,
        params: Shallow,
        headers: str,
        fields: Shallow,
        portable: bool,
        now: float,
        endpoint: str = "",
    ) -> None:
        """Wait for the input that an ``input_required`` result asks for. Raises MsgspecError."""
        asked = jsonrpc.shallow(fields["inputRequests"]) if "inputRequests" in fields else {}
        keys = {self._fresh(key): key for key in asked}
        self.suspended = Suspended(
            principal=principal,
            params=params,
            wanted={key: asked[own] for key, own in keys.items()},
            keys=keys,
            headers=headers,
            state=fields.get("requestState", NO_STATE),
            portable=portable,
            endpoint=endpoint,
        )
        if not keys:  # "try again later": there is nothing that a client could answer
            self.woken.set()
        elif not self.over:
            self.status, self.message, self.updated_at = Status.INPUT_REQUIRED, None, now

    def _fresh(self, key: str) -> str:
        """The key, or one like it that this task has not used ("MUST be unique over the lifetime")."""
        name, number = key, 1
        while name in self.used:
            number += 1
            name = f"{key}-{number}"
        self.used.add(name)
        return name

    def answer(self, responses: Shallow, now: float) -> bool:
        """Take answers to what is outstanding, others are ignored. Returns whether any was taken."""
        waiting = self.suspended
        if waiting is None:
            return False
        taken = {key: value for key, value in responses.items() if key in waiting.wanted}
        if not taken:
            return False
        left = {key: value for key, value in waiting.wanted.items() if key not in taken}
        self.suspended = msgspec.structs.replace(waiting, wanted=left, given={**waiting.given, **taken})
        self.updated_at = now
        if not left:
            self.status = Status.WORKING
            self.woken.set()
        return True

    def record(self, owner: str = "") -> TaskRecord:
        """As the store keeps it, for the gateway that makes its call."""
        body = jsonrpc.encode((self.suspended, sorted(self.used))) if self.suspended else self.body
        return TaskRecord(
            self.ident,
            self.server,
            str(self.status),
            self.message,
            self.created_at,
            self.updated_at,
            self.expires_at,
            body,
            owner,
        )

    @classmethod
    def of(cls, record: TaskRecord) -> Task:
        """The task of a record. Raises MsgspecError where its body cannot be read."""
        task = cls(
            record.ident,
            record.server,
            record.created_at,
            record.updated_at,
            record.expires_at,
            Status(record.status),
            record.message,
        )
        if not task.over and record.body:
            task.suspended, used = msgspec.json.decode(record.body, type=tuple[Suspended, set[str]])
            task.used = used
        else:
            task.body = record.body
        return task

    def fields(self, task_id: str) -> dict[str, Any]:
        """The fields of ``Task`` that every form of it has."""
        fields: dict[str, Any] = {
            "taskId": task_id,
            "status": str(self.status),
            "createdAt": _iso(self.created_at),
            "lastUpdatedAt": _iso(self.updated_at),
            "ttlMs": round(1000 * (self.expires_at - self.created_at)),
            "pollIntervalMs": POLL_INTERVAL_MS,
        }
        if self.message is not None:
            fields["statusMessage"] = self.message
        return fields

    def detailed(self, task_id: str) -> dict[str, Any]:
        """``DetailedTask``: with the result, the error or the requests for input."""
        fields = self.fields(task_id)
        if self.status is Status.COMPLETED:
            fields["result"] = msgspec.Raw(self.body)
        elif self.status is Status.FAILED:
            fields["error"] = msgspec.Raw(self.body)
        elif self.status is Status.INPUT_REQUIRED and self.suspended is not None:
            fields["inputRequests"] = self.suspended.wanted
        return fields


def _iso(seconds: float) -> str:
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
