"""A run on behalf of a client's call: its questions go to the client's person, as long as the call is open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.bridge.parking import Unanswered
from gateway.errors import UpstreamError
from gateway.planning.runs import Runs
from gateway.policy.consent import visible
from gateway.toolsets.asking import ask_form, ask_text
from gateway.upstream.call import CallSite

if TYPE_CHECKING:
    from router.plan import Step
    from router.running import Party
    from router.runs import Question, Verdict

T = TypeVar("T")


async def followed(
    runs: Runs,
    begin: Begin,
    site: CallSite,
    wait: float,
) -> str:
    """Run a plan for a caller, up to its end, or for so many seconds. Returns the run's id.

    A person who is being asked is waited for. Giving the call up gives the run up. A run that is still under
    way when the time is over, or whose client does not come back, goes on, and what it has to ask parks.

    :raises RouterError: the plan may not run.
    """
    asking = Asking(site)
    run = await begin(asking)
    site.forward_cancel(_Given(runs, run, asking))
    try:
        ended = await runs.wait(run, wait)
        while not ended and asking.open:
            ended = await runs.wait(run, 1.0)
    finally:
        asking.close()
    return run


class Asking:
    """Puts the questions of a run to its caller's person, as long as the call is open."""

    def __init__(self, site: CallSite) -> None:
        self._site = site
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def open(self) -> bool:
        """Whether somebody is being asked."""
        return bool(self._tasks)

    @property
    def party(self) -> Party:
        """The caller's person, as a run knows them."""
        from router.running import Party

        return Party(ask=self.ask)

    async def ask(self, run: str, step: Step, question: Question) -> Verdict | None:
        """A person's word; None where there is none, or not as long as the call lasts."""
        from router.runs import Verdict

        flows = "".join(f"\n- {visible(flow)}" for flow in question.flows)
        text = f"{visible(question.text)}{flows}\nArguments: {visible(question.preview)}"
        allowed = await self._put(partial(ask_text, self._site, text))
        if allowed is None:
            return None
        return Verdict.APPROVE if allowed else Verdict.DENY

    async def form(self, text: str, schema: dict[str, Any]) -> dict[str, Any] | None:
        """What a person fills in; None where there is nobody, or not as long as the call lasts."""
        return await self._put(partial(ask_form, self._site, text, schema, call_waits=False))

    async def _put(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        if self._closed:
            return None
        task = asyncio.create_task(ask())
        self._tasks.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self._tasks.discard(task)
            task.cancel()
        return None if task.cancelled() else task.result()

    def close(self) -> None:
        """Withdraw what is being asked: the steps park."""
        self._closed = True
        for task in self._tasks:
            task.cancel()


Begin = Callable[[Asking], Awaitable[str]]
"""Begins a run, with what asks its caller's person. Returns its id."""


class _Given(CallSite):
    """The run of a call: giving the call up gives the run up, but a client that stays away only parks it."""

    __slots__ = ("_asking", "_run", "_runs")

    def __init__(self, runs: Runs, run: str, asking: Asking) -> None:
        super().__init__()
        self._runs, self._run, self._asking = runs, run, asking

    def give_up(self, why: UpstreamError) -> None:
        if isinstance(why, Unanswered):
            self._asking.close()
        else:
            self._runs.give_up(self._run)
