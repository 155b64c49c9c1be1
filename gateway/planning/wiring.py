"""What makes and runs plans in a gateway, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import anyio.abc

from gateway.calls import CallLog
from gateway.config.settings import Settings
from gateway.endpoint.board import Switchboard
from gateway.finder import Finder
from gateway.planning.choice import choose
from gateway.planning.engine import Engine
from gateway.planning.examples import Examples
from gateway.planning.planners import Planners
from gateway.planning.runs import Runs
from gateway.planning.tools import PlanTools
from gateway.upstream.lifeline import Lifeline
from gateway.upstream.pool import Connector
from gateway.upstream.serverlog import ServerLog, log_path
from registry.model import Server, ServerSpec
from registry.store import Store

ENGINE_LOG = "toolyard-engine"


class Planning:
    """The planners, the runs, and the tools for clients. Nothing of it is loaded before it is wanted.

    :param journal: where runs are journalled: a file or a database's URL; None runs no plans.
    :param log_dir: where the engine's log goes; None keeps its last lines in memory only.
    """

    def __init__(
        self,
        board: Switchboard,
        store: Store,
        servers: Mapping[str, Server],
        settings: Settings,
        tasks: anyio.abc.TaskGroup,
        calls: CallLog,
        finder: Finder,
        lifeline: Lifeline,
        *,
        journal: Path | str | None,
        log_dir: Path | None,
    ) -> None:
        wanted = settings.planner
        choice = choose(wanted, settings.file)
        self._log = ServerLog(log_path(log_dir, ENGINE_LOG) if log_dir is not None else None)
        self.engine: Engine | None = None
        if choice.folder is not None:
            self.engine = Engine(wanted, choice.folder, lifeline, tasks, self._log)
        examples = Examples(lambda: self.runs.memory)
        self.planners = Planners(finder, wanted, choice, self.engine, examples, servers)
        self.runs = Runs(
            board, store, servers, tasks, journal, calls, self.planners.again, remember=wanted.memory
        )
        self.tools = PlanTools(self.runs, self.planners) if journal is not None else None

    def connector(self, spec: ServerSpec) -> Connector:
        """What connects the gateway to its own composite tools."""
        from gateway.planning.composed import ComposedConnector

        return ComposedConnector(spec, self.runs)

    async def close(self) -> None:
        """End the engine, and leave runs that are under way to the next gateway."""
        ending = [self.engine.close()] if self.engine is not None else []
        await asyncio.gather(self.runs.close(), *ending)
        self._log.flush()
