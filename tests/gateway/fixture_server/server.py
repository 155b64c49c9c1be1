"""The fixture server behind its faces: methods, sessions of the handshake era, listeners of 2026-07-28."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import content
import tools
from rpc import HANDSHAKE, LEVELS, META, STATELESS, Asker, Call, InputRequired, Params, RpcError

Send = Callable[[dict[str, Any]], None]

ERAS = ("handshake", "stateless", "both")
INFO = {"name": "fixture", "title": "Fixture", "version": "1.0"}
INSTRUCTIONS = "A server that has one of everything."
DYNAMIC = "test_dynamic_tool"
LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
FILTER = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}
CHANGES = {
    "test_trigger_tool_change": "Offers one tool more, or takes it away again.",
    "test_trigger_prompt_change": "Offers one prompt more, or takes it away again.",
    "touch_watched_resource": "Changes the watched resource.",
}
UPDATED = "notifications/resources/updated"


class Session:
    """One client of the handshake era.

    :param aside: sends what belongs to no request.
    """

    def __init__(self, version: str, capabilities: dict[str, Any], aside: Send) -> None:
        self.version = version
        self.capabilities = capabilities
        self.aside = aside
        self.asker = Asker()
        self.level = 0
        self.subscriptions: set[str] = set()
        self.roots: Any = None
        self.running: dict[Any, asyncio.Task[Any]] = {}


class Listener:
    """One ``subscriptions/listen`` of 2026-07-28."""

    def __init__(self, ident: Any, wanted: dict[str, Any], send: Send) -> None:
        self.ident = ident
        self.methods = {method for field, method in FILTER.items() if wanted.get(field) is True}
        self.uris = set(wanted.get("resourceSubscriptions") or ())
        self._send = send

    def acknowledge(self) -> None:
        agreed: dict[str, Any] = {field: True for field, method in FILTER.items() if method in self.methods}
        if self.uris:
            agreed["resourceSubscriptions"] = sorted(self.uris)
        self.tell("notifications/subscriptions/acknowledged", {"notifications": agreed})

    def tell(self, method: str, params: dict[str, Any]) -> None:
        params = {**params, "_meta": {META + "subscriptionId": self.ident}}
        self._send({"jsonrpc": "2.0", "method": method, "params": params})


class Server:
    """Serves requests of any number of clients.

    :param era: one of ERAS.
    :param latest: the handshake revision it offers at most.
    :param ask_roots: ask each handshake-era client for its roots right after ``initialize``.
    """

    def __init__(self, era: str, latest: str = HANDSHAKE[0], ask_roots: bool = False) -> None:
        self.handshake = era != "stateless"
        self.stateless = era != "handshake"
        self.versions = HANDSHAKE[HANDSHAKE.index(latest) :]
        self.ask_roots = ask_roots
        self.content = content.Content()
        self.sessions: list[Session] = []
        self.listeners: list[Listener] = []
        self._extra_tools: dict[str, Any] = {}
        self._extra_prompts: list[dict[str, Any]] = []

    @property
    def supported(self) -> list[str]:
        return [*(STATELESS if self.stateless else ()), *(self.versions if self.handshake else ())]

    def _capabilities(self, stateless: bool) -> dict[str, Any]:
        offered: dict[str, Any] = {
            "tools": {"listChanged": True},
            "prompts": {"listChanged": True},
            "resources": {"listChanged": True, "subscribe": True},
            "completions": {},
        }
        return offered if stateless else {**offered, "logging": {}}

    # change

    def announce(self, method: str) -> None:
        """Tell everybody that a list looks different."""
        for session in self.sessions:
            session.aside({"jsonrpc": "2.0", "method": method})
        for listener in self.listeners:
            if method in listener.methods:
                listener.tell(method, {})

    def _updated(self, uri: str) -> None:
        for session in self.sessions:
            if uri in session.subscriptions:
                session.aside({"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": uri}})
        for listener in self.listeners:
            if uri in listener.uris:
                listener.tell(UPDATED, {"uri": uri})

    def _change(self, name: str) -> str:
        if name == "test_trigger_tool_change":
            if self._extra_tools.pop(DYNAMIC, None) is None:
                self._extra_tools[DYNAMIC] = {
                    "name": DYNAMIC,
                    "description": "Comes and goes.",
                    "inputSchema": tools.NONE,
                }
            self.announce("notifications/tools/list_changed")
        elif name == "test_trigger_prompt_change":
            dynamic = {"name": "test_dynamic_prompt", "description": "Comes and goes."}
            self._extra_prompts = [] if self._extra_prompts else [dynamic]
            self.announce("notifications/prompts/list_changed")
        else:
            self.content.version += 1
            self._updated(content.WATCHED)
        return "changed"

    # methods

    def initialize(self, params: Params, aside: Send) -> tuple[Session, dict[str, Any]]:
        """A session and the ``initialize`` result. Raises RpcError."""
        asked = params.get("protocolVersion")
        if not self.handshake:
            raise RpcError(
                -32022, "Unsupported protocol version", 400, supported=self.supported, requested=asked
            )
        version = asked if asked in self.versions else self.versions[0]
        session = Session(version, params.get("capabilities") or {}, aside)
        self.sessions.append(session)
        result = {
            "protocolVersion": version,
            "capabilities": self._capabilities(False),
            "serverInfo": INFO,
            "instructions": INSTRUCTIONS,
        }
        return session, result

    async def initialized(self, session: Session) -> None:
        """What is done when a client says that it is ready."""
        if self.ask_roots and "roots" in session.capabilities:
            session.roots = await session.asker.ask(session.aside, "roots/list", None)

    async def serve(
        self, session: Session | None, message: Params, send: Send, broken: Callable[[], None]
    ) -> Any:
        """The response to a request; without a session it is one of 2026-07-28."""
        ident, method = message["id"], str(message.get("method"))
        params = message.get("params") or {}
        try:
            if session is None:
                result = await self._stateless(method, params, send)
            else:
                call = Call(params, send, session.asker, session.capabilities, session.level, broken)
                result = await self._handshake(session, method, call)
        except InputRequired as wanted:
            result = wanted.result
        except RpcError as error:
            return {"jsonrpc": "2.0", "id": ident, "error": error.error}
        return {"jsonrpc": "2.0", "id": ident, "result": result}

    async def _handshake(self, session: Session, method: str, call: Call) -> dict[str, Any]:
        match method:
            case "ping":
                return {}
            case "logging/setLevel":
                if call.params.get("level") not in LEVELS:
                    raise RpcError(-32602, "Unknown log level")
                session.level = LEVELS.index(str(call.params["level"]))
                return {}
            case "resources/subscribe":
                session.subscriptions.add(str(call.params.get("uri")))
                return {}
            case "resources/unsubscribe":
                session.subscriptions.discard(str(call.params.get("uri")))
                return {}
        return await self._common(method, call)

    async def _stateless(self, method: str, params: Params, send: Send) -> dict[str, Any]:
        meta = params.get("_meta") or {}
        if not self.stateless:
            raise RpcError(-32601, f"Method not found: {method}")
        capabilities = meta.get(META + "clientCapabilities")
        if META + "protocolVersion" not in meta or not isinstance(capabilities, dict):
            raise RpcError(-32602, "_meta lacks the protocol version or the client's capabilities.", 400)
        if (version := meta[META + "protocolVersion"]) not in STATELESS:
            raise RpcError(
                -32022, "Unsupported protocol version", 400, supported=self.supported, requested=version
            )
        level = meta.get(META + "logLevel")
        rank = LEVELS.index(level) if level in LEVELS else None
        if method == "server/discover":
            result: dict[str, Any] = {
                "supportedVersions": self.supported,
                "capabilities": self._capabilities(True),
                "instructions": INSTRUCTIONS,
                "_meta": {META + "serverInfo": INFO},
                "ttlMs": 1000,
                "cacheScope": "private",
            }
        else:
            result = await self._common(method, Call(params, send, None, capabilities, rank))
        if method in LISTS or method == "resources/read":
            result |= {"ttlMs": 1000, "cacheScope": "public"}
        return {"resultType": "complete", **result}

    async def _common(self, method: str, call: Call) -> dict[str, Any]:
        match method:
            case "tools/list":
                change = [
                    {"name": name, "description": told, "inputSchema": tools.NONE}
                    for name, told in CHANGES.items()
                ]
                return {"tools": [*tools.DEFINITIONS.values(), *change, *self._extra_tools.values()]}
            case "prompts/list":
                return {"prompts": [*content.PROMPTS, *self._extra_prompts]}
            case "resources/list":
                return {"resources": content.RESOURCES}
            case "resources/templates/list":
                return {"resourceTemplates": content.TEMPLATES}
            case "tools/call":
                return await self._call_tool(call)
            case "prompts/get":
                return await content.prompt(call)
            case "resources/read":
                return self.content.read(call.params.get("uri"), call.stateless)
            case "completion/complete":
                return content.complete(call)
        raise RpcError(-32601, f"Method not found: {method}", 404)

    async def _call_tool(self, call: Call) -> dict[str, Any]:
        name, arguments = str(call.params.get("name")), call.params.get("arguments") or {}
        if name in CHANGES:
            result: Any = self._change(name)
        elif name in self._extra_tools:
            result = "dynamic"
        elif (handler := tools.HANDLERS.get(name)) is None:
            raise RpcError(-32602, f"Unknown tool: {name}")
        else:
            lacking = [
                key
                for key in tools.DEFINITIONS[name]["inputSchema"].get("required", ())
                if key not in arguments
            ]
            if lacking:
                return {"content": [tools.text(f"missing: {', '.join(lacking)}")], "isError": True}
            try:
                result = await handler(call, arguments)
            except (ValueError, TimeoutError) as error:
                return {"content": [tools.text(str(error))], "isError": True}
        if isinstance(result, str):
            return {"content": [tools.text(result)]}
        return dict(result) if isinstance(result, dict) else {"content": result}
