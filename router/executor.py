"""Runs plans: starts them, takes them up again, makes the rest of them anew, and never twice.

    async with Journal(path) as journal:
        executor = Executor(journal, call, lookup)
        outcome = await executor.run(plan)

``call`` makes a call (`router.calling.CallTool`), ``lookup`` says what is known of a tool by the name
that plans use. Everything that happens is in the journal before anything relies on it, so a run that
was killed is taken up where it stood (`resume`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from router.cache import ResultCache
from router.calling import Calls, CallTool
from router.check import check, step_problems
from router.errors import BadRequest, InvalidPlan, NotResumable, PlanError, RouterError, Unanswered
from router.facts import Facts
from router.journal.journal import LEASE, Journal
from router.limits import Limits, Slots
from router.plan import Definition, Plan, Step, from_json, to_json
from router.replan import Replanner, revised
from router.resume import restored
from router.running import House, Options, Party, Running
from router.runs import Decision, Run, RunStatus, StepState, StepStatus, Verdict, new_run_id
from router.serving import serve
from router.trust import RULES, Rule

Lookup = Callable[[str], Facts | None]
"""What is known of a tool, by the name that plans use; None where there is none of that name."""

_NOBODY: Final = Party()
_NOTHING: Final = msgspec.json.encode("")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has come to so far.

    :param steps: by id; those with a result have it by handle (`Executor.result`), whatever became of
        the others.
    """

    run: Run
    steps: Mapping[str, StepState]

    @property
    def status(self) -> RunStatus:
        """Where the run stands."""
        return self.run.status

    @property
    def waiting(self) -> list[StepState]:
        """The steps that wait for a person's word."""
        wanted = (StepStatus.APPROVAL, StepStatus.UNKNOWN)
        return [state for state in self.steps.values() if state.status in wanted]


