"""JSON-RPC methods of the MCP server we are, independent of the transport they came over."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.features import declared_in, features_of
from gateway.bridge.parking import Parking
from gateway.bridge.rewrites import MAY_ASK
from gateway.bridge.rounds import MAX_ROUNDS, gather_input, input_required
from gateway.bridge.tasks import Tasks
from gateway.calls import CallLog
from gateway.catalog import Catalog
from gateway.endpoint.answers import binding_of, crossed, mirrored_headers, passed
from gateway.endpoint.caller import Caller, log_rank
from gateway.endpoint.introduction import capabilities, discover_result
from gateway.endpoint.sessions import Session, Sessions, negotiate
from gateway.endpoint.tasks import TaskMethods
from gateway.errors import RpcError, UpstreamError, UpstreamProtocolError, UpstreamUnavailable
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
STATE_LIFETIME: Final = 24 * 3600.0
"""Seconds a server's ``requestState`` is good for in a client's hands."""
MISMATCH: Final = b'"error":{"code":%d,' % protocol.HEADER_MISMATCH
"""Stands near the begin of a refusal for headers that do not repeat the body: nothing was executed."""
_NOT_FOUND_CODES: Final = frozenset({protocol.RESOURCE_NOT_FOUND, protocol.INVALID_PARAMS})


class Switchboard(Protocol):
    """What the dispatcher needs of the gateway."""

    @property
    def catalog(self) -> Catalog:
        """What clients are shown now."""

    @property
    def upstreams(self) -> Mapping[str, Upstream]:
        """The servers by name."""

    @property
    def plain_names(self) -> bool:
        """Whether names go without a server's prefix where nothing forces one."""

    @property
    def instructions(self) -> str:
        """What the servers want a model to know of them."""

    async def settled(self) -> None:
        """Wait, within the shared grace, for servers whose catalog was never seen."""

    async def list_anew(self, server: str) -> None:
        """Ask a server for its tools again."""


