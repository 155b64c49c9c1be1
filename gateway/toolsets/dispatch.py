"""The methods of a toolset's endpoint: those of the plain one over its own catalog, and two tools more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, Protocol

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.rounds import input_required
from gateway.bridge.tasks import Tasks
from gateway.calls import CallLog
from gateway.catalog import Entry, ValidatorCache
from gateway.endpoint.board import Interests, Switchboard
from gateway.endpoint.caller import Caller
from gateway.endpoint.dispatch import Dispatcher
from gateway.endpoint.sessions import Sessions
from gateway.errors import RpcError
from gateway.finder import Finder
from gateway.jsonrpc import Raw, Shallow
from gateway.policy.consent import Approvals, Call, says_read_only, twice_named
from gateway.policy.pins import PinBook, refuse_withheld
from gateway.protocol import Era
from gateway.sealing import KeyRing
from gateway.toolsets import finding, meta
from gateway.toolsets.asking import Answer, Rounds, ask_live
from gateway.toolsets.finding import Scopes
from gateway.toolsets.project import Projection
from gateway.toolsets.trail import Trail
from gateway.upstream.call import CallSite
from gateway.upstream.mirror import param_headers, usable_mirrors
from registry.definition import definition_hash
from registry.errors import RegistryError
from registry.model import ItemKind
from registry.toolsets import Toolset

_NO_ARGUMENTS: Final = msgspec.Raw(b"{}")
_OURS: Final = frozenset({"requestState", "inputResponses", "task"})
"""Params of a call of `call_tool` that are not the tool's as they stand."""
PLANNING: Final = frozenset({"plan", "run", "run_status"})
"""The tools that make and run plans (`gateway.planning.tools`)."""


class Plans(Protocol):
    """Serves the tools that make and run plans."""

    async def call(
        self, name: str, site: CallSite, arguments: Any, projection: Projection, scopes: Scopes
    ) -> dict[str, Any]:
        """The structured result; who calls is asked through the site. Raises `gateway.planning.tools.Refused`, GatewayError."""


class Board(Switchboard, Protocol):
    """What the dispatcher needs of its view."""

    @property
    def toolset(self) -> Toolset:
        """The toolset as it is now."""

    @property
    def projection(self) -> Projection:
        """The toolset over the catalog as it is now."""

    @property
    def scopes(self) -> Scopes:
        """The scopes of that projection."""

    async def refresh(self) -> None:
        """Bring the projection up to date."""


class Services(msgspec.Struct, frozen=True):
    """What the meta tools of every toolset share.

    :param pins: which versions of tools were approved.
    :param calls: hears of every call of a tool.
    """

    finder: Finder
    trail: Trail
    approvals: Approvals
    validators: ValidatorCache
    pins: PinBook
    calls: CallLog
    plans: Plans | None = None


