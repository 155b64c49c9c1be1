"""What the command line asks of a running gateway about runs of plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from gateway.admin.client import ControlClient

START_SECONDS: Final = 60.0
"""The first run of a gateway imports what runs plans."""
PLAN_SECONDS: Final = 120.0
"""The first plan loads search and the planner."""


class RunClient(ControlClient):
    """More verbs of the control socket, which fail as those of `ControlClient` do."""

    def plan(self, request: str) -> dict[str, Any]:
        """A plan for a request over every tool, with its questions and candidates; calls nothing."""
        return self._ask("POST", "/plans", {"request": request}, PLAN_SECONDS)

    def planner(self, *, probe: bool = False) -> dict[str, Any]:
        """Which planner is in use and ``why``, whether it is ``loaded``, and the ``engine``, where it is ours.

        :param probe: have a remote endpoint asked what it can do; ``problem`` says where it does not answer.
        """
        return self._ask("GET", f"/plans/planner?probe={int(probe)}")

    def restart_engine(self) -> dict[str, Any]:
        """End the engine and forget its failures."""
        return self._ask("POST", "/plans/planner/restart")

    def start_run(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Begin a run: its id; or, with ``dry_run``, what the plan would do."""
        return self._ask("POST", "/runs", body, START_SECONDS)

    def runs(self, limit: int) -> list[dict[str, Any]]:
        """The latest runs."""
        return list(self._ask("GET", f"/runs?limit={limit}", seconds=START_SECONDS)["runs"])

    def run(self, run: str, *, wait: float = 0, values: bool = False) -> dict[str, Any]:
        """One run; once it has ended, or after so many seconds."""
        query = f"?wait={wait:g}&values={int(values)}"
        return self._ask("GET", _run(run) + query, seconds=START_SECONDS + wait)

    def run_events(self, run: str) -> list[dict[str, Any]]:
        """What happened in a run, in order."""
        return list(self._ask("GET", f"{_run(run)}/events", seconds=START_SECONDS)["events"])

    def resume_run(self, run: str, *, retry: bool) -> None:
        """Take a run up again."""
        self._ask("POST", f"{_run(run)}/resume?retry={int(retry)}", seconds=START_SECONDS)

    def cancel_run(self, run: str) -> dict[str, Any]:
        """Give a run up."""
        return self._ask("POST", f"{_run(run)}/cancel", seconds=START_SECONDS)

    def decide(self, run: str, step: str, verdict: str) -> None:
        """A person's word on a step that waits for it."""
        path = f"{_run(run)}/steps/{quote(step, safe='')}"
        self._ask("POST", path, {"verdict": verdict}, START_SECONDS)

    def promote(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make a tool of a run: the tool."""
        return self._ask("POST", "/composites", body, START_SECONDS)

    def composites(self) -> list[dict[str, Any]]:
        """The tools that were made of runs."""
        return list(self._ask("GET", "/composites", seconds=START_SECONDS)["composites"])

    def demote(self, name: str) -> dict[str, Any]:
        """Take one of them away. NotFound for an unknown name."""
        return self._ask("DELETE", f"/composites/{quote(name, safe='')}", seconds=START_SECONDS)


def _run(run: str) -> str:
    return f"/runs/{quote(run, safe='')}"
