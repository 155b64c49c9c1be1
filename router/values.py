"""Values on their way from one step's result into another's arguments.

A result stays the bytes of its MCP ``CallToolResult``; only the part that a reference names is taken out
of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from router.errors import BadPath, RouterError
from router.outputs import type_of
from router.plan import Ref, Step, follow
from router.runs import StepState, Stored
from router.trust import Flow

INLINE: Final = 16 * 1024
"""Bytes of a result that stands with its step; a larger one is kept apart, by its handle."""
MAX_RESULT: Final = 64 * 1024 * 1024
"""Bytes one result may have: what one message of a server may have."""
_IN_THREAD: Final = 128 * 1024

Load = Callable[[Stored], Awaitable[bytes]]
"""Fetches a result that is kept apart."""


class NoResult(RouterError):
    """A step counts as done and has no result that a reference could name."""

    kind = "no_result"


def value_of(body: bytes) -> Any:
    """What a tool's result is to the steps after it.

    ``structuredContent`` where there is some (2025-06-18, Tools: Structured Content); otherwise the
    text, read as JSON where it is an object or a list; otherwise the content blocks themselves.

    :raises msgspec.MsgspecError: the body is no JSON object.
    """
    result = msgspec.json.decode(body, type=dict[str, Any])
    if result.get("structuredContent") is not None:
        return result["structuredContent"]
    blocks = result.get("content")
    if not isinstance(blocks, list):
        return None
    texts = [b.get("text") for b in blocks if isinstance(b, dict) and b.get("type") == "text"]
    if len(texts) != len(blocks) or not texts:
        return blocks
    values = [_text_value(text) for text in texts]
    return values[0] if len(values) == 1 else values


def _text_value(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    if text.lstrip()[:1] in ("{", "["):
        try:
            return msgspec.json.decode(text)
        except msgspec.MsgspecError:
            return text
    return text


def said_of(body: bytes, limit: int) -> str:
    """The text of a result, cut to a length: what a person is shown of a tool's error."""
    try:
        result = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        return ""
    blocks = result.get("content")
    texts = [
        b["text"]
        for b in (blocks if isinstance(blocks, list) else [])
        if isinstance(b, dict) and isinstance(b.get("text"), str)
    ]
    return "\n".join(texts)[:limit]


def part(ref: Ref, value: Any) -> Any:
    """The part of a result that a reference names.

    Servers wrap what is no object as ``{"result": …}``, because structured content has to be one; a
    reference may be written with or without that key.

    :raises BadPath: there is no such part.
    """
    wrapped = isinstance(value, Mapping) and len(value) == 1 and "result" in value
    if wrapped and not ref.path:
        return value["result"]
    if wrapped and ref.segments[0] != "result":
        return follow(ref, value["result"])
    return follow(ref, value)


async def resolve(
    step: Step,
    schema: Mapping[str, Any],
    states: Mapping[str, StepState],
    load: Load,
) -> tuple[dict[str, Any], list[Flow]]:
    """A step's arguments with every reference replaced by its value, and where those come from.

    :param schema: the tool's input schema; a value that only has the wrong spelling for it is respelt.
    :raises BadPath: a result has no such part.
    :raises NoResult: a step has no result.
    """
    wanted = {(ref.step, ref.path): ref for ref in step.refs()}
    picked: dict[tuple[str, str], Any] = {}
    for source in dict.fromkeys(ref.step for ref in wanted.values()):
        stored = states[source].result
        if stored is None:
            raise NoResult(f"Step {source} has no result.", "Plan without it.")
        body = stored.body if stored.body is not None else await load(stored)
        refs = [ref for ref in wanted.values() if ref.step == source]
        if len(body) > _IN_THREAD:
            picked |= await asyncio.to_thread(_parts, refs, body)
        else:
            picked |= _parts(refs, body)
    flows: list[Flow] = []

    def put(value: Any, at: str) -> Any:
        if isinstance(value, Ref):
            state = states[value.step]
            assert state.label is not None
            flows.append(Flow(value.step, state.tool, value.path, at, state.label))
            return picked[(value.step, value.path)]
        if isinstance(value, Mapping):
            return {key: put(inner, f"{at}/{_escaped(key)}") for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [put(inner, f"{at}/{index}") for index, inner in enumerate(value)]
        return value

    arguments = put(step.arguments, "")
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        for name, value in step.arguments.items():
            if isinstance(value, Ref) and isinstance(properties.get(name), Mapping):
                arguments[name] = respelt(arguments[name], properties[name])
    return arguments, flows


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _parts(refs: list[Ref], body: bytes) -> dict[tuple[str, str], Any]:
    try:
        value = value_of(body)
    except (msgspec.MsgspecError, RecursionError):
        raise BadPath("The result is no JSON object.", step=refs[0].step, path=refs[0].path) from None
    return {(ref.step, ref.path): part(ref, value) for ref in refs}


def respelt(value: Any, schema: Mapping[str, Any]) -> Any:
    """The same scalar in the type a schema asks for, where nothing is lost by it.

    Most tools answer in text, so a number that goes into a number comes as ``"42"``; and an id that is
    a number goes into a string as ``"42"``.
    """
    wanted = schema.get("type")
    if not isinstance(wanted, str) or type_of(value) == wanted:
        return value
    if wanted == "string" and isinstance(value, int | float) and not isinstance(value, bool):
        return msgspec.json.encode(value).decode()
    if wanted in ("integer", "number", "boolean") and isinstance(value, str) and len(value) <= 40:
        try:
            read = msgspec.json.decode(value)
        except msgspec.MsgspecError:
            return value
        fits = type_of(read) == wanted or (wanted == "number" and type_of(read) == "integer")
        return read if fits else value
    return value
