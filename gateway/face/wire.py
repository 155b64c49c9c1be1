"""Lines of JSON-RPC as the face sees them: just enough is read to know what each one is."""

from __future__ import annotations

import json
import os
import select
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from gateway import protocol
from gateway.errors import GatewayError, RpcError

Ident: TypeAlias = int | str

MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes a line of the client's may have."""
OWN_ID: Final = "toolyard-face-"
"""How the ids of the face's own requests begin. Their answers are not for the client."""

_HEAD: Final = b'{"jsonrpc":"2.0","id":'
_OWN_HEAD: Final = _HEAD + b'"' + OWN_ID.encode()
_NOTICE_HEAD: Final = b'{"jsonrpc":"2.0","method":'
_SPACE: Final = " \t\r\n"
_INT_DIGITS: Final = 4000  # past 4,300 digits int() refuses; the message itself travels as it came


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= _INT_DIGITS else float("inf")


_decoder = json.JSONDecoder(parse_int=_integer)
_skipper = json.JSONDecoder(parse_int=str, parse_float=str)


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """One line of the client's: its bytes, and what the face must know of it.

    :param ids: ids of the requests in it; several in a batch, none in a notification or response.
    :param answers: the id that a response answers.
    """

    line: bytes
    method: str | None = None
    params: dict[str, Any] | None = None
    ids: tuple[Ident, ...] = ()
    answers: Ident | None = None
    is_response: bool = False


def parse(line: bytes) -> Message:
    """Read one line of the client's. Raises RpcError (-32700, -32600) for what is no message."""
    try:
        body = _decoder.decode(line.decode())
    except UnicodeDecodeError as error:
        raise RpcError(
            protocol.PARSE_ERROR,
            f"The message is not UTF-8 (byte {error.start}).",
            "Send JSON encoded as UTF-8.",
        ) from None
    except (ValueError, RecursionError) as error:
        raise RpcError(protocol.PARSE_ERROR, f"The message is not JSON: {error}.") from None
    if isinstance(body, dict):
        return _object(line, body)
    if isinstance(body, list):
        # Batches are 2025-03-26's; whether this session may send one is the gateway's to judge.
        parts = [_object(line, item) for item in body if isinstance(item, dict)]
        return Message(line, ids=tuple(ident for part in parts for ident in part.ids))
    raise RpcError(
        protocol.INVALID_REQUEST,
        "The message is not a JSON object.",
        "Send a JSON-RPC 2.0 request object.",
    )


def _object(line: bytes, body: dict[str, Any]) -> Message:
    method, ident, params = body.get("method"), body.get("id"), body.get("params")
    known = ident if isinstance(ident, int | str) and not isinstance(ident, bool) else None
    if method is None and ("result" in body or "error" in body):
        return Message(line, answers=known, is_response=True)
    if not isinstance(method, str):
        return Message(line)  # the gateway will refuse it, under no id
    return Message(
        line,
        method=method,
        params=params if isinstance(params, dict) else None,
        ids=() if known is None else (known,),
    )


def slices(text: str) -> dict[str, str]:
    """The members of a JSON object, each value as the very text it is written in.

    Raises ValueError for text that is no JSON object.
    """
    found: dict[str, str] = {}
    try:
        at = _expect(text, 0, "{")
        if text[at] == "}":
            return found
        while True:
            key, at = _skipper.raw_decode(text, at)
            start = _expect(text, at, ":")
            _, at = _skipper.raw_decode(text, start)
            # Outside of strings a line break is but space; inside, JSON has none.
            found[str(key)] = text[start:at].replace("\n", " ").replace("\r", " ")
            at = _skip(text, at)
            if text[at] == "}":
                return found
            at = _expect(text, at, ",")
    except (IndexError, RecursionError):
        raise ValueError("not a whole JSON object") from None


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at


def _expect(text: str, at: int, char: str) -> int:
    at = _skip(text, at)
    if text[at] != char:
        raise ValueError(f"expected {char!r} at character {at}")
    return _skip(text, at + 1)


