"""What is kept of a call's arguments: their shape, and no value.

Which values are secrets cannot be told from outside, so none is written down; names and kinds are
enough to see what a call was.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

MAX_DEPTH: Final = 3
MAX_KEYS: Final = 40
MAX_NAME: Final = 60


def shape_of(arguments: bytes) -> str:
    """The shape of a JSON value, as JSON: ``{"path": "string(12)", "deep": {"n": "number"}}``.

    What is no JSON has the shape of its size.
    """
    try:
        return msgspec.json.encode(_shape(msgspec.json.decode(arguments), 0)).decode()
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return json.dumps(f"{len(arguments)} bytes")


def _shape(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return f"string({len(value)})"
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, list):
        return f"array({len(value)})"
    if depth == MAX_DEPTH:
        return f"object({len(value)})"
    shown = {key[:MAX_NAME]: _shape(member, depth + 1) for key, member in list(value.items())[:MAX_KEYS]}
    return shown if len(value) <= MAX_KEYS else {**shown, "…": f"{len(value) - MAX_KEYS} more"}
