"""One run while it runs: each step starts the moment its inputs exist.

The task-fetching unit of LLMCompiler (arXiv 2312.04511): there are no waves and no scheduler that
polls; the end of a step starts the steps that waited for it alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from router.calling import Calls
from router.consent import Asked, Consent
from router.errors import JournalError
from router.facts import Facts
from router.journal.journal import LEASE, Journal
from router.journal.records import Change
from router.plan import Plan, Step, to_json
from router.runs import Decision, Event, Failure, Question, Run, RunStatus, StepState, StepStatus
from router.trust import RULES, Rule

Watch = Callable[[Event, StepState | None], None]
"""Sees everything that happens, as it happens; must not block or raise."""

_NO_RESULT: Final = frozenset({StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED})
_PERSON: Final = frozenset({StepStatus.APPROVAL, StepStatus.UNKNOWN})
_OPEN: Final = _PERSON | {StepStatus.WAITING}
_REASONS: Final = {
    "deadline": "The run's time was over.",
    "cancelled": "The run was cancelled.",
    "invalid_plan": "The plan turned out not to be valid.",
    "unplanned": "The plan was never finished.",
}


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is to be made.

    :param deadline: seconds the run may take from its start, or from being taken up again.
    :param hedge: seconds after which a second call of a read-only tool is made beside the first.
    :param replans: how often the rest of the plan may be made anew.
    :param candidates: names of the tools that may be called; those of the plan where empty.
    """

    consent: Consent = Consent.READS
    deadline: float = 3600.0
    hedge: float | None = None
    replans: int = 2
    candidates: tuple[str, ...] = ()


@dataclass(slots=True)
class House:
    """What all runs of a process share.

    :param rules: which flows are stopped.
    """

    journal: Journal
    calls: Calls
    rules: tuple[Rule, ...] = field(default_factory=lambda: tuple(RULES))


@dataclass(frozen=True, slots=True)
class Party:
    """Who takes part in a run: whom to ask, and who watches."""

    ask: Asked | None = None
    watch: Watch | None = None


Serve = Callable[["Running", Step], Awaitable[None]]
"""Does one step (`router.serving`), up to its outcome, or until it is parked."""