class Executor:
    """Runs any number of plans at once, within limits that hold for all of them.

    :param replanner: makes the rest of a plan anew after a failure; None for never.
    :param rules: which flows of values are stopped.
    """

    def __init__(
        self,
        journal: Journal,
        call: CallTool,
        lookup: Lookup,
        *,
        limits: Limits | None = None,
        cache: ResultCache | None = None,
        replanner: Replanner | None = None,
        rules: Iterable[Rule] = RULES,
    ) -> None:
        self.journal = journal
        self._lookup = lookup
        self._replanner = replanner
        calls = Calls(call, Slots(limits or Limits()), cache=cache)
        self._house = House(journal, calls, tuple(rules))
        self._running: dict[str, Running] = {}

    # starting -------------------------------------------------------------------------------------

    async def run(self, plan: Plan, options: Options | None = None, party: Party = _NOBODY) -> Outcome:
        """Run a plan until it is done, or waits for a person. Raises what `start` raises, and JournalError."""
        _, going = self.start(plan, options, party)
        return await going

    def start(
        self, plan: Plan, options: Options | None = None, party: Party = _NOBODY
    ) -> tuple[str, Coroutine[Any, Any, Outcome]]:
        """Begin a run: its id, and what has to be awaited for anything to happen.

        :raises InvalidPlan: it may not run as it stands; nothing was called.
        :raises Unanswered: it asks for values that nobody gave; nothing was called.
        :raises BadRequest: it holds what is no JSON.
        """
        options = options or Options()
        tools = self._tools(options.candidates or tuple(step.tool for step in plan.steps))
        check(plan, _definitions(tools))
        _answered(plan)
        running = self._begin(plan, options, tools, party)
        running.add(plan.steps)
        running.seal()
        self._running[running.run] = running
        return running.run, self._go(running, plan)

    async def stream(
        self, steps: AsyncGenerator[Step, None], request: str, options: Options, party: Party = _NOBODY
    ) -> Outcome:
        """Run a plan while it is being made, until it is done, or waits for a person (`start_stream`)."""
        _, going = self.start_stream(steps, request, options, party)
        return await going

    def start_stream(
        self, steps: AsyncGenerator[Step, None], request: str, options: Options, party: Party = _NOBODY
    ) -> tuple[str, Coroutine[Any, Any, Outcome]]:
        """Begin to run a plan while it is being made: read-only steps that need nobody's word start at once.

        Every other step waits until the last one has come and the plan as a whole is valid. Where it
        is not, or is never finished, what was read is kept, the run has failed, and nothing else was called.

        :param steps: raises `RouterError` where there will be no more of them.
        :param options: with the ``candidates`` that the steps may use.
        :returns: the run's id, and what has to be awaited for anything to happen.
        """
        tools = self._tools(options.candidates)
        running = self._begin(Plan((), request), options, tools, party)
        made: list[Step] = []

        async def feed() -> None:
            try:
                async with contextlib.aclosing(steps):
                    async for step in steps:
                        _next(step, made, tools)
                        _sayable(Plan((step,)))
                        made.append(step)
                        running.add([step])
                plan = Plan(tuple(made), request)
                check(plan, _definitions(tools))
                _answered(plan)
            except RouterError as error:
                wrong = isinstance(error, (BadRequest, InvalidPlan, PlanError, Unanswered))
                reason = "invalid_plan" if wrong else "unplanned"
                running.note(reason, message=error.message)
                running.stop(reason)
                return
            running.plan(plan)
            await running.note("planned", fields=_planned(running))
            running.seal()

        self._running[running.run] = running
        return running.run, self._go(running, None, feed, made)

    async def resume(
        self, run: str, party: Party = _NOBODY, *, retry: bool = False, options: Options | None = None
    ) -> Outcome:
        """Take up a run that was killed, parked, cancelled or out of time, where it stands.

        A step whose intent is durable and that has no outcome is called again where it is read-only or
        idempotent; otherwise it waits for a person's word.

        :param retry: whether steps that failed for certain are called again, too.
        :raises UnknownRun: there is none of that id.
        :raises NotResumable: it is under way here, or all of it is done.
        :raises RunLost: another process runs it.
        """
        return await (await self.take_up(run, party, retry=retry, options=options))

    async def take_up(
        self, run: str, party: Party = _NOBODY, *, retry: bool = False, options: Options | None = None
    ) -> Coroutine[Any, Any, Outcome]:
        """As `resume`, in two parts: once this has returned the run is ours, and what it returns runs it."""
        running, plan = await self._taken_up(run, party, options, retry=retry)
        self._running[run] = running
        return self._go(running, plan)

    async def _taken_up(
        self, run: str, party: Party, options: Options | None, *, retry: bool
    ) -> tuple[Running, Plan]:
        if run in self._running:
            raise NotResumable(f"Run {run} is under way.", "See: toolyard runs show.")
        found = await self.journal.read(lambda records: records.run(run))
        over = found.status is RunStatus.FAILED and not retry and found.reason != "deadline"
        if found.status is RunStatus.DONE or over:
            raise NotResumable(
                f"Run {run} is over: {found.status.value}.",
                "Start a new one, or have what failed tried again.",
            )
        found = await self.journal.claim(run)
        options = options or msgspec.convert(found.options, Options)
        plan = from_json(found.plan)
        tools = self._tools(options.candidates or tuple(step.tool for step in plan.steps))
        states, decisions, seq = await self.journal.read(
            lambda records: (records.steps(run), records.decisions(run), records.last_seq(run))
        )
        running = Running(
            self._house,
            found,
            options,
            tools,
            serve,
            party,
            seq=seq,
            states=states,
            decisions=decisions,
        )
        restored(running, [step.id for step in plan.steps], retry=retry)
        again = {"status": RunStatus.RUNNING.value, "ended_at": None, "reason": _NOTHING}
        await running.note("resumed", fields=again)
        running.add(plan.steps)
        running.seal()
        if not plan.steps:
            running.stop("unplanned")  # its process died while the plan was being made
        return running, plan

    async def orphans(self) -> list[str]:
        """The runs whose process died, to be taken up again with `resume`; oldest first."""
        return [run for run in await self.journal.orphans() if run not in self._running]

    # while it runs --------------------------------------------------------------------------------

    @property
    def running(self) -> list[str]:
        """The runs that are under way here."""
        return list(self._running)

    async def cancel(self, run: str) -> Outcome | None:
        """Give a run up: calls in flight are cancelled.

        :returns: where it stands; None where it is under way here and is about to end.
        :raises UnknownRun, NotResumable, RunLost: as `resume`.
        """
        running = self._running.get(run)
        if running is not None:
            running.stop("cancelled")
            return None
        running, _ = await self._taken_up(run, _NOBODY, None, retry=False)
        running.stop("cancelled")
        await running.go()
        return await self._end(running)

    async def decide(self, run: str, step: str, verdict: Verdict, by: str) -> bool:
        """Give a person's word on a step that waits for it.

        :returns: whether the run is under way here; otherwise it is to be taken up with `resume`.
        :raises UnknownRun: there is no such run or step.
        :raises NotResumable: the step does not wait for anybody's word, or not for this one.
        """
        states = await self.journal.read(lambda records: records.steps(run))
        running = self._running.get(run)
        state = running.states.get(step) if running is not None else states.get(step)
        if (
            state is None
            or state.question is None
            or state.status not in (StepStatus.APPROVAL, StepStatus.UNKNOWN)
        ):
            raise NotResumable(
                f"Step {step} of run {run} waits for nobody's word.", "See: toolyard runs show."
            )
        if verdict is Verdict.HAPPENED and state.status is not StepStatus.UNKNOWN:
            raise NotResumable(f"Step {step} of run {run} was not called yet.", "Approve or deny it.")
        decision = Decision(verdict, state.question.digest, by, time.time())
        if running is not None:
            await running.note("decided", step, verdict=verdict.value)  # and the question before it
        await self.journal.decide(run, step, decision)
        if running is None:
            return False
        if running.closing:
            await running.gone.wait()
            return False
        running.hear(step, decision)
        return True

    async def result(self, run: str, state: StepState) -> bytes | None:
        """The JSON of a step's ``CallToolResult``, wherever it is kept; None where there is none."""
        stored = state.result
        if stored is None or stored.body is not None:
            return stored.body if stored is not None else None
        return await self.journal.read(lambda records: records.result(run, stored.handle))

    # within ---------------------------------------------------------------------------------------

    def _tools(self, names: Iterable[str]) -> dict[str, Facts]:
        found = {name: self._lookup(name) for name in dict.fromkeys(names)}
        return {name: tool for name, tool in found.items() if tool is not None}

    def _begin(self, plan: Plan, options: Options, tools: Mapping[str, Facts], party: Party) -> Running:
        _sayable(plan)
        now = time.time()
        run = Run(
            id=new_run_id(now),
            request=plan.request,
            plan=to_json(plan),
            options=msgspec.to_builtins(options),
            status=RunStatus.RUNNING,
            reason="",
            revision=0,
            created_at=now,
            updated_at=now,
            ended_at=None,
            owner=self.journal.owner,
            epoch=1,
            lease=now + LEASE,
        )
        running = Running(self._house, run, options, tools, serve, party)
        running.note("started", begins=run, steps=len(plan.steps))
        return running

    async def _go(
        self, running: Running, plan: Plan | None, feed: Any = None, made: list[Step] | None = None
    ) -> Outcome:
        self._running[running.run] = running
        left = running.options.replans
        try:
            while True:
                await self._until_parked(running, feed)
                feed, plan = None, plan or Plan(tuple(made or ()))
                following = await revised(running, plan, self._replanner) if left else None
                if following is not None:
                    left, plan = left - 1, following
                    running.replace_with(plan)
                    await running.note("replanned", fields=_planned(running))
                elif not running.heard():
                    break
            running.closing = True
            return await self._end(running)
        finally:
            del self._running[running.run]
            running.gone.set()

    async def _until_parked(self, running: Running, feed: Any = None) -> None:
        await running.go(feed)
        while True:
            if running.stopped is not None or running.status() is not RunStatus.WAITING:
                return
            # A person's word may have come when the last step had just ended, or by another process.
            running.decisions |= await self.journal.read(lambda records: records.decisions(running.run))
            if not running.heard():
                return
            await running.go()

    async def _end(self, running: Running) -> Outcome:
        """Write down where the run stands, and let go of it."""
        run = replace(
            running.record,
            status=running.status(),
            reason=running.stopped or "",
            ended_at=time.time() if running.status().ended else None,
            owner=None,
        )
        fields = {
            "status": run.status.value,
            "reason": msgspec.json.encode(run.reason),
            "ended_at": run.ended_at,
            "owner": None,
        }
        await running.note("ended", fields=fields, status=run.status.value)
        return Outcome(run, dict(running.states))


