"""JSON-RPC 2.0 framing on shallow dicts.

A message is decoded one level deep into ``dict[str, Raw]``: what the gateway does not need to
understand stays the bytes it arrived as, and leaves as those bytes. Nothing inside is lost, be it
an unknown field, a 40-digit integer or the spelling of a float, and a 1 MiB result costs a scan
instead of a parse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from gateway import protocol
from gateway.errors import RpcError

Raw: TypeAlias = msgspec.Raw
Shallow: TypeAlias = dict[str, msgspec.Raw]

MAX_DEPTH: Final = 128
"""Nesting that a message may have; deeper ones are refused before anything walks them."""
MAX_BATCH: Final = 100
"""Messages one batch may have."""

_shallow = msgspec.json.Decoder(dict[str, msgspec.Raw])
_batch = msgspec.json.Decoder(Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_BATCH)])
_value = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()
_STRINGS = re.compile(rb'"[^"]*+"')
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'"[]{}'))
_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_NULL: Final = b"null"

encode = _encoder.encode


def raw(value: object) -> Raw:
    """The value as JSON, ready to be spliced into a message."""
    return msgspec.Raw(_encoder.encode(value))


def shallow(data: bytes | Raw) -> Shallow:
    """Decode a JSON object one level deep. Raises msgspec.MsgspecError, RecursionError."""
    return _shallow.decode(data)


def value(data: bytes | Raw) -> Any:
    """Decode JSON fully. Raises msgspec.MsgspecError, RecursionError."""
    return _value.decode(data)


def is_null(item: Raw | None) -> bool:
    """True for an absent field and for JSON null."""
    return item is None or bytes(item) == _NULL


def too_deep(data: bytes, limit: int = MAX_DEPTH) -> bool:
    """Whether brackets in the JSON text nest deeper than the limit.

    Text with no more than ``limit`` opening brackets in all cannot, which settles nearly every
    message by two counts. Of other text only the brackets are kept, and ``[]`` is taken out again
    and again: each pass takes one level, at the speed of memory. Text that is not JSON gets an
    arbitrary answer.
    """
    if data.count(b"{") + data.count(b"[") <= limit:
        return False
    if b"\\" in data:
        # In JSON a backslash stands in strings alone, and a run of them pairs off from the left.
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    rest = data.translate(_BRACKETS, _NOT_STRUCTURE)
    if b'"' in rest:
        rest = _STRINGS.sub(b"", rest.replace(b'""', b""))
    for _ in range(limit):
        shorter = rest.replace(b"[]", b"")
        if len(shorter) == len(rest):
            return False
        rest = shorter
    return b"[]" in rest


def parse(data: bytes) -> Shallow | list[Shallow]:
    """Decode one message, or a batch, from the bytes a peer sent.

    Raises RpcError (-32700 for text that is not JSON in UTF-8 or nests too deep, -32600 for JSON
    that is no JSON-RPC message).
    """
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise RpcError(
            protocol.PARSE_ERROR,
            f"The message is not UTF-8 (byte {error.start}).",
            "Send JSON encoded as UTF-8.",
        ) from None
    if too_deep(data):
        raise RpcError(
            protocol.PARSE_ERROR, f"The message nests deeper than {MAX_DEPTH} levels.", "Send flatter JSON."
        )
    head = data[:64].lstrip()[:1]
    try:
        if head == b"[":
            items = _batch.decode(data)
            if not items:
                raise RpcError(protocol.INVALID_REQUEST, "The batch is empty.")
            return [_shallow.decode(item) for item in items]
        return _shallow.decode(data)
    except msgspec.ValidationError:
        raise RpcError(
            protocol.INVALID_REQUEST,
            "The message is neither a JSON object nor a batch of some.",
            f"Send a JSON-RPC 2.0 request object, or at most {MAX_BATCH} where batches are allowed.",
        ) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise RpcError(protocol.PARSE_ERROR, f"The message is not JSON: {error}.") from None


def text(item: Raw | None) -> str | None:
    """The string an item holds, or None when it is absent or something else."""
    if item is None:
        return None
    data = bytes(item)
    if len(data) < 2 or data[0] != 34:
        return None
    if b"\\" in data:
        decoded = _value.decode(data)
        return decoded if isinstance(decoded, str) else None
    return data[1:-1].decode()


def request(ident: int | str | Raw, method: str, params: bytes | Raw | None = None) -> bytes:
    """A request. ``params`` is JSON."""
    head = b'{"jsonrpc":"2.0","id":%b,"method":"%b"' % (
        bytes(ident) if isinstance(ident, msgspec.Raw) else _encoder.encode(ident),
        method.encode(),
    )
    return head + (b',"params":%b}' % bytes(params) if params is not None else b"}")


def notification(method: str, params: bytes | Raw | None = None) -> bytes:
    """A notification. ``params`` is JSON."""
    head = b'{"jsonrpc":"2.0","method":"%b"' % method.encode()
    return head + (b',"params":%b}' % bytes(params) if params is not None else b"}")


_BEFORE_ID: Final = len(b'{"jsonrpc":"2.0","id":')


def result(ident: bytes | Raw, payload: bytes | Raw) -> bytes:
    """A response carrying a result; both arguments are JSON. The id always stands second."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (bytes(ident), bytes(payload))


def error(ident: bytes | Raw | None, payload: bytes | Raw | Mapping[str, Any]) -> bytes:
    """A response carrying an error object. Where no id could be read it has none: never null (MCP, Messages)."""
    body = _encoder.encode(payload) if isinstance(payload, Mapping) else bytes(payload)
    if ident is None:
        return b'{"jsonrpc":"2.0","error":%b}' % body
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (bytes(ident), body)


def failure(answer: bytes, ident: bytes | Raw) -> int | None:
    """The code of a response that carries an error, made here for this id; None for a result."""
    if not answer.startswith(b',"error":', _BEFORE_ID + len(bytes(ident))):
        return None
    return error_code(shallow(answer)["error"])


def request_id(message: Shallow) -> Raw | None:
    """The id of a request, or None for a notification.

    Raises RpcError (-32600) where the id is neither a string nor an integer (MCP, Messages).
    """
    ident = message.get("id")
    if ident is None:
        return None
    data = bytes(ident)
    if data[0] == 34 or data.lstrip(b"-").isdigit():
        return ident
    raise RpcError(protocol.INVALID_REQUEST, "A request's id must be a string or an integer.")


def error_code(error: Raw | None) -> int | None:
    """The code of a JSON-RPC error object, or None where it has none."""
    try:
        code = value(shallow(error)["code"]) if error is not None else None
    except (msgspec.MsgspecError, KeyError):
        return None
    return code if isinstance(code, int) else None


def describe(error: Raw | None) -> str:
    """A JSON-RPC error object in a few words, for a message of our own."""
    try:
        fields = value(error) if error is not None else {}
        message = str(fields.get("message", ""))[:300] if isinstance(fields, dict) else ""
        code = fields.get("code") if isinstance(fields, dict) else None
    except msgspec.MsgspecError:
        return "an error that is not JSON-RPC"
    return f"{message.rstrip('.') or 'no message'} (code {code})"


def object_of(item: Raw | None) -> Shallow | None:
    """The fields of a JSON object, or None where a server sent something else."""
    return shallow(item) if item is not None and bytes(item)[:1] == b"{" else None


def number_of(item: Raw | None) -> int | None:
    """The id of ours that a server repeats, or None where it is none that we could have given."""
    data = bytes(item) if item is not None else b""
    return int(data) if data.isdigit() and len(data) < 19 else None
