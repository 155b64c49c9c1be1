"""A run on behalf of a client's call: its questions go to the client's person, as long as the call is open."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.bridge.parking import Unanswered
from gateway.errors import UpstreamError
from gateway.planning.runs import Runs
from gateway.policy.consent import visible
from gateway.toolsets.asking import ask_text
from gateway.upstream.call import CallSite

if TYPE_CHECKING:
    from router.plan import Plan, Step
    from router.running import Options
    from router.runs import Question, Verdict


async def followed(runs: Runs, plan: Plan, options: Options, site: CallSite, wait: float) -> str:
    """Run a plan for a caller, up to its end, or for so many seconds. Returns the run's id.

    A person who is being asked is waited for. Giving the call up gives the run up. A run that is still under
    way when the time is over, or whose client does not come back, goes on, and what it has to ask parks.

    :raises RouterError: the plan may not run.
    """
    from router.running import Party

    asking = _Asking(site)
    run = await runs.start(plan, options, Party(ask=asking.ask))
    site.forward_cancel(_Given(runs, run, asking))
    try:
        ended = await runs.wait(run, wait)
        while not ended and asking.open:
            ended = await runs.wait(run, 1.0)
    finally:
        asking.close()
    return run


class _Asking:
    """Puts the questions of a run to its caller's person, as long as the call is open."""

    def __init__(self, site: CallSite) -> None:
        self._site = site
        self._tasks: set[asyncio.Task[bool | None]] = set()
        self._closed = False

    @property
    def open(self) -> bool:
        """Whether somebody is being asked."""
        return bool(self._tasks)

    async def ask(self, run: str, step: Step, question: Question) -> Verdict | None:
        """A person's word; None where there is none, or not as long as the call lasts."""
        from router.runs import Verdict

        if self._closed:
            return None
        flows = "".join(f"\n- {visible(flow)}" for flow in question.flows)
        text = f"{visible(question.text)}{flows}\nArguments: {visible(question.preview)}"
        task = asyncio.create_task(ask_text(self._site, text))
        self._tasks.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self._tasks.discard(task)
            task.cancel()
        if task.cancelled():
            return None
        allowed = task.result()
        if allowed is None:
            return None
        return Verdict.APPROVE if allowed else Verdict.DENY

    def close(self) -> None:
        """Withdraw what is being asked: the steps park."""
        self._closed = True
        for task in self._tasks:
            task.cancel()


class _Given(CallSite):
    """The run of a call: giving the call up gives the run up, but a client that stays away only parks it."""

    __slots__ = ("_asking", "_run", "_runs")

    def __init__(self, runs: Runs, run: str, asking: _Asking) -> None:
        super().__init__()
        self._runs, self._run, self._asking = runs, run, asking

    def give_up(self, why: UpstreamError) -> None:
        if isinstance(why, Unanswered):
            self._asking.close()
        else:
            self._runs.give_up(self._run)
