"""The runs of this gateway: begun, followed, answered, and taken up again after whatever ended it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio.abc
import anyio.to_thread

from gateway.calls import CallLog
from gateway.catalog import Catalog
from gateway.endpoint.board import Switchboard
from gateway.errors import GatewayError, StateError
from registry.errors import RegistryError
from registry.store import Store

if TYPE_CHECKING:
    from router.composite import Composites
    from router.executor import Executor, Outcome
    from router.memory import PlanMemory
    from router.plan import Plan, Step
    from router.replan import Replanner
    from router.running import Options, Party
    from router.runs import Run, StepState, Verdict

MAX_SHOWN: Final = 64 * 1024
"""Bytes of a result that is shown with its run; a larger one is named by its handle and size."""

log = logging.getLogger("toolyard.planning")


class Runs:
    """Opens the journal, and imports what runs plans, with the first run.

    :param calls: where calls are counted.
    :param where: the journal's file, or the URL of a database; None where none is kept.
    :param servers: by name, whose entries hold rules for planning.
    :param replanner: makes the rest of a plan anew after a failure; None for never.
    :param tasks: the task group that runs live in: a client that goes away ends none of them.
    :param remember: whether plans that worked are remembered, by shape.
    """

    def __init__(
        self,
        board: Switchboard,
        store: Store,
        servers: Any,
        tasks: anyio.abc.TaskGroup,
        where: Path | str | None,
        calls: CallLog,
        replanner: Replanner | None = None,
        *,
        remember: bool = True,
    ) -> None:
        self._board, self._store, self._servers, self._calls = board, store, servers, calls
        self._tasks, self._where, self._replanner = tasks, where, replanner
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._executor: Executor | None = None
        self._remembers = remember
        self.memory: PlanMemory | None = None
        """What has worked; None while the journal is not open, or nothing is to be remembered."""
        self.composites: Composites | None = None
        """Plans with a name; None while the journal is not open."""
        self._ended: dict[str, asyncio.Event] = {}
        self._scopes: set[anyio.CancelScope] = set()

    async def recover(self) -> None:
        """Take up the runs that were under way when the last gateway ended."""
        if self._where is None or (
            isinstance(self._where, Path) and not await anyio.Path(self._where).exists()
        ):
            return
        from router.errors import RouterError

        try:
            executor = await self.executor()
            orphans = await executor.orphans()
        except (RouterError, RegistryError, GatewayError) as error:
            log.error("runs that were under way cannot be taken up: %s", error)
            return
        for run in orphans:
            log.info("run %s is taken up where it stood", run)
            self._drive(run, executor.resume(run))

    async def executor(self) -> Executor:
        """What runs plans, over a journal that is open. Raises StateError, JournalError, StoreError."""
        async with self._opening:
            if self._executor is None:
                if self._where is None:
                    raise StateError(
                        "This gateway keeps no journal, so it runs no plans.",
                        "Start it with `toolyard serve`.",
                    )
                self._executor = await self._open(self._where)
        await self._refresh()
        return self._executor

    async def _open(self, where: Path | str) -> Executor:
        def load() -> tuple[Any, Any, Any, Any, Any]:
            from gateway.planning.calls import GatewayCalls
            from router.composite import Composites
            from router.executor import Executor
            from router.journal.journal import Journal
            from router.memory import PlanMemory

            return Executor, Journal, GatewayCalls, PlanMemory, Composites

        executor, journal, calls, memory, composites = await anyio.to_thread.run_sync(load)
        opened = await self._stack.enter_async_context(journal(where))
        database = await opened.read(lambda records: records.database)
        self.memory = memory(database) if self._remembers else None
        self.composites = composites(database)
        made: Executor = executor(
            opened, calls(self._board, self._calls), self._lookup, replanner=self._replanner
        )
        return made

    async def _refresh(self) -> None:
        """Read pins and statistics anew: what is decided now goes by what is approved now."""
        from gateway.planning.facts import Snapshot

        catalog: Callable[[], Catalog] = lambda: self._board.catalog  # noqa: E731
        self._snapshot = await anyio.to_thread.run_sync(
            partial(Snapshot.read, self._store, catalog, self._servers)
        )

    def _lookup(self, name: str) -> Any:
        return self._snapshot(name)

    @property
    def lookup(self) -> Any:
        """What is known of a tool by the name that clients see, as of the last `executor`."""
        return self._snapshot

    # runs

    async def start(self, plan: Plan, options: Options, party: Party | None = None) -> str:
        """Begin a run; it goes on whatever becomes of the caller. Returns its id.

        Raises RouterError for a plan that may not run.
        """
        from router.running import Party

        executor = await self.executor()
        run, going = executor.start(plan, options, party or Party())
        self._drive(run, going)
        return run

    async def start_stream(
        self, steps: AsyncGenerator[Step, None], request: str, options: Options, party: Party | None = None
    ) -> str:
        """Begin a run of a plan that is still being made (`router.executor.Executor.start_stream`)."""
        from router.running import Party

        executor = await self.executor()
        run, going = executor.start_stream(steps, request, options, party or Party())
        self._drive(run, going)
        return run

    async def resume(self, run: str, *, retry: bool = False) -> None:
        """Take up a run where it stands, in the background. Raises RouterError."""
        from router.errors import NotResumable

        executor = await self.executor()
        if run in self._ended:
            raise NotResumable(f"Run {run} is under way.", "See: toolyard runs show.")
        running = await executor.take_up(run, retry=retry)
        self._drive(run, running)

    async def decide(self, run: str, step: str, verdict: Verdict, by: str) -> None:
        """Give a person's word on a step, and go on with the run. Raises RouterError."""
        executor = await self.executor()
        await executor.journal.read(lambda records: records.run(run))  # says so where there is none
        if not await executor.decide(run, step, verdict, by):
            await self.resume(run)

    async def cancel(self, run: str) -> None:
        """Give a run up. Raises RouterError."""
        executor = await self.executor()
        await executor.cancel(run)
        await self.wait(run, 10.0)

    def give_up(self, run: str) -> None:
        """Give up a run that is under way here, without waiting for its end."""
        if self._executor is not None and run in self._ended:
            self._tasks.start_soon(self._executor.cancel, run, name=f"cancel run {run}")

    async def view(self, run: str, *, values: bool = False) -> dict[str, Any]:
        """One run as JSON. Raises RouterError."""
        from gateway.planning.view import run_view

        executor = await self.executor()

        def read(records: Any) -> tuple[Run, dict[str, StepState]]:
            return records.run(run), records.steps(run)

        found, states = await executor.journal.read(read)
        bodies: dict[str, bytes] = {}
        for id_, state in states.items() if values else ():
            if state.result is not None and state.result.size <= MAX_SHOWN:
                body = await executor.result(run, state)
                if body is not None:
                    bodies[id_] = body
        return run_view(found, states, bodies)

    async def body(self, run: str, step: str) -> bytes | None:
        """The JSON of a step's ``CallToolResult``; None where it has none. Raises RouterError."""
        executor = await self.executor()
        state = (await executor.journal.read(lambda records: records.steps(run))).get(step)
        return await executor.result(run, state) if state is not None else None

    def _drive(self, run: str, going: Coroutine[Any, Any, Outcome]) -> None:
        self._ended[run] = asyncio.Event()
        self._tasks.start_soon(self._driven, run, going, name=f"run {run}")

    async def _driven(self, run: str, going: Coroutine[Any, Any, Outcome]) -> None:
        from router.errors import RouterError

        try:
            with anyio.CancelScope() as scope:
                self._scopes.add(scope)
                outcome = await going
                log.info("run %s: %s", run, outcome.status.value)
                await self._remember(outcome)
        except RouterError as error:
            log.error("run %s stopped: %s", run, error)
        except Exception:  # one run must not end the gateway
            log.exception("run %s broke", run)
        finally:
            self._scopes.discard(scope)
            self._ended.pop(run).set()

    async def _remember(self, outcome: Outcome) -> None:
        """Keep the shape of a plan of several steps that worked, for the planner to be shown."""
        from router.plan import from_json
        from router.runs import RunStatus
        from router.shapes import shape_of

        plan = from_json(outcome.run.plan)
        if self.memory is None or outcome.status is not RunStatus.DONE or len(plan.steps) < 2:
            return
        tools = {s.tool: facts.definition for s in plan.steps if (facts := self._lookup(s.tool)) is not None}
        if len(tools) == len({s.tool for s in plan.steps}):
            shape = await anyio.to_thread.run_sync(shape_of, plan, tools)
            await anyio.to_thread.run_sync(self.memory.remember, shape)

    async def wait(self, run: str, seconds: float) -> bool:
        """Wait until a run has ended or is parked. Returns whether it has, in that time."""
        ended = self._ended.get(run)
        if ended is None:
            return True
        with anyio.move_on_after(seconds):
            await ended.wait()
        return ended.is_set()

    async def close(self) -> None:
        """End: runs that are under way stay so in the journal, and are taken up by the next gateway."""
        for scope in self._scopes:
            scope.cancel()
        for ended in list(self._ended.values()):
            await ended.wait()
        self.memory = self.composites = None
        await self._stack.aclose()


def default_where(state_dir: Path) -> Path | str:
    """``$TOOLYARD_JOURNAL``, a file or a database's URL, else ``runs.db`` in the state directory."""
    given = os.environ.get("TOOLYARD_JOURNAL")
    if given:
        return given if "://" in given else Path(given)
    return state_dir / "runs.db"
