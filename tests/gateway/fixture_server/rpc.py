"""Messages, eras and errors of the fixture server, and what a running call can do."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

HANDSHAKE = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
STATELESS = ("2026-07-28",)
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
META = "io.modelcontextprotocol/"
ASK_TIMEOUT = 60.0
STATE_KEY = b"a fixture's key is no secret, but a state that was changed must still be found out"

Params = Mapping[str, Any]


class RpcError(Exception):
    """A request that is answered with an error."""

    def __init__(self, code: int, message: str, status: int = 200, **data: Any) -> None:
        super().__init__(message)
        self.error: dict[str, Any] = {"code": code, "message": message, **({"data": data} if data else {})}
        self.status = status


class InputRequired(Exception):
    """A stateless call that cannot go on before the client has answered these requests."""

    def __init__(self, requests: Mapping[str, Any], state: str | None) -> None:
        super().__init__("input required")
        self.result: dict[str, Any] = {"resultType": "input_required", "inputRequests": dict(requests)}
        if state is not None:
            self.result["requestState"] = seal(state)


def seal(state: str) -> str:
    """A ``requestState`` that shows when it was changed (2026-07-28, Multi Round-Trip Requests)."""
    tag = hmac.digest(STATE_KEY, state.encode(), hashlib.sha256).hex()[:24]
    return f"{base64.urlsafe_b64encode(state.encode()).decode()}.{tag}"


def unseal(sealed: Any) -> str:
    """The state inside. Raises RpcError."""
    try:
        state = base64.urlsafe_b64decode(str(sealed).partition(".")[0]).decode()
    except ValueError:
        state = ""
    if sealed != seal(state):
        raise RpcError(-32602, "requestState is not one this server gave.", 400)
    return state


def request(method: str, **params: Any) -> dict[str, Any]:
    """A request of the server's, without its id."""
    return {"method": method, "params": params}


def needs(requests: Mapping[str, Any]) -> dict[str, Any]:
    """The client capabilities that these requests need."""
    return {str(one["method"]).partition("/")[0]: {} for one in requests.values()}


class Asker:
    """Requests of the server's that wait for the client's answer; handshake era only."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._next = 0

    async def ask(self, send: Callable[[dict[str, Any]], None], method: str, params: Params | None) -> Any:
        """The result. Raises RpcError for the client's refusal, TimeoutError."""
        self._next += 1
        ident = f"fixture-{self._next}"
        future = self._waiting[ident] = asyncio.get_running_loop().create_future()
        try:
            fields = {} if params is None else {"params": params}
            send({"jsonrpc": "2.0", "id": ident, "method": method, **fields})
            async with asyncio.timeout(ASK_TIMEOUT):
                answer = await future
        except asyncio.CancelledError:
            withdrawn = {"requestId": ident, "reason": "the call was cancelled"}
            send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": withdrawn})
            raise
        finally:
            self._waiting.pop(ident, None)
        if "error" in answer:
            raise RpcError(answer["error"].get("code", 0), answer["error"].get("message", "refused"))
        return answer.get("result")

    def answered(self, message: Params) -> None:
        """Take a response of the client's."""
        future = self._waiting.get(str(message.get("id")))
        if future is not None and not future.done():
            future.set_result(message)


class Call:
    """One request being served, as the tools see it.

    :param send: sends a message to the client before the answer.
    :param asker: None in the stateless era, where input is asked for in the result.
    :param level: rank of the least severe log message the client wants; None for none.
    """

    def __init__(
        self,
        params: Params,
        send: Callable[[dict[str, Any]], None],
        asker: Asker | None,
        capabilities: Mapping[str, Any],
        level: int | None,
        break_stream: Callable[[], None] = lambda: None,
    ) -> None:
        self.params = params
        self.send = send
        self.capabilities = capabilities
        self.break_stream = break_stream
        """Closes the response's event stream in mid-call, where there is one (2025-11-25, SSE polling)."""
        self._asker = asker
        self._level = level
        self.meta: Mapping[str, Any] = params.get("_meta") or {}
        self.state = unseal(params["requestState"]) if "requestState" in params else None

    @property
    def stateless(self) -> bool:
        return self._asker is None

    def notify(self, method: str, **params: Any) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def log(self, data: Any, level: str = "info", logger: str = "fixture") -> None:
        if self._level is not None and LEVELS.index(level) >= self._level:
            self.notify("notifications/message", level=level, logger=logger, data=data)

    def progress(self, progress: float, total: float, message: str) -> None:
        token = self.meta.get("progressToken")
        if token is not None:
            self.notify(
                "notifications/progress", progressToken=token, progress=progress, total=total, message=message
            )

    async def ask(self, requests: Mapping[str, Any], state: str | None = None) -> dict[str, Any]:
        """The client's answers by key.

        In the handshake era the requests go out at once, in parallel; in the stateless era this raises
        InputRequired until the client has come back with all the answers.
        Raises RpcError where the client cannot be asked, or refuses.
        """
        missing = {name: {} for name in needs(requests) if name not in self.capabilities}
        if self._asker is not None:
            if missing:
                raise RpcError(-32603, f"The client does not offer {', '.join(missing)}.")
            asker = self._asker
            answers = await asyncio.gather(
                *(asker.ask(self.send, one["method"], one.get("params")) for one in requests.values())
            )
            return dict(zip(requests, answers, strict=True))
        given = self.params.get("inputResponses")
        if isinstance(given, Mapping) and all(isinstance(given.get(key), Mapping) for key in requests):
            return {key: given[key] for key in requests}
        if missing:
            raise RpcError(-32021, "Missing required client capability", 400, requiredCapabilities=missing)
        raise InputRequired(requests, state)


async def pause(seconds: float) -> None:
    """Work of a given length."""
    await asyncio.sleep(seconds)


def dumps(message: Any) -> str:
    """One message as one line."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
