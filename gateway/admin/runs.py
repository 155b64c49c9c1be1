"""Runs on the control socket: begin one, follow it, answer what it waits for, end it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import jsonrpc, protocol
from gateway.errors import NotFound, RpcError

if TYPE_CHECKING:
    from gateway.planning.runs import Runs

Handler = Callable[[Request], Awaitable[Response]]

MAX_WAIT: Final = 30.0
"""Seconds one request may wait for a run; who wants to wait longer asks again."""
MAX_LISTED: Final = 1000


class Body(msgspec.Struct, frozen=True):
    """A plan to be run.

    :param plan: its steps, or an object with ``request`` and ``plan``.
    :param approve: what runs unasked: nothing (``ask``), reads, or the whole plan (``all``).
    :param candidates: names of the tools that may be called, should the plan have to be made anew.
    """

    plan: Any
    candidates: tuple[str, ...] = ()
    approve: str = "reads"
    deadline: float = 3600.0
    hedge: float | None = None
    dry_run: bool = False


class RunRoutes:
    """The routes of runs.

    :param runs: by a call, because most gateways never run a plan.
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def routes(self, guarded: Callable[[Handler], Handler]) -> list[Route]:
        """The routes, for the control socket's application."""

        def route(path: str, handler: Handler, method: str = "GET") -> Route:
            return Route(path, guarded(told(handler)), methods=[method])

        return [
            route("/runs", self.list),
            route("/runs", self.start, "POST"),
            route("/runs/{run}", self.show),
            route("/runs/{run}/events", self.events),
            route("/runs/{run}/resume", self.resume, "POST"),
            route("/runs/{run}/cancel", self.cancel, "POST"),
            route("/runs/{run}/steps/{step:path}", self.decide, "POST"),
        ]

    async def list(self, request: Request) -> Response:
        """The latest runs."""
        from gateway.planning.view import run_row

        limit = _number(request, "limit", 50, MAX_LISTED)
        executor = await self._runs.executor()
        found = await executor.journal.read(lambda records: records.runs(limit=int(limit)))
        return _json({"runs": [run_row(run) for run in found]})

    async def start(self, request: Request) -> Response:
        """Begin a run, or say what a plan would do."""
        from gateway.planning.view import dry_view
        from router.consent import Consent
        from router.dryrun import dry_run
        from router.plan import from_json
        from router.running import Options

        try:
            body = msgspec.json.decode(await request.body(), type=Body)
            consent = Consent(body.approve)
        except (msgspec.MsgspecError, ValueError) as error:
            raise RpcError(protocol.INVALID_PARAMS, f"This is no run: {error}.") from None
        if body.deadline <= 0 or (body.hedge is not None and body.hedge < 0):
            raise RpcError(protocol.INVALID_PARAMS, "deadline and hedge are seconds.")
        plan = from_json(body.plan)
        options = Options(
            consent=consent, deadline=body.deadline, hedge=body.hedge, candidates=body.candidates
        )
        await self._runs.executor()
        if body.dry_run:
            lookup = self._runs.lookup
            tools = {step.tool: facts for step in plan.steps if (facts := lookup(step.tool)) is not None}
            return _json(dry_view(dry_run(plan, tools, options=options)))
        return _json({"id": await self._runs.start(plan, options)})

    async def show(self, request: Request) -> Response:
        """One run; with ``wait=SECONDS`` once it has ended or that time is over; with ``values=1`` its results."""
        run = request.path_params["run"]
        await self._runs.wait(run, _number(request, "wait", 0, MAX_WAIT))
        return _json(await self._runs.view(run, values=request.query_params.get("values") == "1"))

    async def events(self, request: Request) -> Response:
        """What happened in a run, in order."""
        run = request.path_params["run"]
        executor = await self._runs.executor()
        found = await executor.journal.read(lambda records: (records.run(run), records.events(run)))
        return Response(msgspec.json.encode({"events": found[1]}), media_type="application/json")

    async def resume(self, request: Request) -> Response:
        """Take a run up again; with ``retry=1`` what failed for certain is tried again, too."""
        run = request.path_params["run"]
        await self._runs.resume(run, retry=request.query_params.get("retry") == "1")
        return _json({"id": run})

    async def cancel(self, request: Request) -> Response:
        """Give a run up."""
        run = request.path_params["run"]
        await self._runs.cancel(run)
        return _json(await self._runs.view(run))

    async def decide(self, request: Request) -> Response:
        """A person's word on a step: ``{"verdict": "approve" | "deny" | "happened"}``."""
        from router.runs import Verdict

        try:
            body = msgspec.json.decode(await request.body(), type=dict[str, str])
            verdict = Verdict(body.get("verdict", ""))
        except (msgspec.MsgspecError, ValueError):
            words = ", ".join(verdict.value for verdict in Verdict)
            raise RpcError(protocol.INVALID_PARAMS, f"The verdict must be one of {words}.") from None
        run, step = request.path_params["run"], request.path_params["step"]
        await self._runs.decide(run, step, verdict, "the control socket")
        return _json({"id": run, "step": step, "verdict": verdict.value})


def told(handler: Handler) -> Handler:
    """Turn the router's errors into the gateway's."""

    async def answering(request: Request) -> Response:
        from router.errors import RouterError, UnknownRun

        try:
            return await handler(request)
        except UnknownRun as error:
            raise NotFound(error.message, error.hint) from error
        except RouterError as error:
            raise RpcError(
                protocol.INVALID_PARAMS, error.message, error.hint, status=409, type=error.kind
            ) from error

    return answering


def _number(request: Request, name: str, default: float, most: float) -> float:
    try:
        return min(max(float(request.query_params.get(name, default)), 0), most)
    except ValueError:
        raise RpcError(protocol.INVALID_PARAMS, f"{name} must be a number.") from None


def _json(value: Any) -> Response:
    return Response(jsonrpc.encode(value), media_type="application/json")