def _definitions(tools: Mapping[str, Facts]) -> dict[str, Definition]:
    return {name: tool.definition for name, tool in tools.items()}


def _planned(running: Running) -> dict[str, Any]:
    record = running.record
    return {"plan": msgspec.json.encode(record.plan), "revision": record.revision}


def _answered(plan: Plan) -> None:
    questions = plan.asks()
    if questions:
        told = "; ".join(f"step {step}: {ask.question}" for step, ask in questions)
        raise Unanswered(f"The plan asks for values that nobody gave: {told}", "Give them, then run it.")


def _sayable(plan: Plan) -> None:
    """Refuse what no JSON can hold before anything relies on it."""
    try:
        msgspec.json.encode(to_json(plan))
    except (UnicodeEncodeError, TypeError, OverflowError) as error:
        raise BadRequest(
            f"The plan holds a value that is no JSON: {error}.", "Give it as JSON in UTF-8."
        ) from None


def _next(step: Step, made: list[Step], tools: Mapping[str, Facts]) -> None:
    """Check a step that has just been decoded: it may use the steps before it, and no others."""
    steps = {earlier.id: earlier for earlier in made}
    found = step_problems(step, steps, _definitions(tools))
    if step.id in steps or found:
        raise found[0] if found else PlanError(f"Two steps have the id {step.id}.", step=step.id)
