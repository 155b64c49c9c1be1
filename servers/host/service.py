"""One converted service: what it lists, and what becomes of a call."""

from __future__ import annotations

import re
import threading
import time
from typing import Any, Final

import msgspec

from servers.host import listing, results
from servers.host.arguments import Checker, handle_in, uses_call
from servers.host.pool import Call, Pool, default_size
from servers.host.wire import (
    HANDSHAKE_VERSIONS,
    INVALID_PARAMS,
    META,
    METHOD_NOT_FOUND,
    STATELESS_VERSIONS,
    Refused,
    Wire,
    is_stateless,
)
from servers.manifest.calls import worker_record
from servers.manifest.records import Manifest
from servers.process import Place

_TICK: Final = 1.0
_GRACE: Final = 1.0


class Service:
    """Answers MCP messages for one manifest."""

    def __init__(self, manifest: Manifest, wire: Wire, pool: Pool, level: str) -> None:
        self._manifest = manifest
        self._wire = wire
        self._pool = pool
        self._level = level
        self._tools = manifest.by_name()
        self._by_path = {path: tool for tool in manifest.tools for path in (*tool.aliases, tool.qualname)}
        self._checker = Checker()
        self._stop = threading.Event()
        self._progress: dict[Any, Any] = {}
        self._lock = threading.Lock()

    def run(self) -> None:
        """Serve until the client closes its end; then end everything."""
        self._pool.warm()
        threads = [
            threading.Thread(target=self._checker.warm, name="validator", daemon=True),
            threading.Thread(target=self._tick, name="progress", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            for message in self._wire.messages():
                self._message(message)
        finally:
            self._stop.set()
            self._pool.close()

    def _message(self, message: dict[str, Any]) -> None:
        method, ident = message.get("method"), message.get("id")
        params = message.get("params") or {}
        if not isinstance(method, str):
            return  # an answer to something we never ask
        if ident is None:
            if method == "notifications/cancelled" and isinstance(params, dict):
                self._pool.cancel(params.get("requestId"))
            return
        try:
            if not isinstance(params, dict):
                raise Refused(INVALID_PARAMS, "params must be an object.")
            stateless = is_stateless(params)
            if method == "tools/call":
                self._call(ident, params, stateless)
                return
            self._wire.result(ident, self._simple(method, params, stateless))
        except Refused as problem:
            self._wire.error(ident, problem)

    def _simple(self, method: str, params: dict[str, Any], stateless: bool) -> dict[str, Any]:
        if method == "initialize":
            return self._initialize(params)
        if method == "server/discover":
            return {
                "supportedVersions": list(STATELESS_VERSIONS),
                "capabilities": listing.CAPABILITIES,
                "instructions": listing.instructions(self._manifest),
                "resultType": "complete",
                "ttlMs": 3_600_000,
                "cacheScope": "public",
                "_meta": {META + "serverInfo": listing.info(self._manifest)},
            }
        if method == "ping":
            return {"resultType": "complete"} if stateless else {}
        if method == "tools/list":
            if params.get("cursor") is not None:
                raise Refused(INVALID_PARAMS, "There is no such page: the list has only one.")
            listed = {"tools": listing.listed(self._manifest)}
            return (
                {**listed, "resultType": "complete", "ttlMs": 3_600_000, "cacheScope": "public"}
                if stateless
                else listed
            )
        raise Refused(METHOD_NOT_FOUND, f"Method not found: {method}")

    def _initialize(self, params: dict[str, Any]) -> dict[str, Any]:
        wanted = params.get("protocolVersion")
        return {
            "protocolVersion": wanted if wanted in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[0],
            "capabilities": listing.CAPABILITIES,
            "serverInfo": listing.info(self._manifest),
            "instructions": listing.instructions(self._manifest),
        }

    def _call(self, ident: Any, params: dict[str, Any], stateless: bool) -> None:
        name, arguments = params.get("name"), params.get("arguments") or {}
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise Refused(INVALID_PARAMS, "tools/call takes a name and an object of arguments.")
        if name == "find_tools" and name not in self._tools:
            self._answer(ident, self._find(arguments), stateless)
            return
        if name == "call_tool" and name not in self._tools:
            name, arguments = str(arguments.get("name")), arguments.get("arguments") or {}
        tool = self._tools.get(name) or self._by_path.get(name)
        if tool is None:
            raise Refused(INVALID_PARAMS, f"Unknown tool: {name[:100]}")
        problems = self._checker.problems(tool, arguments)
        if problems:
            self._answer(
                ident,
                results.failed(f"The arguments of '{tool.name}' do not fit: {'; '.join(problems)}."),
                stateless,
            )
            return
        meta = params.get("_meta") if isinstance(params.get("_meta"), dict) else {}
        assert isinstance(meta, dict)
        slot = None
        handle = handle_in(arguments)
        if handle is not None:
            slot = self._pool.slot_of(handle)
            if slot is None:
                text = f"'{handle[:60]}' is gone with the worker that held it; make the object again."
                self._answer(ident, results.failed(text), stateless)
                return
        limits = tool.limits or self._manifest.limits
        request: dict[str, Any] = {
            "tool": worker_record(tool),
            "arguments": arguments,
            "seconds": limits.seconds,
            "caller": str(meta.get("toolyard/caller", "")),
        }
        if uses_call(arguments):
            request["tools"] = self._callables(arguments)
        if "progressToken" in meta:
            with self._lock:
                self._progress[ident] = meta["progressToken"]

        def done(answer: dict[str, Any]) -> None:
            with self._lock:
                self._progress.pop(ident, None)
            self._answer(ident, results.of_answer(tool, answer, self._level), stateless)

        # a command is stopped by the worker itself, which then tells what it printed so far
        grace = _GRACE if tool.kind == "cli" else 0.0
        self._pool.submit(Call(ident, request, limits.seconds + grace, limits.memory_mb, done, slot))

    def _callables(self, value: Any) -> dict[str, Any]:
        """The tools that ``$call`` names anywhere in some arguments, for the worker."""
        found: dict[str, Any] = {}
        if isinstance(value, dict):
            inner = value.get("$call")
            if isinstance(inner, dict):
                name = str(inner.get("tool") or inner.get("callable") or "")
                tool = self._tools.get(name) or self._by_path.get(name)
                if tool is not None:
                    found[name] = worker_record(tool)
            for each in value.values():
                found |= self._callables(each)
        elif isinstance(value, list):
            for each in value:
                found |= self._callables(each)
        return found

    def _answer(self, ident: Any, result: dict[str, Any], stateless: bool) -> None:
        self._wire.result(ident, {**result, "resultType": "complete"} if stateless else result)

    def _find(self, arguments: dict[str, Any]) -> dict[str, Any]:
        query, limit = arguments.get("query"), arguments.get("limit", listing.FOUND)
        if not isinstance(query, str) or not isinstance(limit, int):
            return results.failed("find_tools takes a query and, if wanted, a limit.")
        words = set(_words(query))
        ranked = []
        for tool in self._manifest.tools:
            name, text = set(_words(tool.name)), set(_words(tool.description))
            points = 3 * len(words & name) + len(words & text) + (5 if query.strip() == tool.name else 0)
            if points:
                ranked.append((points, tool.score, tool))
        ranked.sort(key=lambda each: (-each[0], -each[1], each[2].name))
        found = [listing.definition(tool) for _, _, tool in ranked[: max(1, min(50, limit))]]
        return {
            "content": [{"type": "text", "text": results.text_of(found)}],
            "structuredContent": {"result": found},
            "isError": False,
        }

    def _tick(self) -> None:
        """Tell callers that asked for it that their call is still running."""
        while not self._stop.wait(_TICK):
            now = time.monotonic()
            for call in self._pool.running():
                with self._lock:
                    token = self._progress.get(call.ident)
                if token is not None:
                    seconds = now - call.started
                    self._wire.notify(
                        "notifications/progress",
                        {
                            "progressToken": token,
                            "progress": round(seconds, 1),
                            "message": f"running for {seconds:.0f} s",
                        },
                    )


def _words(text: str) -> list[str]:
    return [
        word.lower()
        for word in re.findall(r"[A-Za-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))
        if len(word) > 1
    ]


def serve(manifest: Manifest, level: str, *, workers: int | None = None, wire: Wire | None = None) -> None:
    """Serve a manifest on stdin and stdout until they end.

    :param level: the sandbox level of the workers; it has been checked that there is one.
    """

    each = [tool.limits.memory_mb for tool in manifest.tools if tool.limits is not None]
    most = msgspec.structs.replace(manifest.limits, memory_mb=max([manifest.limits.memory_mb, *each]))

    def place() -> Place:
        from servers.convert import environment

        path = environment.find(manifest.environment) or environment.rebuild(manifest.environment, level)
        return Place(path, level, manifest.permissions, most)

    pool = Pool(place, manifest.preload, workers or default_size())
    Service(manifest, wire or Wire(), pool, level).run()
