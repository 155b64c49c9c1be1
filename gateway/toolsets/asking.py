"""Asking a person, through their client, whether a call may be made: live, or between two requests.

Handshake era: ``elicitation/create`` on the stream of the call (2025-11-25, Elicitation). Stateless era:
an ``input_required`` result, and the call again with the answer (2026-07-28, Multi Round-Trip Requests).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge.features import declared_in
from gateway.errors import RpcError, UpstreamError
from gateway.jsonrpc import Raw, Shallow
from gateway.policy.consent import LIFETIME, Call, question
from gateway.sealing import KeyRing, Purpose, Sealer
from gateway.upstream.call import CallSite

FEATURE: Final = "elicitation.form"
_KEY: Final = "consent"
_USED: Final = 10_000
"""Handles that are remembered as used; none is good for longer than an hour anyway."""
ONWARD_LIFETIME: Final = 3600.0
"""Seconds in which a client may answer what the tool's server asks, once the call itself was allowed."""
_ASKED, _ONWARD = "ask", "on"
RUN_LIFETIME: Final = 540.0
"""Seconds in which a question of a run is answered, or it is parked: less than a call is parked for."""
MODEL_TOKENS: Final = 4096
T = TypeVar("T")


class Answer(NamedTuple):
    """What came of asking: whether the person agrees, or why there is no answer."""

    allowed: bool
    said: str


class Returned(NamedTuple):
    """What a client's ``requestState`` stood for: an answer of the person, or a server's own state, maybe empty."""

    answer: Answer | None = None
    state: str = ""


