"""What ``plan``, ``run`` and ``run_status`` are: their names, schemas and arguments."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from gateway import jsonrpc

PLAN: Final = "plan"
RUN: Final = "run"
STATUS: Final = "run_status"
MAX_REQUEST: Final = 4000
MAX_WAIT: Final = 600.0
WAIT: Final = 30.0
"""Seconds ``run`` waits for the end where the caller names no number."""

_STEP: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "tool": {"type": "string", "description": "A name that find_tools gave."},
        "arguments": {
            "type": "object",
            "description": 'As its inputSchema wants them; {"$ref": "ID", "path": "key.0.key"} takes a value from '
            "the result of an earlier step.",
        },
        "depends_on": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["id", "tool"],
    "additionalProperties": False,
}
_REQUEST: Final = "What the user asked for, in their words, every value included."
_WAIT: Final = {"type": "number", "minimum": 0, "maximum": MAX_WAIT, "default": WAIT}


class PlanRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The arguments of ``plan``."""

    request: Annotated[str, Meta(min_length=1, max_length=MAX_REQUEST)]


class RunRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The arguments of ``run``."""

    plan: Annotated[list[dict[str, Any]], Meta(max_length=256)] | None = None
    request: Annotated[str, Meta(max_length=MAX_REQUEST)] = ""
    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT)] = WAIT


class StatusRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The arguments of ``run_status``."""

    id: Annotated[str, Meta(max_length=64)]
    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT)] = 0.0


def definitions() -> dict[str, bytes]:
    """The definitions of the tools, by name."""
    plan = {
        "name": PLAN,
        "title": "Plan a request",
        "description": "Which tools serve a request, with which arguments, in what order: a plan, without calling "
        f"anything. It may be changed, and is run with {RUN}. What the request leaves open stands in it as a question.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "request": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MAX_REQUEST,
                    "description": _REQUEST,
                }
            },
            "required": ["request"],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": True, "openWorldHint": False},
    }
    run = {
        "name": RUN,
        "title": "Run a plan",
        "description": "Do what a request says, or run several tools as one plan: steps that do not need each other's results run at the same "
        "time, and values flow from step to step without passing through you. The whole plan is checked first. A "
        "step that may change something, or that would send on what another tool returned, is put to the user. "
        f"Answers when all is done, or earlier with an id for {STATUS}.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "plan": {
                    "type": "array",
                    "items": _STEP,
                    "maxItems": 256,
                    "description": f"As {PLAN} gave it. Without one, the request is planned first.",
                },
                "request": {"type": "string", "maxLength": MAX_REQUEST, "description": _REQUEST},
                "wait": _WAIT,
            },
            "anyOf": [{"required": ["plan"]}, {"required": ["request"]}],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": False, "destructiveHint": True, "openWorldHint": True},
    }
    status = {
        "name": STATUS,
        "title": "Look at a run",
        "description": f"How a run begun with {RUN} stands: its steps, their results, and what waits for the user.",
        "inputSchema": {
            "type": "object",
            "properties": {"id": {"type": "string"}, "wait": {**_WAIT, "default": 0}},
            "required": ["id"],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": True, "openWorldHint": False},
    }
    return {PLAN: jsonrpc.encode(plan), RUN: jsonrpc.encode(run), STATUS: jsonrpc.encode(status)}