class Interests(Protocol):
    """Where clients say what they want to hear of."""

    async def subscribe(self, session: Session, uri: str, server: str) -> None:
        """Have the server tell of updates to a resource. Raises GatewayError."""

    async def unsubscribe(self, session: Session, uri: str) -> None:
        """End that, when no other session wants them. Raises GatewayError."""

    async def set_log_level(self, level: str, session: Session | None = None) -> None:
        """Have servers send log messages from this severity on."""

    async def log_from(self, upstream: Upstream, rank: int) -> None:
        """Have a handshake-era server send them from this rank on, for one request's sake."""

    def roots_changed(self, session: Session) -> None:
        """A client's roots are others now."""


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
        self._calls = calls
        self._interests = interests
        self.sessions = sessions
        self.parking = Parking(Sealer(Purpose.HANDLE, ring, endpoint=endpoint))
        self._states = Sealer(Purpose.STATE, ring, endpoint=endpoint)
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
            return await self._forward(caller, ident, only, method, params)
        if entry.original != name:
            params["name"] = jsonrpc.raw(entry.original)
        if kind is not ItemKind.TOOL:
            return await self._forward(caller, ident, entry.server, method, params)
        headers = mirrored_headers(caller, entry.data, params)
        if caller.era is Era.STATELESS and self.tasks.concerns(params, entry.data):
            return await self.tasks.call(caller, ident, entry.server, params, headers, entry.data)
        answer = await self._forward_call(caller, ident, entry.server, entry.original, params, headers)
        if answer.find(MISMATCH, 0, 256) > 0 and "requestState" not in params:
            # Its schema has changed, and with it what headers must repeat: nothing was executed.
            await self._board.list_anew(entry.server)
            if (fresh := self._board.catalog.get(kind, name)) is not None and fresh.data != entry.data:
                headers = param_headers(usable_mirrors(fresh.data), params)
                answer = await self._forward_call(
                    caller, ident, fresh.server, fresh.original, params, headers
                )
        return answer

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
        """Pass a tool call on: the whole response. Raises GatewayError."""
        name = jsonrpc.text(params.get("name")) or ""
        return await self._forward_call(caller, ident, server, name, params, headers)

    def abandon(self, principal: str, server: str, method: str, params: Shallow, handle: str) -> None:
        """Give up a call that is parked."""
        self.parking.abandon(principal, binding_of(server, method, params), handle, "the client gave it up")

    async def _forward_call(
        self, caller: Caller, ident: Raw, server: str, name: str, params: Shallow, headers: bytes
    ) -> bytes:
        """Pass a call of a tool on, and note what came of it."""
        client = params.get("_meta") if caller.session is None else caller.session.client
        started = perf_counter()
        try:
            answer = await self._forward(caller, ident, server, "tools/call", params, headers)
        except BaseException as error:
            self._calls.failed(server, name, client, params, started, error)
            raise
        self._calls.answered(server, name, client, params, started, ident, answer)
        return answer

    async def _forward(
        self,
        caller: Caller,
        ident: Raw,
        server: str,
        method: str,
        params: Shallow,
        headers: bytes = b"",
    ) -> bytes:
        upstream = self._board.upstreams.get(server)
        if upstream is None:
            raise UpstreamUnavailable(f"Server '{server}' was removed.", "List the tools again.")
        if caller.era is Era.STATELESS:
            if await upstream.era(caller.era, params, caller) is Era.STATELESS:
                return await self._forward_stateless(caller, ident, upstream, method, params, headers)
            if caller.log_level is not None:
                await self._interests.log_from(upstream, caller.log_level)
            if method in MAY_ASK:
                return await self._forward_parkable(caller, ident, upstream, method, params)
        retry: Shallow | None = None
        for _ in range(MAX_ROUNDS):
            connection, reply = await upstream.request(
                caller.era, method, params, site=caller, headers=headers, said=caller.said, retry=retry
            )
            peer = connection.peer
            assert peer is not None
            if reply.error is None and peer.protocol_version == caller.revision:
                return passed(ident, reply)
            wanted = None
            if peer.era is Era.STATELESS and reply.result is not None and method in MAY_ASK:
                wanted = input_required(reply.result)
            if wanted is None:
                return passed(ident, crossed(caller, connection, reply, method))
            retry = await gather_input(caller, wanted, server, peer.protocol_version)
        raise UpstreamProtocolError(f"Server '{server}' asked for input {MAX_ROUNDS} times.", "Try again.")

    async def _forward_stateless(
        self, caller: Caller, ident: Raw, upstream: Upstream, method: str, params: Shallow, headers: bytes
    ) -> bytes:
        """Pass on a call in its own era; the server's ``requestState`` travels sealed."""
        binding = binding_of(upstream.name, method, params)
        if "requestState" in params:
            state = self._states.open(caller.principal, binding, jsonrpc.text(params["requestState"]) or "")
            if state is None:
                raise RpcError(
                    protocol.INVALID_PARAMS,
                    "requestState is not one this gateway gave for this request, or it has expired.",
                    "Send the request again without it.",
                )
            params["requestState"] = msgspec.Raw(state.encode())
        connection, reply = await upstream.request(caller.era, method, params, site=caller, headers=headers)
        wanted = input_required(reply.result) if reply.result is not None else None
        if wanted is None or "requestState" not in wanted:
            return passed(ident, reply if reply.error is None else crossed(caller, connection, reply, method))
        state = bytes(wanted["requestState"]).decode()
        sealed = self._states.seal(caller.principal, binding, state, STATE_LIFETIME)
        return jsonrpc.result(ident, jsonrpc.encode({**wanted, "requestState": sealed}))

    async def _forward_parkable(
        self, caller: Caller, ident: Raw, upstream: Upstream, method: str, params: Shallow
    ) -> bytes:
        """Call a handshake-era server for a stateless client, which is asked for input between results."""
        binding = binding_of(upstream.name, method, params)
        outcome = await self.parking.call(
            caller, params, binding, lambda site: upstream.request(caller.era, method, params, site=site)
        )
        if isinstance(outcome, bytes):
            return jsonrpc.result(ident, outcome)
        connection, reply = outcome
        return passed(ident, crossed(caller, connection, reply, method, declared_in(params)))

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
                answer = await self._forward(caller, ident, server, "resources/read", dict(params))
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
        return await self._forward(caller, ident, owner.server, "completion/complete", params)

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