@dataclass(frozen=True, slots=True)
class FromGateway:
    """What a line of the gateway's is: which requests it answers, or which id it asks under."""

    own: bool = False
    answers: tuple[Ident, ...] = ()
    asks: Ident | None = None


_NOTICE: Final = FromGateway()
_OWN: Final = FromGateway(own=True)


def classify(line: bytes) -> FromGateway:
    """Say what a line of the gateway's is, mostly by how it begins: it spells its heads one way."""
    if line.startswith(_NOTICE_HEAD):
        return _NOTICE
    if line.startswith(_OWN_HEAD):
        return _OWN
    if line.startswith(_HEAD):
        start = len(_HEAD)
        end = _string_end(line, start) if line[start : start + 1] == b'"' else line.find(b",", start)
        if end > start:
            return _by_id(json.loads(line[start:end]), line.startswith(b',"method"', end))
    try:
        body = _decoder.decode(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return _NOTICE
    if isinstance(body, list):
        ids = (item.get("id") for item in body if isinstance(item, dict) and "method" not in item)
        return FromGateway(answers=tuple(i for i in ids if isinstance(i, int | str)))
    return _by_id(body.get("id"), "method" in body) if isinstance(body, dict) else _NOTICE


def _by_id(ident: Any, asks: bool) -> FromGateway:
    if not isinstance(ident, int | str):
        return _NOTICE
    return FromGateway(asks=ident) if asks else FromGateway(answers=(ident,))


def _string_end(line: bytes, start: int) -> int:
    at = start + 1
    while (quote := line.find(b'"', at)) >= 0:
        slashes = quote
        while line[slashes - 1] == 0x5C:
            slashes -= 1
        if (quote - slashes) % 2 == 0:
            return quote + 1
        at = quote + 1
    return -1


def result(ident: Ident, payload: str) -> bytes:
    """A line that answers a request; ``payload`` is JSON without line breaks."""
    return f'{{"jsonrpc":"2.0","id":{json.dumps(ident)},"result":{payload}}}\n'.encode()


def error(ident: Ident | None, problem: GatewayError) -> bytes:
    """A line that refuses a request; what had no readable id gets none."""
    body = json.dumps(problem.to_error())
    named = "" if ident is None else f'"id":{json.dumps(ident)},'
    return f'{{"jsonrpc":"2.0",{named}"error":{body}}}\n'.encode()


def request(number: int, method: str, params: str | None) -> bytes:
    """A line that asks the gateway something on the face's own account; ``params`` is JSON."""
    tail = "" if params is None else f',"params":{params}'
    return f'{{"jsonrpc":"2.0","id":"{OWN_ID}{number}","method":{json.dumps(method)}{tail}}}\n'.encode()


def notification(method: str, params: str | None = None) -> bytes:
    """A line that tells something; ``params`` is JSON."""
    tail = "" if params is None else f',"params":{params}'
    return f'{{"jsonrpc":"2.0","method":{json.dumps(method)}{tail}}}\n'.encode()


def lines(read: Callable[[int], bytes], limit: int | None, *, tail: bool) -> Iterator[bytes | None]:
    """Cut what ``read(size)`` returns into lines, until it returns nothing. Empty ones are left out.

    A line longer than the limit is read past and yielded as None.

    :param tail: whether what follows the last line break is a line too, or one that was cut short.
    """
    pending = bytearray()
    skipping = False
    while chunk := read(256 * 1024):
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            pending += chunk[start:end]
            start = end + 1
            if skipping or (limit is not None and len(pending) > limit):
                yield None
            elif line := bytes(pending).strip():
                yield line
            pending.clear()
            skipping = False
        pending += chunk[start:]
        if limit is not None and len(pending) > limit:
            pending.clear()
            skipping = True
    if not tail:
        return
    if skipping:
        yield None
    elif line := bytes(pending).strip():
        yield line


class Output:
    """The way out to the client: whole lines, one at a time, as slowly as it reads them."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Write whole lines. Ends the process where nobody reads any more."""
        with self._lock:
            rest = memoryview(data)
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:  # a client may hand us a pipe set non-blocking
                    select.select([], [self._descriptor], [])
                except OSError:
                    os._exit(0)
