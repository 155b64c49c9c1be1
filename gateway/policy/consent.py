"""Consent to calls: which of them a person is asked for, and the calls that wait for an answer.

A model chooses what ``call_tool`` runs, and what it read on the way may have chosen for it. So a tool
runs unasked only where it is known to read and no more: by annotations that a person approved with the
definition they belong to, or by the word of whoever wrote the toolset.
"""

from __future__ import annotations

import json
import secrets
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway import jsonrpc, protocol
from gateway.catalog import Entry
from gateway.errors import GatewayError, NotFound, RpcError
from registry.definition import definition_hash

LIFETIME: Final = 600.0
"""Seconds a call may wait for a person, and an approval for its call."""
MAX_WAITING: Final = 200
MAX_EACH: Final = 20
"""Calls that may wait in all, and of one caller."""
_HEAD, _TAIL = 1500, 500
"""Characters of arguments that are shown to a person, from their begin and from their end."""


class ConsentRequired(GatewayError):
    """A call that a person has to allow, from a client that cannot ask one."""

    kind = "consent_required"
    code = protocol.INVALID_REQUEST
    retriable = True


class Crowded(RpcError):
    """Too many calls wait for a person."""

    kind = "too_many_waiting"


def says_read_only(entry: Entry) -> bool:
    """Whether a tool's annotations say that it changes nothing. What they say counts once approved."""
    if b"readOnlyHint" not in entry.data:
        return False
    try:
        annotations = jsonrpc.object_of(jsonrpc.shallow(entry.data).get("annotations")) or {}
    except (msgspec.MsgspecError, RecursionError):
        return False
    return bytes(annotations.get("readOnlyHint", msgspec.Raw(b"false"))) == b"true"


class _Twice(Exception):
    """A key stands twice in one object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return found


def twice_named(arguments: bytes) -> str | None:
    """A key that stands twice in one object of these arguments, or None.

    Parsers differ in which of the two they take, so what a person allowed could be what does not happen.
    """
    try:
        json.loads(arguments, object_pairs_hook=_once, parse_int=str, parse_float=str)
    except _Twice as twice:
        return str(twice)
    except (ValueError, RecursionError):
        return None  # the check against the schema says what is wrong
    return None


def visible(text: str, limit: int = _HEAD + _TAIL) -> str:
    """Text for a person's eyes: nothing in it is invisible or steers, and its length is bounded."""
    if len(text) > limit:
        tail = min(_TAIL, limit // 4)
        left_out = len(text) - limit
        text = f"{text[: limit - tail]} […{left_out:,} characters left out…] {text[-tail:]}"
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char
        if not unicodedata.category(char).startswith(("C", "Z")) or char in " \n"
        else f"\\u{ord(char):04x}"
        for char in text
    )


def question(entry: Entry, arguments: bytes) -> str:
    """What a person is asked."""
    return (
        f"Let the tool {visible(entry.exposed, 100)} of server {visible(entry.server, 100)} run?\n"
        f"Arguments: {visible(arguments.decode(errors='replace'))}"
    )


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as consent is given to it: this caller, this definition, these arguments.

    :param caller: who calls: a session, or a principal.
    :param client: what that client calls itself. Worth no more than its word, so it is nobody's right
        to anything; but of two clients with one credential neither takes what a person allowed the other.
    """

    caller: str
    client: str
    toolset: str
    entry: Entry
    arguments: bytes

    @property
    def key(self) -> str:
        """Equal for equal calls, whatever the layout of their arguments."""
        parts = (
            self.caller,
            self.client,
            self.toolset,
            self.entry.server,
            self.entry.original,
            self.entry.hash,
        )
        return definition_hash(jsonrpc.encode([*parts, msgspec.Raw(self.arguments)]))


@dataclass(slots=True)
class Waiting:
    """A call that waits for ``toolyard approve-call``."""

    ident: str
    call: Call
    expires: float
    decided: bool | None = None


class Approvals:
    """Calls of clients that cannot ask a person, until one answers on the control socket.

    In memory: after a restart the client calls again, and gets another number.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._by_key: OrderedDict[str, Waiting] = OrderedDict()

    def __len__(self) -> int:
        """Calls that nobody has decided on."""
        self._drop_old()
        return sum(waiting.decided is None for waiting in self._by_key.values())

    def ask(self, call: Call) -> bool | None:
        """What was decided on a call: taken, once; None where it waits from now on.

        Raises Crowded where too many wait.
        """
        self._drop_old()
        key = call.key
        waiting = self._by_key.get(key)
        if waiting is None:
            mine = [k for k, other in self._by_key.items() if other.call.caller == call.caller]
            if len(mine) >= MAX_EACH:
                del self._by_key[mine[0]]
            elif len(self._by_key) >= MAX_WAITING:
                raise Crowded(
                    protocol.INTERNAL_ERROR,
                    f"{MAX_WAITING} calls wait for a person's approval.",
                    "Decide on them with `toolyard approve-call`, or try again later.",
                    type=Crowded.kind,
                    retriable=True,
                )
            self._by_key[key] = Waiting(secrets.token_hex(4), call, self._clock() + LIFETIME)
            return None
        if waiting.decided:
            del self._by_key[key]  # good for one call
        return waiting.decided

    def required(self, call: Call) -> ConsentRequired:
        """The error for a call that waits."""
        waiting = self._by_key[call.key]
        return ConsentRequired(
            f"The call of {call.entry.exposed} waits for a person's approval.",
            f"Ask the user to run `toolyard approve-call {waiting.ident}`, then make the same call again.",
            approval=waiting.ident,
            tool=call.entry.exposed,
            server=call.entry.server,
            expires_in=round(waiting.expires - self._clock()),
        )

    def decide(self, ident: str, allowed: bool) -> Waiting:
        """Allow a call, or deny it. Raises NotFound for a number that does not wait."""
        self._drop_old()
        for waiting in self._by_key.values():
            if waiting.ident == ident and waiting.decided is None:
                waiting.decided = allowed
                waiting.expires = self._clock() + LIFETIME
                return waiting
        raise NotFound(
            f"No call waits under the number '{ident[:40]}'.",
            "`toolyard approve-call` lists those that do; each waits ten minutes.",
        )

    def rows(self) -> list[dict[str, Any]]:
        """Every call that waits, oldest first, for a person."""
        self._drop_old()
        return [
            {
                "id": waiting.ident,
                "tool": waiting.call.entry.exposed,
                "server": waiting.call.entry.server,
                "toolset": waiting.call.toolset,
                "client": visible(waiting.call.client, 100),
                "arguments": visible(waiting.call.arguments.decode(errors="replace")),
                "expires_in": round(waiting.expires - self._clock()),
            }
            for waiting in self._by_key.values()
            if waiting.decided is None
        ]

    def _drop_old(self) -> None:
        now = self._clock()
        for key in [key for key, waiting in self._by_key.items() if waiting.expires <= now]:
            del self._by_key[key]
