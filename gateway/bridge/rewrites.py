"""The rewrites that the table names: each takes the fields of a message's part and returns them changed."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from gateway import jsonrpc, protocol
from gateway.bridge import content
from gateway.bridge.features import capabilities_of
from gateway.errors import UpstreamProtocolError
from gateway.jsonrpc import Raw, Shallow

_PER_REQUEST: Final = (
    protocol.META_PROTOCOL_VERSION,
    protocol.META_CLIENT_INFO,
    protocol.META_CLIENT_CAPABILITIES,
    protocol.META_LOG_LEVEL,
)
_RETRY_ONLY: Final = ("inputResponses", "requestState")
MAY_ASK: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Requests that may be answered with ``input_required`` (2026-07-28, Supported Requests)."""
_NO_OBJECT: Final = msgspec.Raw(b"{}")
_RESERVED: Final = range(-32099, -32019)
"""Error codes that 2026-07-28 reserves for itself."""


@dataclass(frozen=True, slots=True)
class Leg:
    """Between whom a message passes.

    :param server: the server's name, for errors.
    :param method: of the request; for what a server asks, the server's method.
    :param said: the per-request ``_meta`` that says of the caller what its session says.
    :param features: what the caller can be asked for.
    :param server_info: how the server named itself when it was connected.
    """

    server: str
    method: str
    said: Callable[[], Shallow] | None = None
    features: tuple[str, ...] = ()
    server_info: Raw = field(default_factory=lambda: _NO_OBJECT)


def _meta(fields: Shallow) -> Shallow:
    return jsonrpc.object_of(fields.get("_meta")) or {}


def _with_meta(fields: Shallow, meta: Shallow) -> Shallow:
    """The fields with this ``_meta``; without any where it is empty."""
    if meta:
        return {**fields, "_meta": jsonrpc.raw(meta)}
    return {key: value for key, value in fields.items() if key != "_meta"}


def _without(fields: Shallow, *keys: str) -> Shallow:
    return {key: value for key, value in fields.items() if key not in keys}


def _meta_without(fields: Shallow, *keys: str) -> Shallow:
    meta = _meta(fields)
    return _with_meta(fields, _without(meta, *keys)) if any(key in meta for key in keys) else fields


# a caller's params


def drop_request_meta(params: Shallow, leg: Leg) -> Shallow:
    """Take out what only the stateless era says in each request."""
    return _meta_without(params, *_PER_REQUEST)


def add_request_meta(params: Shallow, leg: Leg) -> Shallow:
    """Say of the caller what its session says; its own ``_meta`` is not asked."""
    return _with_meta(params, {**_without(_meta(params), *_PER_REQUEST), **(leg.said() if leg.said else {})})


def drop_retry_fields(params: Shallow, leg: Leg) -> Shallow:
    """Take out what would pass for the retry of a call; ours are added later."""
    return _without(params, *_RETRY_ONLY)


# results


def add_result_type(result: Shallow, leg: Leg) -> Shallow:
    """Every result of the handshake era is complete."""
    return {**result, "resultType": jsonrpc.raw("complete")}


def drop_result_type(result: Shallow, leg: Leg) -> Shallow:
    """Raises UpstreamProtocolError for a result that says something else than "complete"."""
    kind = result.get("resultType")
    if kind is not None and jsonrpc.text(kind) != "complete":
        shown = bytes(kind)[:100].decode(errors="replace")
        raise UpstreamProtocolError(
            f"Server '{leg.server}' answered {leg.method} with a result of type {shown}, which is none of "
            f"the protocol's.",
            f"Use a client that speaks {protocol.LATEST_STATELESS} and the extension it belongs to.",
        )
    return _without(result, "resultType")


def add_cache_hints(result: Shallow, leg: Leg) -> Shallow:
    """Nothing is known of how long it holds, nor whether another caller would be told the same."""
    return {**result, "ttlMs": jsonrpc.raw(0), "cacheScope": jsonrpc.raw("private")}


def drop_cache_hints(result: Shallow, leg: Leg) -> Shallow:
    """Sessions have no caching hints."""
    return _without(result, "ttlMs", "cacheScope")


