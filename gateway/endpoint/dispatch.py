"""JSON-RPC methods of the MCP server we are, independent of the transport they came over."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import perf_counter
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.crossing import result_for
from gateway.bridge.features import features_of
from gateway.bridge.parking import Parking
from gateway.bridge.rounds import MAX_ROUNDS, gather_input, input_required
from gateway.bridge.seal import Sealer
from gateway.calls import CallLog
from gateway.catalog import Catalog, Entry
from gateway.endpoint.caller import Caller, log_rank
from gateway.endpoint.sessions import Session, Sessions, negotiate
from gateway.errors import RpcError, UpstreamError, UpstreamProtocolError, UpstreamUnavailable
from gateway.jsonrpc import Raw, Shallow
from gateway.policy.pins import refuse_withheld
from gateway.protocol import Era
from gateway.upstream.call import CallCancelled, Reply
from gateway.upstream.mirror import check_headers, param_headers, usable_mirrors
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
INSTRUCTIONS_EACH: Final = 2000
INSTRUCTIONS_ALL: Final = 8000
"""Characters of instructions passed on, from one server and in all."""
_EMPTY: Final = {Era.HANDSHAKE: b"{}", Era.STATELESS: b'{"resultType":"complete"}'}
_HANDSHAKE_ONLY: Final = frozenset(
    {"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
)
"""Methods that 2026-07-28 removed (Key Changes, 2 to 5)."""
_NAMES: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_MAY_ASK: Final = frozenset(_NAMES)
"""Requests that may be answered with ``input_required`` (2026-07-28, Supported Requests)."""
STATE_LIFETIME: Final = 24 * 3600.0
"""Seconds a server's ``requestState`` is good for in a client's hands."""
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


class Interests(Protocol):
    """Where clients say what they want to hear of."""

    async def subscribe(self, session: Session, uri: str, server: str) -> None:
        """Have the server tell of updates to a resource. Raises GatewayError."""

    async def unsubscribe(self, session: Session, uri: str) -> None:
        """End that, when no other session wants them. Raises GatewayError."""

    async def set_log_level(self, level: str) -> None:
        """Have servers send log messages from this severity on."""


class Dispatcher:
    """Serves one message at a time for any number of callers.

    :param calls: hears of every call of a tool.
    :param key: seals what passes through clients' hands; at least 32 bytes.
    """

    def __init__(
        self, board: Switchboard, sessions: Sessions, interests: Interests, calls: CallLog, key: bytes
    ) -> None:
        self._board = board
        self._calls = calls
        self._interests = interests
        self.sessions = sessions
        self.parking = Parking(key)
        self._states = Sealer("state", key)
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
            **{method: self._lister(method) for method in LIST_KINDS},
        }

    def initialize(self, params: Shallow) -> tuple[Session, bytes]:
        """Open a session: the session and the ``initialize`` result. Raises RpcError."""
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
        session = self.sessions.open(version, name, features)
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
        await self._interests.set_log_level(level)
        return jsonrpc.result(ident, b"{}")

    # passed on

    async def _call_tool(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
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
        return await self._forward_call(caller, ident, entry, params, _mirrored(caller, entry.data, params))

    def _only_server(self, kind: ItemKind) -> str | None:
        """The one server unprefixed names can belong to, if there is just one."""
        servers = self._board.catalog.supporting("tools" if kind is ItemKind.TOOL else "prompts")
        return servers[0] if self._board.plain_names and len(servers) == 1 else None

    def _unknown(self, kind: ItemKind, name: str) -> RpcError:
        known = self._board.catalog.entries[kind]
        near = difflib.get_close_matches(name[:64], known, n=3) if len(known) <= 5000 else []
        hint = f"Did you mean {', '.join(near)}?" if near else f"List the {kind.value}s again."
        return RpcError(protocol.INVALID_PARAMS, f"Unknown {kind.value}: {name[:200]}.", hint)

    async def _forward_call(
        self, caller: Caller, ident: Raw, entry: Entry, params: Shallow, headers: bytes
    ) -> bytes:
        """Pass a call of a tool on, and note what came of it."""
        client = params.get("_meta") if caller.session is None else caller.session.client
        started = perf_counter()
        try:
            answer = await self._forward(caller, ident, entry.server, "tools/call", params, headers)
        except BaseException as error:
            self._calls.failed(entry.server, entry.original, client, params, started, error)
            raise
        self._calls.answered(entry.server, entry.original, client, params, started, ident, answer)
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
            if await upstream.era(caller.era) is Era.STATELESS:
                return await self._forward_stateless(caller, ident, upstream, method, params, headers)
            if method in _MAY_ASK:
                return await self._forward_parkable(caller, ident, upstream, method, params)
        for _ in range(MAX_ROUNDS):
            connection, reply = await upstream.request(
                caller.era, method, params, site=caller, headers=headers, said=caller.said
            )
            assert connection.peer is not None
            if reply.result is None or connection.peer.era is caller.era:
                return _passed(ident, reply)
            wanted = input_required(reply.result)
            if wanted is None:
                return jsonrpc.result(ident, result_for(caller.era, method, reply.result, server))
            params = {**params, **await gather_input(caller, wanted, server)}
        raise UpstreamProtocolError(f"Server '{server}' asked for input {MAX_ROUNDS} times.", "Try again.")

    async def _forward_stateless(
        self, caller: Caller, ident: Raw, upstream: Upstream, method: str, params: Shallow, headers: bytes
    ) -> bytes:
        """Pass on a call in its own era; the server's ``requestState`` travels sealed."""
        binding = _binding(upstream.name, method, params)
        if "requestState" in params:
            state = self._states.open(binding, jsonrpc.text(params["requestState"]) or "")
            if state is None:
                raise RpcError(
                    protocol.INVALID_PARAMS,
                    "requestState is not one this gateway gave for this request, or it has expired.",
                    "Send the request again without it.",
                )
            params["requestState"] = msgspec.Raw(state.encode())
        _, reply = await upstream.request(caller.era, method, params, site=caller, headers=headers)
        wanted = input_required(reply.result) if reply.result is not None else None
        if wanted is None or "requestState" not in wanted:
            return _passed(ident, reply)
        sealed = self._states.seal(binding, bytes(wanted["requestState"]).decode(), STATE_LIFETIME)
        return jsonrpc.result(ident, jsonrpc.encode({**wanted, "requestState": sealed}))

    async def _forward_parkable(
        self, caller: Caller, ident: Raw, upstream: Upstream, method: str, params: Shallow
    ) -> bytes:
        """Call a handshake-era server for a stateless client, which is asked for input between results."""
        binding = _binding(upstream.name, method, params)
        state, responses = params.pop("requestState", None), params.pop("inputResponses", None)
        if state is not None:
            given = jsonrpc.shallow(responses) if responses is not None else {}
            outcome = await self.parking.resume(caller, binding, jsonrpc.text(state) or "", given)
        else:
            meta = jsonrpc.object_of(params.get("_meta")) or {}
            declared = meta.get(protocol.META_CLIENT_CAPABILITIES)
            outcome = await self.parking.run(
                caller,
                features_of(jsonrpc.value(declared) if declared is not None else None),
                binding,
                lambda site: upstream.request(caller.era, method, params, site=site),
            )
        if isinstance(outcome, bytes):
            return jsonrpc.result(ident, outcome)
        connection, reply = outcome
        assert connection.peer is not None
        if reply.result is None or connection.peer.era is caller.era:
            return _passed(ident, reply)
        return jsonrpc.result(ident, result_for(caller.era, method, reply.result, upstream.name))

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
        return jsonrpc.result(ident, b"{}")

    async def _unsubscribe(self, caller: Caller, ident: Raw, params: Shallow) -> bytes:
        assert caller.session is not None
        await self._interests.unsubscribe(caller.session, self._uri(params))
        return jsonrpc.result(ident, b"{}")


