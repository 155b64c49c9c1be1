"""Composite tools as those of a server: plans with a name, listed, found, asked about and called like any other.

The server is the gateway itself. A call is a run, with all that belongs to one: its steps are journalled,
ask for consent where they would anyway, and are made the way of any other call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread

from gateway import jsonrpc, protocol
from gateway.errors import ConfigError, GatewayError
from gateway.jsonrpc import Shallow
from gateway.planning.asking import Begin, followed
from gateway.planning.runs import Runs
from gateway.protocol import Era
from gateway.upstream.base import Connection
from gateway.upstream.call import CallSite, PendingCall, Reply
from gateway.upstream.peer import Peer, client_info
from gateway.upstream.pool import Connector
from registry.model import ServerSpec, Transport

if TYPE_CHECKING:
    from router.composite import Composite, Composites

SERVER: Final = "plans"
"""Whose tools they are, as clients and toolsets name it."""
SPEC: Final = ServerSpec(SERVER, Transport.OWN)
_MARGIN: Final = 1.0
"""Seconds before the call's own limit in which a run that goes on is told of."""


class ComposedConnector(Connector):
    """Opens the connection of the gateway to its own composite tools."""

    def __init__(self, spec: ServerSpec, runs: Runs) -> None:
        self.spec = spec
        self._runs = runs
        self._pool = None

    async def open(
        self,
        want: Era,
        timeout: float,
        on_message: Callable[[Connection, Shallow], None],
        on_lost: Callable[[Connection, str], None],
        existing: Connection | None = None,
    ) -> Connection:
        """A connection in the handshake era, whatever was wanted."""
        if existing is not None:
            return existing
        connection = ComposedConnection(self.spec.name, self._runs)
        await connection.open(timeout)
        return connection


class ComposedConnection(Connection):
    """Answers for the composite tools in the journal, in this process."""

    def __init__(self, server: str, runs: Runs) -> None:
        super().__init__(server, lambda message: None, lambda reason: None)
        self._runs = runs

    @property
    def calls(self) -> Collection[PendingCall]:
        return ()  # each is a run of its own, and answers to its own caller

    async def open(self, timeout: float) -> Peer:
        try:
            await self._composites()
        except GatewayError as error:
            raise ConfigError(error.message, error.hint) from error
        self.peer = Peer(
            Era.HANDSHAKE,
            protocol.LATEST_HANDSHAKE,
            jsonrpc.raw(client_info()),
            jsonrpc.raw({"tools": {}}),
        )
        return self.peer

    async def _composites(self) -> Composites:
        await self._runs.executor()
        assert self._runs.composites is not None
        return self._runs.composites

    async def request(
        self,
        method: str,
        params: Shallow,
        *,
        timeout: float,
        site: CallSite | None = None,
        headers: bytes = b"",
    ) -> Reply:
        from router.errors import RouterError

        try:
            if method == "ping":
                return _reply({})
            if method == "tools/list":
                tools = await anyio.to_thread.run_sync((await self._composites()).all)
                return _reply({"tools": [tool.definition() for tool in tools]})
            if method == "tools/call":
                return await self._call(params, site if site is not None else CallSite(), timeout)
        except RouterError as error:
            return _failed(str(error))
        message = f"Method not found: {method}"
        return Reply(None, jsonrpc.raw({"code": protocol.METHOD_NOT_FOUND, "message": message}))

    async def notify(self, method: str, params: Shallow | None = None) -> None:
        return

    async def close(self) -> None:
        return

    async def _call(self, params: Shallow, site: CallSite, timeout: float) -> Reply:
        """Run the plan with the values of the call. Raises RouterError."""
        from router.consent import Consent
        from router.running import Options

        composites = await self._composites()
        name = jsonrpc.text(params.get("name")) or ""
        tool = await anyio.to_thread.run_sync(composites.get, name)
        if tool is None:
            return _failed(f"There is no composite tool {name[:100]!r} any more.")
        if (why := self.broken(tool)) is not None:
            return _failed(f"{tool.name} was not run: {why}")
        given = params.get("arguments")
        values = jsonrpc.value(given) if given is not None else {}
        if not isinstance(values, dict):
            return _failed("arguments must be a JSON object.")
        options = Options(consent=Consent.READS, candidates=tool.tools, replans=0)
        wait = max(timeout - _MARGIN, timeout / 2)
        plan = tool.plan(values)
        begin: Begin = lambda asking: self._runs.start(plan, options, asking.party)  # noqa: E731
        run = await followed(self._runs, begin, site, wait)
        await anyio.to_thread.run_sync(composites.used, tool.name)
        return await self._outcome(tool, run)

    def broken(self, tool: Composite) -> str | None:
        """Why a composite tool cannot be called any more, one sentence; None where it can."""
        return why_broken(tool, self._runs)

    async def _outcome(self, tool: Composite, run: str) -> Reply:
        """What a run has come to, as the result of the call: that of its last step, where there is one."""
        view = await self._runs.view(run, values=True)
        meta = {"toolyard/run": run}
        if view["status"] != "done":
            return _failed(told(view), meta)
        ends = tool.ends()
        if len(ends) == 1:
            body = await self._runs.body(run, ends[0])
            if body is not None:
                fields = jsonrpc.shallow(body)
                own = jsonrpc.object_of(fields.get("_meta")) or {}
                own.update({key: jsonrpc.raw(value) for key, value in meta.items()})
                return Reply(jsonrpc.raw({**fields, "_meta": own}), None)
        results = {step["id"]: step.get("value") for step in view["steps"] if step["id"] in ends}
        text = jsonrpc.encode(results).decode()
        content = [{"type": "text", "text": text}]
        return _reply({"content": content, "structuredContent": {"results": results}, "_meta": meta})


def why_broken(tool: Composite, runs: Runs) -> str | None:
    """Why a composite tool cannot be called: one of its tools is gone, or another than it was."""
    for name, version in tool.shape.versions.items():
        facts = runs.lookup(name)
        if facts is None:
            return f"its tool {name} is not there."
        if facts.definition.hash != version:
            return f"its tool {name} has changed since; promote a run of the new one."
    return None


def told(view: Mapping[str, Any]) -> str:
    """A run that is not done, in words: where it stands, and what is to be done."""
    run, status = view["id"], str(view["status"]).replace("_", " ")
    lines = [f"Run {run} is {status}."]
    for step in view["steps"]:
        if error := step.get("error"):
            said = f" It said: {error['said']}" if error.get("said") else ""
            lines.append(f"{step['tool']}: {error['message']}{said}")
    if any("question" in step for step in view["steps"]):
        lines.append(
            f"Ask the user to look at `toolyard runs show {run}` and to approve or deny there; it goes on then."
        )
    elif view["status"] == "running":
        lines.append(f"It goes on; `toolyard runs show {run}` shows its results.")
    return "\n".join(lines)


def _reply(result: dict[str, Any]) -> Reply:
    return Reply(jsonrpc.raw(result), None)


def _failed(text: str, meta: dict[str, Any] | None = None) -> Reply:
    fields: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": True}
    return _reply(fields if meta is None else {**fields, "_meta": meta})
