"""Content blocks and schemas that an older revision has no name for, said in its own words.

A client that does not know a *field* ignores it; one that does not know a *kind* of block, or finds
an array where it expects an object, refuses the whole message. Only the latter is rewritten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from gateway import jsonrpc
from gateway.jsonrpc import Raw, Shallow

Block: TypeAlias = Shallow
_blocks = msgspec.json.Decoder(list[msgspec.Raw])
_TRUE: Final = b"true"
_FALSE: Final = b"false"
AUDIO_URI: Final = "data:,audio"
"""The ``uri`` of audio that had to become an embedded resource; the block had none."""


class Unsayable(ValueError):
    """The older revision has no way to say this. The message says what."""


def blocks(item: Raw | None) -> list[Raw] | None:
    """The blocks of a content array, or None where it is none."""
    if item is None or bytes(item)[:1] != b"[":
        return None
    return _blocks.decode(item)


def each_block(
    fields: Shallow, key: str, kind: str, change: Callable[[Block], Block], *, inside: str | None = None
) -> Shallow:
    """The fields with the blocks of one kind changed in the array at ``key``.

    :param kind: the block's ``type``.
    :param inside: the member of each item that is the block, as ``content`` is of a prompt's messages;
        where that is an array itself, each of its blocks.
    """
    found = blocks(fields.get(key))
    if found is None:
        return fields

    def changed(part: Raw) -> Raw:
        block = jsonrpc.object_of(part)
        if block is None or inside is None:
            return of_kind(part, block)
        if inside not in block:
            return part
        inner = blocks(block[inside])
        if inner is not None:
            return jsonrpc.raw({**block, inside: [of_kind(item, jsonrpc.object_of(item)) for item in inner]})
        return jsonrpc.raw({**block, inside: of_kind(block[inside], jsonrpc.object_of(block[inside]))})

    def of_kind(part: Raw, block: Block | None) -> Raw:
        if block is None or jsonrpc.text(block.get("type")) != kind:
            return part
        return jsonrpc.raw(change(block))

    return {**fields, key: jsonrpc.raw([changed(part) for part in found])}


def audio_as_resource(block: Block) -> Block:
    """Audio as an embedded binary resource: 2024-11-05 knows text, images and resources only."""
    contents = {"uri": jsonrpc.raw(AUDIO_URI), "blob": block.get("data", jsonrpc.raw(""))}
    if "mimeType" in block:
        contents["mimeType"] = block["mimeType"]
    rest = {key: value for key, value in block.items() if key not in ("type", "data", "mimeType")}
    return {**rest, "type": jsonrpc.raw("resource"), "resource": jsonrpc.raw(contents)}


def link_as_text(block: Block) -> Block:
    """A resource link as text that names it: links came with 2025-06-18."""
    title = jsonrpc.text(block.get("title")) or jsonrpc.text(block.get("name")) or ""
    uri = jsonrpc.text(block.get("uri")) or ""
    told = jsonrpc.text(block.get("description"))
    text = (f"{title}: {uri}" if title else uri) + (f"\n{told}" if told else "")
    # The other members stay: an old client ignores them, and nothing is lost to one that does not.
    return {**block, "type": jsonrpc.raw("text"), "text": jsonrpc.raw(text)}


def with_text(fields: Shallow, value: Raw) -> Shallow:
    """A tool result whose content says the value as JSON text, unless a text of it does already."""
    found = blocks(fields.get("content")) or []
    said = bytes(value)
    for part in found:
        block = jsonrpc.object_of(part) or {}
        if jsonrpc.text(block.get("type")) == "text" and _same(jsonrpc.text(block.get("text")), said):
            return fields
    text = {"type": "text", "text": said.decode()}
    return {**fields, "content": jsonrpc.raw([*found, text])}


def _same(text: str | None, value: bytes) -> bool:
    """Whether a text is the value's JSON, however it is spelled. Numbers must be spelled alike."""
    if text is None:
        return False
    if text.encode() == value:
        return True
    try:
        return bool(_exact.decode(text) == _exact.decode(value))
    except (ValueError, RecursionError):
        return False


_exact = msgspec.json.Decoder(float_hook=str)


def only_objects(schema: Raw) -> Raw:
    """An object schema whose properties are schema objects: until 2026-07-28 they may be no booleans."""
    fields = jsonrpc.object_of(schema)
    if fields is None or "properties" not in fields:
        return schema
    properties = jsonrpc.object_of(fields["properties"])
    if properties is None or not any(bytes(item) in (_TRUE, _FALSE) for item in properties.values()):
        return schema
    plain = {key: _as_object(item) for key, item in properties.items()}
    return jsonrpc.raw({**fields, "properties": plain})


def _as_object(item: Raw) -> Raw:
    """JSON Schema 2020-12, 4.3.2: ``true`` is ``{}`` and ``false`` is ``{"not": {}}``."""
    return {_TRUE: msgspec.Raw(b"{}"), _FALSE: msgspec.Raw(b'{"not":{}}')}.get(bytes(item), item)


def single_select(field: Raw) -> Raw:
    """A field of an elicitation form as 2025-06-18 has it: titled choices are ``enumNames`` there.

    Raises Unsayable for a choice of several, which that revision lacks.
    """
    fields = jsonrpc.object_of(field)
    if fields is None:
        return field
    if jsonrpc.text(fields.get("type")) == "array":
        raise Unsayable("a form field in which several values may be chosen")
    options = blocks(fields.get("oneOf"))
    if options is None:
        return field
    choices = [jsonrpc.object_of(option) or {} for option in options]
    if not all("const" in choice for choice in choices):
        raise Unsayable("a form field with a choice between schemas")
    rest = {key: value for key, value in fields.items() if key != "oneOf"}
    return jsonrpc.raw(
        {
            **rest,
            "enum": [choice["const"] for choice in choices],
            "enumNames": [choice.get("title", choice["const"]) for choice in choices],
        }
    )
