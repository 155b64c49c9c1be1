"""The records of a run: what became of a plan, step by step.

A run is what a journal keeps and a person reads; a plan says what should be done, a run what was.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from router.labels import Label

MAX_MESSAGE: Final = 2000
"""Characters of an upstream's own words that are kept with a failure."""


class RunStatus(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    WAITING = "waiting_approval"
    """Everything that could be done is done; the rest waits for a person's word."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself or by a person's word."""
        return self in (RunStatus.DONE, RunStatus.FAILED, RunStatus.CANCELLED)


class StepStatus(StrEnum):
    """Where a step stands."""

    WAITING = "waiting"
    APPROVAL = "waiting_approval"
    RUNNING = "running"
    """The intent to call is durable and no outcome is."""
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    """A step it needs has no result."""
    CANCELLED = "cancelled"
    UNKNOWN = "outcome_unknown"
    """It may have happened. It is never called again without a person's word."""
    REPLACED = "replaced"
    """A later revision of the plan does without it."""

    @property
    def settled(self) -> bool:
        """Whether the step will not change any more in this revision of the plan."""
        return self in _SETTLED


_SETTLED: Final = frozenset(
    {StepStatus.DONE, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED, StepStatus.REPLACED}
)


class Verdict(StrEnum):
    """A person's word on a step that waits for it."""

    APPROVE = "approve"
    """Call it; where the outcome is unknown: call it again."""
    DENY = "deny"
    HAPPENED = "happened"
    """Where the outcome is unknown: it did happen. It counts as done, without a result."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step has no result.

    :param kind: our own class of it; all that a replanner is told, with the place in the schema.
    :param message: one sentence of our own.
    :param path: where in the arguments or in a result, as a JSON pointer or a reference's path.
    :param schema_path: the rule that was broken, as a JSON pointer into the tool's schema.
    :param said: what the tool or its server said, for a person alone: it is untrusted.
    """

    kind: str
    message: str
    retriable: bool = False
    path: str = ""
    schema_path: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A result, by handle.

    :param body: the JSON of the MCP ``CallToolResult`` where it is small; large ones stay in the journal.
    """

    handle: str
    size: int
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked before a step is called.

    :param rules: names of the rules that stop it; ``consent`` for a tool that is not read-only.
    :param flows: where its values come from, one sentence each.
    :param preview: the arguments as they would be sent, cut to a readable length.
    :param digest: of tool, version and arguments; a word holds for exactly these.
    """

    rules: tuple[str, ...]
    text: str
    flows: tuple[str, ...] = ()
    preview: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's word on one step, as it was asked about."""

    verdict: Verdict
    digest: str
    by: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class StepState:
    """Where a step of a run stands.

    :param version: the definition hash of the tool when it was called.
    :param digest: of the call that was made last: tool, version and arguments.
    :param sent: the arguments it was made with, cut to a readable length.
    :param repeatable: whether the tool counted as read-only or idempotent then.
    :param cached: whether the result is one of an earlier call with the same arguments.
    :param added: whether a replanner added it, so that no approval of the whole plan covers it.
    """

    id: str
    tool: str
    server: str = ""
    version: str = ""
    status: StepStatus = StepStatus.WAITING
    revision: int = 0
    attempts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    label: Label | None = None
    result: Stored | None = None
    failure: Failure | None = None
    question: Question | None = None
    cached: bool = False
    digest: str = ""
    sent: str = ""
    repeatable: bool = False
    added: bool = False

    @property
    def seconds(self) -> float | None:
        """How long it took, from its first call to its outcome."""
        if self.started_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.started_at


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a run.

    :param seq: grows by one with every event of a run.
    :param step: the step it is about, or empty for the run as a whole.
    """

    seq: int
    at: float
    kind: str
    step: str = ""
    revision: int = 0
    attempt: int = 0
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the journal knows it.

    :param plan: the plan as JSON (`router.plan.to_json`); of a plan still being decoded, what there is.
    """

    id: str
    request: str
    plan: dict[str, Any]
    options: dict[str, Any]
    status: RunStatus
    reason: str
    revision: int
    created_at: float
    updated_at: float
    ended_at: float | None
    owner: str | None
    epoch: int
    lease: float


def new_run_id(now: float | None = None) -> str:
    """An id that sorts by time and cannot be guessed."""
    return f"{int((time.time() if now is None else now) * 1000):011x}{secrets.token_hex(8)}"