class ViewDispatcher(Dispatcher):
    """Serves the clients of one toolset. What it seals is good at no other endpoint."""

    def __init__(
        self,
        board: Board,
        sessions: Sessions,
        interests: Interests,
        ring: KeyRing,
        tasks: Tasks,
        services: Services,
    ) -> None:
        super().__init__(board, sessions, interests, services.calls, ring, tasks, board.toolset.name)
        self._view = board
        self._services = services
        self._rounds = Rounds(ring, board.toolset.name)

    async def handle(self, caller: Caller, method: str, ident: Raw, message: Shallow) -> bytes:
        """Serve a request: the whole response message. Raises GatewayError."""
        await self._view.refresh()
        return await super().handle(caller, method, ident, message)

    async def _call_tool(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        if self._view.projection.meta_tools:
            name = jsonrpc.text(params.get("name"))
            if name == meta.FIND:
                return jsonrpc.result(ident, await self._find(caller, params))
            if name == meta.CALL:
                return await self._call(caller, ident, params)
            if self._services.plans is not None and name in PLANNING:
                return await self._plan(caller, ident, name, params)
        return await super()._call_tool(caller, ident, params)

    async def _plan(self, caller: Caller, ident: Raw, name: str, params: Shallow) -> bytes:
        """Make or run a plan. What it asks is asked live, or between two requests of a stateless client."""
        from gateway.planning.tools import Refused, text_of

        plans, view = self._services.plans, self._view
        assert plans is not None
        arguments = params.get("arguments")

        def made(site: CallSite) -> Coroutine[Any, Any, dict[str, Any]]:
            return plans.call(name, site, arguments, view.projection, view.scopes)

        try:
            if caller.era is Era.STATELESS:
                found = await self.parking.call(caller, params, _binding(name, arguments), made)
            else:
                found = await made(caller)
        except Refused as error:
            return self._failed(caller, ident, str(error))
        if isinstance(found, bytes):
            return jsonrpc.result(ident, found)
        return jsonrpc.result(ident, meta.result(caller.era, text_of(found), found))

    def _unknown(self, kind: ItemKind, name: str) -> RpcError:
        projection = self._view.projection
        if kind is ItemKind.TOOL and projection.searching and name in projection.tools:
            return RpcError(
                protocol.INVALID_PARAMS,
                f"{name[:200]} is not listed here, so it is not called directly.",
                f"Call it through {meta.CALL}.",
            )
        return super()._unknown(kind, name)

    # find_tools

    async def _find(self, caller: Caller, params: Shallow) -> bytes:
        try:
            request = finding.parse(params.get("arguments"))
        except (ValueError, msgspec.DecodeError) as error:
            return meta.result(caller.era, str(error), failed=True)
        projection, scopes = self._view.projection, self._view.scopes
        try:
            scope = scopes.of(request.filters)
            found = await self._services.finder.find(request.query, request.limit, scope)
        except RegistryError as error:
            raise finding.refused(error) from error
        text, structured = finding.answer(found, projection)
        self._services.trail.found(caller_of(caller), request.query, [hit.ref[:2] for hit in found.hits])
        return meta.result(caller.era, text, structured)

    # call_tool

    async def _call(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        """Check the arguments, ask where consent is needed, and go the way of any other call."""
        try:
            given = jsonrpc.object_of(params.get("arguments")) or {}
        except (msgspec.MsgspecError, RecursionError):
            given = {}
        name, arguments = jsonrpc.text(given.get("name")), given.get("arguments", _NO_ARGUMENTS)
        entry = self._view.projection.tools.get(name) if name is not None else None
        if entry is None:
            refuse_withheld(self._view.catalog.withheld, name or "", None)
            return self._failed(caller, ident, self._no_tool(name))
        if bytes(arguments)[:1] != b"{":
            return self._failed(caller, ident, "arguments must be a JSON object.")
        if (twice := twice_named(bytes(arguments))) is not None:
            return self._failed(caller, ident, f"The arguments name {twice[:80]!r} twice; say it once.")
        if problems := await self._problems(entry, bytes(arguments)):
            text = f"The arguments do not fit {name}: {'; '.join(problems)}"
            return self._failed(caller, ident, f"{text}\nIts inputSchema: {_schema(entry)}")
        toolset = self._view.projection.toolset.name
        call = Call(caller_of(caller), client_of(caller, params), toolset, entry, bytes(arguments))
        inner = {key: item for key, item in params.items() if key not in _OURS}
        if "requestState" in params:
            back = self._rounds.open(call, params)
            refusal = _refused(back.answer)
            if back.answer is None:
                if back.state:
                    inner["requestState"] = jsonrpc.raw(back.state)
                if "inputResponses" in params:
                    inner["inputResponses"] = params["inputResponses"]
        elif self._needs_consent(entry):
            if caller.era is Era.STATELESS and self._rounds.can_ask(params):
                return jsonrpc.result(ident, self._rounds.ask(call))
            refusal = _refused(await self._ask(caller, call)) or await self._changed(entry)
        else:
            refusal = None
        if refusal is not None:
            return self._failed(caller, ident, refusal)
        inner["name"], inner["arguments"] = jsonrpc.raw(entry.original), arguments
        headers = param_headers(usable_mirrors(entry.data), inner)
        answer = await self._made(caller, ident, entry, inner, headers)
        if (
            jsonrpc.failure(answer, ident) == protocol.HEADER_MISMATCH
        ):  # it was not executed, and what was allowed is no more
            await self._view.list_anew(entry.server)
            return self._failed(
                caller, ident, f"{name} has changed. Search again, then call it as it is now."
            )
        return self._seen(caller, ident, call, answer)

    async def _changed(self, entry: Entry) -> str | None:
        """What became of a tool while a person was asked for it; None where it is the one they were shown."""
        await self._view.refresh()
        now = self._view.projection.tools.get(entry.exposed)
        if now is not None and (now.server, now.original, now.hash) == (
            entry.server,
            entry.original,
            entry.hash,
        ):
            return None
        return f"The call was not made: {entry.exposed} has changed since the user was asked. Search again."

    def _no_tool(self, name: str | None) -> str:
        if name is None:
            return f"{meta.CALL} needs the name of a tool, a string, and its arguments, an object."
        return f"There is no tool {name[:200]!r} here. Search with {meta.FIND} for the tools there are."

    @staticmethod
    def _failed(caller: Caller, ident: Raw, text: str) -> bytes:
        """What a model can mend is a result (2025-11-25, Tools: Error Handling)."""
        return jsonrpc.result(ident, meta.result(caller.era, text, failed=True))

    async def _problems(self, entry: Entry, arguments: bytes) -> list[str]:
        schema = jsonrpc.shallow(entry.data).get("inputSchema")
        if schema is None:
            return []
        check = self._services.validators.check
        return await asyncio.to_thread(check, entry.hash, bytes(schema), arguments)

    def _needs_consent(self, entry: Entry) -> bool:
        projection = self._view.projection
        rule = projection.toolset.consent
        if rule != "writes":
            return rule == "always"
        if entry.exposed in projection.read_only:
            return False
        approved = self._services.pins.approved(entry.server, entry.original, entry.hash)
        return not (approved and says_read_only(entry))

    async def _made(self, caller: Caller, ident: Raw, entry: Entry, params: Shallow, headers: bytes) -> bytes:
        """Pass a call on as a direct one is; that of a client which takes tasks may become one."""
        if caller.era is Era.STATELESS and self.tasks.concerns(params, entry.data):
            return await self.tasks.call(caller, ident, entry.server, params, headers, entry.data)
        return await self.forward.tool(caller, ident, entry.server, entry.original, params, headers)

    async def _ask(self, caller: Caller, call: Call) -> Answer:
        """A person's answer, through the client or from the control socket. Raises ConsentRequired."""
        answer = await ask_live(caller, call) if caller.era is Era.HANDSHAKE else None
        if answer is not None:
            return answer
        decided = self._services.approvals.ask(call)
        if decided is None:
            raise self._services.approvals.required(call)
        return Answer(decided, "it was denied with `toolyard approve-call`")

    def _seen(self, caller: Caller, ident: Raw, call: Call, answer: bytes) -> bytes:
        """The answer on its way back: a server's own question gets our seal, a success is learned from."""
        result = jsonrpc.shallow(answer).get("result")
        if result is None:
            return answer
        wanted = input_required(result) if caller.era is Era.STATELESS else None
        if wanted is not None:
            return jsonrpc.result(ident, self._rounds.wrap(call, wanted))
        if not _is_error(result) and not _is_task(result):
            self._services.trail.succeeded(call.caller, call.entry.server, call.entry.original)
        return answer


def _binding(name: str, arguments: Raw | None) -> str:
    """What a handle of a plan is bound to: this tool, and these arguments, in whatever layout."""
    return f"\0{name}\0{definition_hash(bytes(arguments if arguments is not None else _NO_ARGUMENTS))}"


def caller_of(caller: Caller) -> str:
    """Who calls: the session, or in the stateless era whose credential the request has."""
    if caller.session is not None:
        return f"session {caller.session.ident}"
    return f"principal {caller.principal}"


def client_of(caller: Caller, params: Shallow) -> str:
    """What a client calls itself."""
    if caller.session is not None:
        return caller.session.client
    said = (jsonrpc.object_of(params.get("_meta")) or {}).get(protocol.META_CLIENT_INFO)
    return bytes(said).decode(errors="replace")[:300] if said is not None else ""


def _refused(answer: Answer | None) -> str | None:
    if answer is None or answer.allowed:
        return None
    return f"The call was not made: {answer.said}. Do not repeat it unless the user asks for it."


def _schema(entry: Entry) -> str:
    schema = bytes(jsonrpc.shallow(entry.data).get("inputSchema", _NO_ARGUMENTS))
    return (
        schema.decode() if len(schema) <= finding.MAX_SCHEMA else f"{len(schema):,} bytes, too large to show"
    )


def _is_error(result: Raw) -> bool:
    data = bytes(result)
    if b"isError" not in data:
        return False
    return bytes((jsonrpc.object_of(result) or {}).get("isError", msgspec.Raw(b"false"))) == b"true"


def _is_task(result: Raw) -> bool:
    """Whether the call goes on: what came of it is not known yet."""
    if b'"task"' not in bytes(result):
        return False
    return jsonrpc.text((jsonrpc.object_of(result) or {}).get("resultType")) == "task"