def add_server_info(result: Shallow, leg: Leg) -> Shallow:
    """Say which server answered, as far as it has said so itself."""
    if bytes(leg.server_info) == b"{}":
        return result
    return _with_meta(result, {**_meta(result), protocol.META_SERVER_INFO: leg.server_info})


def drop_server_info(result: Shallow, leg: Leg) -> Shallow:
    """Take out who answered."""
    return _meta_without(result, protocol.META_SERVER_INFO)


def structure_as_text(result: Shallow, leg: Leg) -> Shallow:
    """Say structured content that is no object as JSON text (SEP-2106, Backward Compatibility)."""
    value = result.get("structuredContent")
    if value is None or bytes(value)[:1] == b"{":
        return result
    return content.with_text(_without(result, "structuredContent"), value)


def structure_told(result: Shallow, leg: Leg) -> Shallow:
    """Say structured content as text where a client that does not know it would be left with nothing."""
    value = result.get("structuredContent")
    if value is None or content.blocks(result.get("content")):
        return result
    return content.with_text(result, value)


def links_in_content(result: Shallow, leg: Leg) -> Shallow:
    """Resource links among the content of a tool's result."""
    return content.each_block(result, "content", "resource_link", content.link_as_text)


def links_in_messages(result: Shallow, leg: Leg) -> Shallow:
    """Resource links among the messages of a prompt."""
    return content.each_block(result, "messages", "resource_link", content.link_as_text, inside="content")


def audio_in_content(result: Shallow, leg: Leg) -> Shallow:
    """Audio among the content of a tool's result."""
    return content.each_block(result, "content", "audio", content.audio_as_resource)


def audio_in_messages(result: Shallow, leg: Leg) -> Shallow:
    """Audio among the messages of a prompt."""
    return content.each_block(result, "messages", "audio", content.audio_as_resource, inside="content")


# errors


def _error(answer: Shallow) -> Shallow:
    return jsonrpc.object_of(answer.get("error")) or {}


def _recoded(answer: Shallow, old: int, new: int) -> Shallow:
    if jsonrpc.error_code(answer.get("error")) != old:
        return answer
    return {"error": jsonrpc.raw({**_error(answer), "code": new})}


def not_found_is_invalid(answer: Shallow, leg: Leg) -> Shallow:
    """-32002 must not be sent any more."""
    return _recoded(answer, protocol.RESOURCE_NOT_FOUND, protocol.INVALID_PARAMS)


def invalid_is_not_found(answer: Shallow, leg: Leg) -> Shallow:
    """We have checked that ``uri`` is a string: what is wrong with it can only be that it is unknown."""
    return _recoded(answer, protocol.INVALID_PARAMS, protocol.RESOURCE_NOT_FOUND)


def urls_required(answer: Shallow, leg: Leg) -> Shallow:
    """Ask for the URLs to be visited in the way of 2026-07-28; the retry is the call once more."""
    if jsonrpc.error_code(answer.get("error")) != protocol.URL_ELICITATION_REQUIRED:
        return answer
    wanted = elicitations(answer.get("error"))
    if not wanted or leg.method not in MAY_ASK:
        return _recoded(answer, protocol.URL_ELICITATION_REQUIRED, protocol.INTERNAL_ERROR)
    if "elicitation.url" not in leg.features:
        error = {
            "code": protocol.MISSING_CLIENT_CAPABILITY,
            "message": jsonrpc.text(_error(answer).get("message")) or "A URL has to be visited first.",
            "data": {"requiredCapabilities": capabilities_of(("elicitation.url",))},
        }
        return {"error": jsonrpc.raw(error)}
    requests = {
        f"elicitation-{number}": {
            "method": "elicitation/create",
            "params": drop_elicitation_id({**params, "mode": jsonrpc.raw("url")}, leg),
        }
        for number, params in enumerate(wanted, 1)
    }
    return {"result": jsonrpc.raw({"resultType": "input_required", "inputRequests": requests})}


def elicitations(error: Raw | None) -> list[Shallow]:
    """The URL elicitations that an error -32042 lists."""
    data = jsonrpc.object_of((jsonrpc.object_of(error) or {}).get("data")) or {}
    found = content.blocks(data.get("elicitations")) or []
    return [item for item in map(jsonrpc.object_of, found) if item is not None]