def _mirrored(caller: Caller, definition: bytes, params: Shallow) -> bytes:
    """The headers that repeat arguments: those of the caller checked, those for the server made."""
    found = usable_mirrors(definition)
    if not found:
        return b""
    if caller.headers is not None:
        check_headers(found, params, caller.headers)
    return param_headers(found, params)


def _binding(server: str, method: str, params: Shallow) -> str:
    """What a handle is bound to: the request it may come back with."""
    name = jsonrpc.text(params.get(_NAMES.get(method, ""))) or ""
    return f"{server}\0{method}\0{name}"


def _passed(ident: Raw, reply: Reply) -> bytes:
    """A server's answer, as it is."""
    if reply.result is not None:
        return jsonrpc.result(ident, reply.result)
    return jsonrpc.error(ident, reply.error or {"code": protocol.INTERNAL_ERROR, "message": "No result."})


def capabilities(era: Era) -> dict[str, Any]:
    """Our ``ServerCapabilities``.

    The four lists are always offered: servers may appear at any time, and a client that was not
    told of a list does not ask for it again.
    """
    offered: dict[str, Any] = {
        "tools": {"listChanged": True},
        "prompts": {"listChanged": True},
        "resources": {"listChanged": True},
        "completions": {},
    }
    if era is Era.HANDSHAKE:
        offered["logging"] = {}
        offered["resources"]["subscribe"] = True
    return offered


def joined_instructions(texts: Iterable[tuple[str, str]]) -> str:
    """The instructions of many servers as one text, each under its server's name.

    A model reads all of it before its first word, so each server gets a page and all together four.
    """
    parts = [f"## {name}\n{text.strip()[:INSTRUCTIONS_EACH]}" for name, text in texts if text.strip()]
    return "\n\n".join(parts)[:INSTRUCTIONS_ALL]


def discover_result(instructions: str) -> bytes:
    """The ``server/discover`` result (2026-07-28, Discovery)."""
    result: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": list(protocol.SUPPORTED_VERSIONS),
        "capabilities": capabilities(Era.STATELESS),
        "_meta": {protocol.META_SERVER_INFO: client_info()},
        "ttlMs": 5000,
        "cacheScope": "private",
    }
    if instructions:
        result["instructions"] = instructions
    return jsonrpc.encode(result)