class _Site(CallSite):
    """Ends the wait for a person when the call is given up."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[Shallow]) -> None:
        super().__init__()
        self.future = future

    def give_up(self, why: UpstreamError) -> None:
        if not self.future.done():
            self.future.set_exception(why)


_YES_OR_NO: Final[dict[str, Any]] = {"type": "object", "properties": {}}


def _elicitation(message: str, schema: dict[str, Any] = _YES_OR_NO) -> dict[str, Any]:
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


async def ask_live(caller: CallSite, call: Call) -> Answer | None:
    """Ask on the stream of the call. None where this client cannot be asked.

    Raises UpstreamError where the call is given up meanwhile.
    """
    return await _put(caller, _elicitation(question(call.entry, call.arguments)), _answered, LIFETIME)


async def ask_text(caller: CallSite, text: str) -> bool | None:
    """Ask a person something through their client: yes or no. None where nobody answered either.

    Giving the call up does not end the wait: whoever waits for the answer does.
    """

    def said(answer: Shallow | None) -> bool | None:
        action = _action(answer)
        return action == "accept" if action in ("accept", "decline") else None

    return await _put(caller, _elicitation(text), said, RUN_LIFETIME, call_waits=False)


async def ask_form(
    caller: CallSite, text: str, schema: dict[str, Any], *, call_waits: bool = True
) -> dict[str, Any] | None:
    """Have a person fill in a form: what they put in. None where this client cannot be asked, or they leave.

    Raises UpstreamError where the call is given up meanwhile and ``call_waits``.
    """

    def filled(answer: Shallow | None) -> dict[str, Any] | None:
        content = _result(answer).get("content") if _action(answer) == "accept" else None
        value = jsonrpc.value(content) if content is not None else None
        return value if isinstance(value, dict) else None

    return await _put(caller, _elicitation(text, schema), filled, RUN_LIFETIME, call_waits=call_waits)


async def ask_model(caller: CallSite, talk: Sequence[Mapping[str, str]], seconds: float) -> str | None:
    """Have the client's model answer a conversation (``sampling/createMessage``). None where it does not.

    Raises UpstreamError where the call is given up meanwhile.
    """
    system = "\n".join(turn["content"] for turn in talk if turn["role"] == "system")
    messages = [
        {"role": turn["role"], "content": {"type": "text", "text": turn["content"]}}
        for turn in talk
        if turn["role"] != "system"
    ]
    params = {"messages": messages, "systemPrompt": system, "maxTokens": MODEL_TOKENS, "temperature": 0}

    def written(answer: Shallow | None) -> str | None:
        content = _result(answer).get("content")
        value = jsonrpc.value(content) if content is not None else None
        parts = value if isinstance(value, list) else [value]
        texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(text for text in texts if isinstance(text, str)) or None

    return await _put(caller, {"method": "sampling/createMessage", "params": params}, written, seconds)


async def _put(
    caller: CallSite,
    wanted: dict[str, Any],
    read: Callable[[Shallow | None], T],
    seconds: float,
    *,
    call_waits: bool = True,
) -> T | None:
    """Put a request to a client, and wait: what ``read`` makes of its response. None where it cannot be asked.

    :param read: is given None where no response came in time.
    :param call_waits: whether giving the call up ends the wait, with UpstreamError.
    """
    future: asyncio.Future[Shallow] = asyncio.get_running_loop().create_future()

    def respond(answer: Shallow) -> None:
        if not future.done():
            future.set_result(answer)

    message = jsonrpc.shallow(jsonrpc.encode({"jsonrpc": "2.0", **wanted}))
    withdraw = caller.ask(message, respond)
    if withdraw is None:
        return None
    if call_waits:
        caller.forward_cancel(_Site(future))
    answer = None
    try:
        async with asyncio.timeout(seconds):
            answer = await future
    except TimeoutError:
        withdraw()
    except BaseException:
        withdraw()
        raise
    try:
        return read(answer)
    except (msgspec.MsgspecError, RecursionError):
        return read({})  # it is no response that MCP knows


def _result(answer: Shallow | None) -> Shallow:
    return jsonrpc.object_of((answer or {}).get("result")) or {}


def _action(answer: Shallow | None) -> str | None:
    return jsonrpc.text(_result(answer).get("action"))


def _answered(answer: Shallow | None) -> Answer:
    if answer is None:
        return Answer(False, f"nobody answered within {LIFETIME / 60:.0f} minutes")
    return _answer(answer.get("result"))


def _answer(result: Raw | None) -> Answer:
    try:
        fields = jsonrpc.object_of(result) or {}
    except (msgspec.MsgspecError, RecursionError):
        fields = {}
    action = jsonrpc.text(fields.get("action"))
    if action == "accept":
        return Answer(True, "")
    return Answer(False, "the user declined it" if action == "decline" else "the user was not asked or left")


class Rounds:
    """The handles of calls that go back to a stateless client for an answer.

    A handle is sealed to one call, arguments included: an answer to one question is worth nothing for
    another, and it is taken once, by the process that gave it. A server's own state passes inside ours,
    bound in the same way.
    """

    def __init__(self, ring: KeyRing, toolset: str) -> None:
        self._sealer = Sealer(Purpose.CONSENT, ring, endpoint=toolset)
        self._process = secrets.token_urlsafe(9)
        self._used: OrderedDict[str, None] = OrderedDict()

    def can_ask(self, params: Shallow) -> bool:
        """Whether the client of a stateless request declares that it can ask a person."""
        return FEATURE in declared_in(params)

    def ask(self, call: Call) -> bytes:
        """The result (JSON) that has the client ask."""
        return jsonrpc.encode(
            {
                "resultType": "input_required",
                "inputRequests": {_KEY: _elicitation(question(call.entry, call.arguments))},
                "requestState": self._seal(call, _ASKED),
            }
        )

    def wrap(self, call: Call, fields: Shallow) -> bytes:
        """A server's ``input_required`` result (JSON), its state inside a handle of ours."""
        state = jsonrpc.text(fields.get("requestState"))
        return jsonrpc.encode(
            {**fields, "requestState": self._seal(call, _ONWARD, state or "", ONWARD_LIFETIME)}
        )

    def _seal(self, call: Call, kind: str, state: str = "", lifetime: float = LIFETIME) -> str:
        payload = f"{kind}:{self._process}:{secrets.token_urlsafe(9)}:{state}"
        return self._sealer.seal(call.caller, call.key, payload, lifetime)

    def open(self, call: Call, params: Shallow) -> Returned:
        """What a retry brings. Raises RpcError for a handle that is not for this call, or was used."""
        payload = self._sealer.open(call.caller, call.key, jsonrpc.text(params["requestState"]) or "")
        kind, process, number, state = payload.split(":", 3) if payload is not None else ("", "", "", "")
        if payload is None or process != self._process or number in self._used:
            raise RpcError(
                protocol.INVALID_PARAMS,
                "requestState is not one this gateway gave for this call, was used, or has expired.",
                "Send the request again without it.",
            )
        self._used[number] = None
        if len(self._used) > _USED:
            self._used.popitem(last=False)
        if kind == _ONWARD:
            return Returned(state=state)
        responses = jsonrpc.object_of(params.get("inputResponses")) or {}
        return Returned(answer=_answer(responses.get(_KEY)))