def unreserve(answer: Shallow, leg: Leg) -> Shallow:
    """A handshake-era server's own use of a code that only the specification may use by now."""
    code = jsonrpc.error_code(answer.get("error"))
    if code is None or code not in _RESERVED or code == protocol.URL_ELICITATION_REQUIRED:
        return answer
    error = _error(answer)
    data: dict[str, Any] = {"code": code, **({"data": error["data"]} if "data" in error else {})}
    return {"error": jsonrpc.raw({**error, "code": protocol.INTERNAL_ERROR, "data": data})}


# what a server asks of a client


def _is_url(params: Shallow) -> bool:
    return jsonrpc.text(params.get("mode")) == "url"


def add_elicitation_id(params: Shallow, leg: Leg) -> Shallow:
    """2025-11-25 requires one, unique to the server."""
    if not _is_url(params) or "elicitationId" in params:
        return params
    return {**params, "elicitationId": jsonrpc.raw(secrets.token_urlsafe(16))}


def drop_elicitation_id(params: Shallow, leg: Leg) -> Shallow:
    """Its use, to say that the visit is over, is gone: the client retries."""
    return _without(params, "elicitationId")


def drop_progress_token(params: Shallow, leg: Leg) -> Shallow:
    """An input request is no request on the wire that progress could be told of."""
    return _meta_without(params, "progressToken")


def plain_form(params: Shallow, leg: Leg) -> Shallow:
    """The fields of a form as 2025-06-18 has them. Raises Unsayable."""
    schema = jsonrpc.object_of(params.get("requestedSchema"))
    fields = jsonrpc.object_of(schema.get("properties")) if schema is not None else None
    if schema is None or fields is None:
        return params
    plain = {name: content.single_select(item) for name, item in fields.items()}
    if all(plain[name] is item for name, item in fields.items()):
        return params
    return {**params, "requestedSchema": jsonrpc.raw({**schema, "properties": plain})}


def split_messages(params: Shallow, leg: Leg) -> Shallow:
    """Sampling messages with one block each."""
    messages = content.blocks(params.get("messages"))
    if messages is None:
        return params
    split: list[object] = []
    for item in messages:
        message = jsonrpc.object_of(item)
        parts = content.blocks(message.get("content")) if message is not None else None
        if message is None or parts is None:
            split.append(item)
        else:
            split += ({**message, "content": part} for part in parts)
    return {**params, "messages": jsonrpc.raw(split)}


def refuse_audio(params: Shallow, leg: Leg) -> Shallow:
    """Raises Unsayable where a sampling message holds audio."""

    def refuse(block: Shallow) -> Shallow:
        raise content.Unsayable("audio in a message to sample from")

    content.each_block(params, "messages", "audio", refuse, inside="content")
    return params


def join_blocks(result: Shallow, leg: Leg) -> Shallow:
    """A sampled message whose content is an array, as the one block older servers expect.

    Raises Unsayable where it is more than text.
    """
    parts = content.blocks(result.get("content"))
    if parts is None:
        return result
    if len(parts) == 1:
        return {**result, "content": parts[0]}
    found = [jsonrpc.object_of(part) or {} for part in parts]
    texts = [jsonrpc.text(block.get("text")) for block in found if jsonrpc.text(block.get("type")) == "text"]
    if len(texts) != len(parts) or None in texts:
        raise content.Unsayable("a sampled message of several blocks")
    text = "".join(part for part in texts if part is not None)
    return {**result, "content": jsonrpc.raw({"type": "text", "text": text})}


# lists


def drop_output_schema(item: Shallow, leg: Leg) -> Shallow:
    """Without one nobody expects ``structuredContent``, which is told as text where it is no object."""
    schema = jsonrpc.object_of(item.get("outputSchema"))
    if "outputSchema" not in item or (schema is not None and jsonrpc.text(schema.get("type")) == "object"):
        return item
    return _without(item, "outputSchema")


def object_properties(item: Shallow, leg: Leg) -> Shallow:
    """Schemas of arguments and of output, as far as a client of before checks their shape."""
    changed = dict(item)
    for key in ("inputSchema", "outputSchema"):
        if key in item:
            changed[key] = content.only_objects(item[key])
    return changed if any(changed[key] is not item[key] for key in changed) else item