class Running:
    """The steps of one run, what became of them, and the tasks that make more of them.

    :param record: the run as the journal has it, or is about to.
    :param tools: those that may be called, by name.
    :param states: of a run that is taken up again: where its steps stand.
    """

    def __init__(
        self,
        house: House,
        record: Run,
        options: Options,
        tools: Mapping[str, Facts],
        serve: Serve,
        party: Party,
        *,
        seq: int = 0,
        states: Mapping[str, StepState] | None = None,
        decisions: Mapping[str, Decision] | None = None,
    ) -> None:
        self.house, self.record, self.options, self.tools = house, record, options, tools
        self.run = record.id
        self.party = party
        self.steps: dict[str, Step] = {}
        self.states: dict[str, StepState] = dict(states or {})
        self.decisions: dict[str, Decision] = dict(decisions or {})
        self.added: set[str] = {id_ for id_, state in self.states.items() if state.added}
        self.sealed = asyncio.Event()
        self.fresh: dict[str, bytes] = {}
        """Large results by handle, until the journal has them."""
        self.stopped: str | None = None
        self.closing = False
        """Whether no word is taken any more: the run is about to end, or to be parked."""
        self.gone = asyncio.Event()
        self._serve = serve
        self._seq = seq
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._needed_by: dict[str, list[str]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._fault: BaseException | None = None

    # the plan -------------------------------------------------------------------------------------

    def add(self, steps: Iterable[Step], *, replanned: bool = False) -> None:
        """Take up steps; those that can start do, where the run is under way."""
        new = [step for step in steps if step.id not in self.steps]
        for step in new:
            self.steps[step.id] = step
            self._remember(step)
            if step.id not in self.states:
                tool = self.tools.get(step.tool)
                server, version = (tool.server, tool.definition.hash) if tool is not None else ("", "")
                self.states[step.id] = StepState(
                    step.id, step.tool, server, version, revision=self.record.revision, added=replanned
                )
                if replanned:
                    self.added.add(step.id)
        for step in new:
            self._start(step.id)

    def seal(self) -> None:
        """The plan is complete and valid: what is not read-only may start."""
        self.sealed.set()

    def plan(self, plan: Plan) -> None:
        """The plan is known as a whole."""
        self.record = replace(self.record, plan=to_json(plan))

    def replace_with(self, plan: Plan) -> None:
        """Go on with another plan (`router.replan`); what the old one finished stays."""
        wanted = {step.id: step for step in plan.steps}
        self.record = replace(self.record, plan=to_json(plan), revision=self.record.revision + 1)
        for id_, step in list(self.steps.items()):
            state = self.states[id_]
            if wanted.get(id_) == step:
                if state.status is StepStatus.SKIPPED:
                    self.states[id_] = replace(state, status=StepStatus.WAITING, failure=None, ended_at=None)
                continue
            del self.steps[id_]
            if id_ not in wanted:
                self.set(replace(state, status=StepStatus.REPLACED), "replaced")
            else:
                del self.states[id_]  # never called: what has its id now is another step
        self._needed_by = {}
        for step in self.steps.values():
            self._remember(step)
        self.add(wanted.values(), replanned=True)

    def _remember(self, step: Step) -> None:
        for need in step.depends_on:
            self._needed_by.setdefault(need, []).append(step.id)

    # running --------------------------------------------------------------------------------------

    async def go(self, feed: Callable[[], Any] | None = None) -> None:
        """Run until nothing can be done any more without a person's word.

        :param feed: runs beside the steps and adds more of them.
        :raises JournalError: what happens cannot be made durable; calls in flight are given up.
        """
        timer = asyncio.get_running_loop().call_later(self.options.deadline, self.stop, "deadline")
        beat = asyncio.create_task(self._beat(), name="lease") if self.house.journal.shared else None
        try:
            async with asyncio.TaskGroup() as self._group:
                if feed is not None:
                    self._feeding = self._group.create_task(feed(), name=f"run {self.run} plan")
                for id_ in list(self.steps):
                    self._start(id_)
            if self._fault is not None:
                raise self._fault
            self._end_waiting()
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            self._group = self._feeding = None
            timer.cancel()
            if beat is not None:
                beat.cancel()
                await asyncio.wait([beat])

    async def _beat(self) -> None:
        """Show other processes that this one lives, also while nothing happens."""
        while True:
            await asyncio.sleep(LEASE / 3)
            try:
                await self._write(Change(self.run, self.record.epoch))
            except JournalError:
                return

    def stop(self, reason: str) -> None:
        """Give the run up: calls in flight are cancelled, and what waits for them with them."""
        if self.stopped is None:
            self.stopped = reason
            self.sealed.set()
            for task in list(self._tasks.values()):
                task.cancel()
            if self._feeding is not None and self._feeding is not asyncio.current_task():
                self._feeding.cancel()

    def hear(self, step: str, decision: Decision) -> None:
        """Take a person's word while the run is under way."""
        self.decisions[step] = decision
        if step in self.steps:
            self._start(step)

    def heard(self) -> bool:
        """Whether a step that waited for a person's word has got it, and nothing was made of it yet."""
        return any(
            state.status in _PERSON and self._heard(state)
            for state in map(self.states.__getitem__, self.steps)
        )

    def _start(self, id_: str) -> None:
        """Start a step if it can be, or settle it if it cannot be any more."""
        state, step = self.states[id_], self.steps[id_]
        if self._group is None or self._fault is not None:
            return
        if id_ in self._tasks or state.status not in _OPEN:
            return
        if state.status in _PERSON and not self._heard(state):
            return
        needs = [self.states[need].status for need in step.depends_on if need in self.states]
        if self.stopped is not None:
            return
        if any(status in _NO_RESULT for status in needs):
            failure = Failure("needs_failed", "A step it needs has no result.")
            self.set(replace(state, status=StepStatus.SKIPPED, failure=failure), "skipped", end=True)
            self._release(id_)
        elif len(needs) == len(step.depends_on) and all(status is StepStatus.DONE for status in needs):
            task = self._group.create_task(self._do(step), name=f"run {self.run} step {id_}")
            self._tasks[id_] = task

    def _heard(self, state: StepState) -> bool:
        """Whether a person has said something about a step that waits for it.

        Leave to call is no leave to call again: where the outcome is unknown, the word has to be about
        that very call.
        """
        decision = self.decisions.get(state.id)
        return (
            decision is not None and state.question is not None and decision.digest == state.question.digest
        )

    async def _do(self, step: Step) -> None:
        try:
            await self._serve(self, step)
        except asyncio.CancelledError:
            if self.stopped is None:
                raise  # not by us: the process ends, and the journal says what was in flight
            self._gave_up(self.states[step.id])
        finally:
            self._tasks.pop(step.id, None)
        self._release(step.id)

    def _release(self, id_: str) -> None:
        """Start what waits for a step, before the disk has its outcome.

        Their intents are journalled behind that outcome, so nothing is changed by them before it is durable.
        """
        for other in self._needed_by.get(id_, ()):
            if other in self.steps:
                self._start(other)

    def _gave_up(self, state: StepState) -> None:
        assert self.stopped is not None
        failure = Failure(self.stopped, _REASONS[self.stopped])
        if state.status is StepStatus.RUNNING and not self.may_repeat(state):
            self.set(unknown(state, failure), "outcome_unknown", end=True, error=failure.kind)
        else:
            self.set(replace(state, status=StepStatus.CANCELLED, failure=failure), "cancelled", end=True)

    def _end_waiting(self) -> None:
        """Where the run was given up, nothing waits any more, save for a word on what was called."""
        if self.stopped is None:
            return
        kept = {StepStatus.UNKNOWN} if self.stopped == "cancelled" else _PERSON
        for state in [self.states[id_] for id_ in self.steps]:
            if state.status in _OPEN and state.status not in kept:
                failure = Failure(self.stopped, _REASONS[self.stopped])
                self.set(replace(state, status=StepStatus.CANCELLED, failure=failure), "cancelled", end=True)

    # what becomes of it ---------------------------------------------------------------------------

    def may_repeat(self, state: StepState) -> bool:
        """Whether a call may be made once more: the tool is what it was then, and still repeatable."""
        tool = self.tools.get(state.tool)
        if tool is None or tool.definition.hash != state.version:
            return False
        return state.repeatable and tool.repeatable

    def set(
        self,
        state: StepState,
        kind: str,
        *,
        end: bool = False,
        results: Iterable[tuple[str, bytes]] = (),
        **detail: Any,
    ) -> asyncio.Future[None]:
        """Set where a step stands and write it down; durable when the future is done."""
        if end:
            state = replace(state, ended_at=time.time())
        self.states[state.id] = state
        event = self._event(kind, state.id, state.attempts, detail)
        if self.party.watch is not None:
            self.party.watch(event, state)
        return self._write(
            Change(self.run, self.record.epoch, states=[state], events=[event], results=list(results))
        )

    def note(
        self,
        kind: str,
        step: str = "",
        *,
        begins: Run | None = None,
        fields: dict[str, Any] | None = None,
        **detail: Any,
    ) -> asyncio.Future[None]:
        """Write down something about the run, and set columns of it."""
        event = self._event(kind, step, 0, detail)
        if self.party.watch is not None:
            self.party.watch(event, self.states.get(step))
        return self._write(Change(self.run, self.record.epoch, begins, fields or {}, events=[event]))

    def _write(self, change: Change) -> asyncio.Future[None]:
        written = self.house.journal.write(change)
        written.add_done_callback(self._written)
        return written

    def _written(self, written: asyncio.Future[None]) -> None:
        """Nothing goes on that cannot be written down."""
        fault = None if written.cancelled() else written.exception()
        if fault is not None and self._fault is None:
            self._fault = fault
            for task in list(self._tasks.values()):
                task.cancel()

    def _event(self, kind: str, step: str, attempt: int, detail: dict[str, Any]) -> Event:
        self._seq += 1
        return Event(self._seq, time.time(), kind, step, self.record.revision, attempt, detail)

    def status(self) -> RunStatus:
        """Where the run stands, now that nothing can be done any more."""
        found = {self.states[id_].status for id_ in self.steps}
        if self.stopped == "cancelled":
            return RunStatus.CANCELLED
        if found & _PERSON:
            return RunStatus.WAITING
        return RunStatus.DONE if found <= {StepStatus.DONE} and self.stopped is None else RunStatus.FAILED


def unknown(state: StepState, failure: Failure) -> StepState:
    """A step that was called and has no outcome: only a person can say what becomes of it."""
    question = Question(
        ("outcome_unknown",),
        f"{state.tool} was called and no outcome came back; it may have been carried out. Call it again?",
        preview=state.sent,
        digest=again_digest(state),
    )
    return replace(state, status=StepStatus.UNKNOWN, failure=failure, question=question)


def again_digest(state: StepState) -> str:
    """What leave to call once more is bound to: this call and this attempt, and none after it."""
    return f"{state.digest}#{state.attempts}"


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    found = errors.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
