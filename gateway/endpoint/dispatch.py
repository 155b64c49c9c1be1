"""JSON-RPC methods of the MCP server we are, independent of the transport they came over."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.features import features_of
from gateway.bridge.tasks import Tasks
from gateway.calls import CallLog
from gateway.endpoint.answers import binding_of, mirrored_headers
from gateway.endpoint.board import Interests, Switchboard
from gateway.endpoint.caller import Caller, log_rank
from gateway.endpoint.forward import Forwarder
from gateway.endpoint.introduction import capabilities, discover_result
from gateway.endpoint.sessions import Session, Sessions, negotiate
from gateway.endpoint.tasks import TaskMethods
from gateway.errors import RpcError, UpstreamError
from gateway.jsonrpc import Raw, Shallow
from gateway.policy.pins import refuse_withheld
from gateway.policy.principal import LOCAL
from gateway.protocol import Era
from gateway.sealing import KeyRing, Purpose, Sealer
from gateway.upstream.call import CallCancelled
from gateway.upstream.mirror import param_headers, usable_mirrors
from gateway.upstream.peer import client_info
from gateway.upstream.supervisor import Upstream
from registry.model import ItemKind

Handler: TypeAlias = Callable[[Caller, Raw, Shallow], Awaitable[bytes]]

LIST_KINDS: Final = {
    "tools/list": ItemKind.TOOL,
    "resources/list": ItemKind.RESOURCE,
    "resources/templates/list": ItemKind.TEMPLATE,
    "prompts/list": ItemKind.PROMPT,
}
_EMPTY: Final = {Era.HANDSHAKE: b"{}", Era.STATELESS: b'{"resultType":"complete"}'}
_HANDSHAKE_ONLY: Final = frozenset(
    {"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
)
"""Methods that 2026-07-28 removed (Key Changes, 2 to 5)."""
_NOT_FOUND_CODES: Final = frozenset({protocol.RESOURCE_NOT_FOUND, protocol.INVALID_PARAMS})


class Dispatcher:
    """Serves one message at a time for any number of callers.

    :param calls: hears of every call of a tool.
    :param ring: seals what passes through clients' hands.
    :param endpoint: the toolset it serves, "" for every tool: what it seals is good there alone.
    """

    def __init__(
        self,
        board: Switchboard,
        sessions: Sessions,
        interests: Interests,
        calls: CallLog,
        ring: KeyRing,
        tasks: Tasks,
        endpoint: str = "",
    ) -> None:
        self._board = board
        self._interests = interests
        self.sessions = sessions
        self.forward = Forwarder(board, interests, calls, ring, endpoint)
        self.parking = self.forward.parking
        self.tasks = TaskMethods(tasks, self, Sealer(Purpose.TASK, ring, endpoint=endpoint), endpoint)
        self._handlers: dict[str, Handler] = {
            "initialize": self._initialize_again,
            "ping": self._ping,
            "server/discover": self._discover,
            "tools/call": self._call_tool,
            "prompts/get": self._get_prompt,
            "resources/read": self._read_resource,
            "completion/complete": self._complete,
            "logging/setLevel": self._set_level,
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._unsubscribe,
            "tasks/get": self.tasks.get,
            "tasks/update": self.tasks.update,
            "tasks/cancel": self.tasks.cancel,
            **{method: self._lister(method) for method in LIST_KINDS},
        }

    def initialize(
        self, params: Shallow, principal: str = LOCAL, *, lasting: bool = False
    ) -> tuple[Session, bytes]:
        """Open a session: the session and the ``initialize`` result. Raises RpcError.

        :param lasting: its client gets an id to come back with.
        """
        try:
            requested = jsonrpc.value(params["protocolVersion"])
            info = jsonrpc.value(params["clientInfo"]) if "clientInfo" in params else {}
        except (KeyError, msgspec.MsgspecError):
            raise RpcError(protocol.INVALID_PARAMS, "initialize needs a protocolVersion.") from None
        name = f"{info.get('name', '')} {info.get('version', '')}".strip() if isinstance(info, dict) else ""
        version = negotiate(requested)
        try:
            features = features_of(jsonrpc.value(params.get("capabilities", msgspec.Raw(b"{}"))))
        except msgspec.MsgspecError:
            features = ()
        session = self.sessions.open(version, name, features, principal, lasting=lasting)
        result: dict[str, Any] = {
            "protocolVersion": version,
            "capabilities": capabilities(Era.HANDSHAKE),
            "serverInfo": client_info(),
        }
        if text := self._board.instructions:
            result["instructions"] = text
        return session, jsonrpc.encode(result)

    async def handle(self, caller: Caller, method: str, ident: Raw, message: Shallow) -> bytes:
        """Serve a request: the whole response message. Raises GatewayError."""
        handler = self._handlers.get(method)
        if handler is None or (caller.era is Era.STATELESS and method in _HANDSHAKE_ONLY):
            raise RpcError(protocol.METHOD_NOT_FOUND, f"Method not found: {method[:200]}", status=404)
        params = message.get("params")
        try:
            fields = jsonrpc.shallow(params) if params is not None else {}
        except msgspec.MsgspecError:
            raise RpcError(protocol.INVALID_PARAMS, f"The params of {method} must be an object.") from None
        meta = fields.get("_meta")
        if meta is not None and bytes(meta)[:1] != b"{":
            raise RpcError(protocol.INVALID_PARAMS, "_meta must be an object.")
        session = caller.session
        if session is None:
            return await handler(caller, ident, fields)
        key = bytes(ident)
        session.begin(key, caller)
        try:
            return await handler(caller, ident, fields)
        finally:
            session.end(key)
            caller.done()

    def response(self, session: Session, message: Shallow) -> None:
        """Take a client's response to a request it was sent."""
        session.responded(message)

    def notification(self, session: Session, method: str, message: Shallow) -> None:
        """Take a notification of a handshake-era client; unknown ones are ignored (JSON-RPC, 4.1)."""
        if method == "notifications/cancelled" and "params" in message:
            try:
                params = jsonrpc.shallow(message["params"])
            except msgspec.MsgspecError:
                return
            if "requestId" in params:
                session.cancel(bytes(params["requestId"]), jsonrpc.text(params.get("reason")) or "cancelled")
        elif method == "notifications/progress":
            session.reported(jsonrpc.object_of(message.get("params")) or {})
        elif method == "notifications/roots/list_changed":
            self._interests.roots_changed(session)

    # our own

    async def _initialize_again(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        raise RpcError(
            protocol.INVALID_REQUEST, "This session is initialized already.", "Open a new session instead."
        )

    async def _ping(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        return jsonrpc.result(ident, _EMPTY[caller.era])

    async def _discover(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        if caller.era is Era.HANDSHAKE:
            raise RpcError(protocol.METHOD_NOT_FOUND, "Method not found: server/discover")
        return jsonrpc.result(ident, discover_result(self._board.instructions))

    def _lister(self, method: str) -> Handler:
        kind = LIST_KINDS[method]

        async def handler(caller: Caller, ident: Raw, params: Shallow) -> bytes:
            await self._board.settled()
            cursor = None
            if "cursor" in params and not jsonrpc.is_null(params["cursor"]):
                cursor = jsonrpc.text(params["cursor"])
                if cursor is None:
                    raise RpcError(protocol.INVALID_PARAMS, "cursor must be a string.")
            page = self._board.catalog.page(kind, cursor, caller.era is Era.STATELESS)
            return jsonrpc.result(ident, page)

        return handler

    async def _set_level(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        level = jsonrpc.text(params.get("level"))
        rank = log_rank(level)
        if rank is None or level is None:
            raise RpcError(
                protocol.INVALID_PARAMS, "level must be one of " + ", ".join(protocol.LOG_LEVELS) + "."
            )
        assert caller.session is not None
        caller.session.log_level = rank
        await self._interests.set_log_level(level, caller.session)
        await self.sessions.remember(caller.session)
        return jsonrpc.result(ident, b"{}")

    # passed on

    async def _call_tool(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        params.pop("task", None)  # the experimental tasks of 2025-11-25, which are not offered
        return await self._named(caller, ident, params, ItemKind.TOOL, "tools/call")

    async def _get_prompt(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        return await self._named(caller, ident, params, ItemKind.PROMPT, "prompts/get")

    async def _named(self, caller: Caller, ident: Raw, params: Shallow, kind: ItemKind, method: str) -> bytes:
        name = jsonrpc.text(params.get("name"))
        if name is None:
            raise RpcError(protocol.INVALID_PARAMS, f"{method} needs a name that is a string.")
        entry = self._board.catalog.get(kind, name)
        if entry is None:
            await self._board.settled()
            entry = self._board.catalog.get(kind, name)
        if entry is None:
            only = self._only_server(kind)
            if kind is ItemKind.TOOL:
                refuse_withheld(self._board.catalog.withheld, name, only)
            if only is None:
                raise self._unknown(kind, name)
            # It alone can know the name, be it one it does not list; its own answer is the best one.
            return await self.forward.request(caller, ident, only, method, params)
        if entry.original != name:
            params["name"] = jsonrpc.raw(entry.original)
        if kind is not ItemKind.TOOL:
            return await self.forward.request(caller, ident, entry.server, method, params)
        headers = mirrored_headers(caller, entry.data, params)
        if caller.era is Era.STATELESS and self.tasks.concerns(params, entry.data):
            return await self.tasks.call(caller, ident, entry.server, params, headers, entry.data)
        return await self.attempt(caller, ident, entry.server, params, headers)

    def _only_server(self, kind: ItemKind) -> str | None:
        """The one server unprefixed names can belong to, if there is just one."""
        servers = self._board.catalog.supporting("tools" if kind is ItemKind.TOOL else "prompts")
        return servers[0] if self._board.plain_names and len(servers) == 1 else None

    def _unknown(self, kind: ItemKind, name: str) -> RpcError:
        known = self._board.catalog.entries[kind]
        near = difflib.get_close_matches(name[:64], known, n=3) if len(known) <= 5000 else []
        hint = f"Did you mean {', '.join(near)}?" if near else f"List the {kind.value}s again."
        return RpcError(protocol.INVALID_PARAMS, f"Unknown {kind.value}: {name[:200]}.", hint)

    # what tasks need of us

    def upstream(self, name: str) -> Upstream | None:
        """The server of that name."""
        return self._board.upstreams.get(name)

    async def attempt(
        self, caller: Caller, ident: Raw, server: str, params: Shallow, headers: bytes
    ) -> bytes:
        """Pass a tool call on: the whole response. Raises GatewayError.

        A server that refuses its headers has not executed it: the tool's schema, which says what they repeat,
        may be another by now (2026-07-28, Streamable HTTP: Client Behavior). It is listed anew, and the call
        made once more where that changes the headers.
        """
        name = jsonrpc.text(params.get("name")) or ""
        answer = await self.forward.tool(caller, ident, server, name, params, headers)
        if jsonrpc.failure(answer, ident) != protocol.HEADER_MISMATCH or "requestState" in params:
            return answer
        await self._board.list_anew(server)
        known = self._board.catalog.entries[ItemKind.TOOL].values()
        entry = next((one for one in known if (one.server, one.original) == (server, name)), None)
        if entry is None:
            refuse_withheld(self._board.catalog.withheld, name, server)
            return answer
        fresh = param_headers(usable_mirrors(entry.data), params)
        if fresh == headers:
            return answer
        return await self.forward.tool(caller, ident, server, name, params, fresh)

    def abandon(self, principal: str, server: str, method: str, params: Shallow, handle: str) -> None:
        """Give up a call that is parked."""
        self.parking.abandon(principal, binding_of(server, method, params), handle, "the client gave it up")

    async def _read_resource(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        uri = self._uri(params)
        candidates = self._board.catalog.read_candidates(uri)
        if not candidates:
            await self._board.settled()
            candidates = self._board.catalog.read_candidates(uri)
        listed = self._board.catalog.get(ItemKind.RESOURCE, uri)
        failure: UpstreamError | None = None
        answer = None
        for server in candidates:
            try:
                answer = await self.forward.request(caller, ident, server, "resources/read", dict(params))
            except UpstreamError as error:
                if (listed is not None and listed.server == server) or isinstance(error, CallCancelled):
                    raise  # no other server may speak for the owner
                failure = failure or error
                continue
            message = jsonrpc.shallow(answer)
            if "error" not in message or jsonrpc.error_code(message["error"]) not in _NOT_FOUND_CODES:
                return answer
        if failure is not None:
            raise failure
        if answer is not None:
            return answer
        raise self._no_resource(caller, uri)

    @staticmethod
    def _no_resource(caller: Caller, uri: str) -> RpcError:
        code = protocol.RESOURCE_NOT_FOUND if caller.era is Era.HANDSHAKE else protocol.INVALID_PARAMS
        return RpcError(code, f"Resource not found: {uri[:200]}", uri=uri)

    @staticmethod
    def _uri(params: Shallow) -> str:
        uri = jsonrpc.text(params.get("uri"))
        if uri is None:
            raise RpcError(protocol.INVALID_PARAMS, "uri must be a string.")
        return uri

    async def _complete(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        try:
            ref = jsonrpc.value(params["ref"])
        except (KeyError, msgspec.MsgspecError):
            ref = None
        owner = self._board.catalog.completion_owner(ref) if isinstance(ref, dict) else None
        if owner is None:
            raise RpcError(
                protocol.INVALID_PARAMS, "ref names no prompt or resource template that is listed."
            )
        if ref.get("type") == "ref/prompt" and owner.original != ref.get("name"):
            fields = jsonrpc.shallow(params["ref"])
            fields["name"] = jsonrpc.raw(owner.original)
            params["ref"] = jsonrpc.raw(fields)
        if owner.server not in self._board.catalog.supporting("completions"):
            result = jsonrpc.shallow(_EMPTY[caller.era])
            result["completion"] = msgspec.Raw(b'{"values":[],"total":0,"hasMore":false}')
            return jsonrpc.result(ident, jsonrpc.encode(result))
        return await self.forward.request(caller, ident, owner.server, "completion/complete", params)

    async def _subscribe(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        uri = self._uri(params)
        candidates = self._board.catalog.read_candidates(uri)
        if not candidates:
            raise self._no_resource(caller, uri)
        assert caller.session is not None
        await self._interests.subscribe(caller.session, uri, candidates[0])
        await self.sessions.remember(caller.session)
        return jsonrpc.result(ident, b"{}")

    async def _unsubscribe(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        assert caller.session is not None
        await self._interests.unsubscribe(caller.session, self._uri(params))
        await self.sessions.remember(caller.session)
        return jsonrpc.result(ident, b"{}")
