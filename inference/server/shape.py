"""What shape an answer is held to: tools that may or must be called, response formats, grammars."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from inference.errors import BadRequestError
from inference.grammar.base import GrammarSpec
from inference.server.body import Body


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`mode`: none, auto, required. `tools`: those that may be called, as the client sent them."""

    mode: str
    tools: tuple[dict[str, Any], ...]


def tool_choice(body: Body) -> ToolChoice:
    """Which tools the answer may, must or must not call."""
    tools = body.get("tools", list, [])
    for i, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRequestError(f"tools[{i}] should be a function with a 'name'", param="tools")
    choice = body.raw.get("tool_choice")
    if choice is None:
        choice = "auto" if tools else "none"
    if isinstance(choice, dict):
        return _chosen_tools(Body(choice, "tool_choice."), tools)
    if choice not in ("none", "auto", "required"):
        raise BadRequestError(
            "'tool_choice' should be none, auto, required or a function", param="tool_choice"
        )
    if choice == "required" and not tools:
        raise BadRequestError("tool_choice 'required' needs 'tools'", param="tools")
    return ToolChoice(choice, tuple(tools))


def _chosen_tools(choice: Body, tools: list[Any]) -> ToolChoice:
    """{"type": "function", "function": {"name": ...}}, or {"type": "allowed_tools", "allowed_tools": {"mode":
    "auto" | "required", "tools": [{"type": "function", "function": {"name": ...}}, ...]}}."""
    if choice.raw.get("type") == "allowed_tools":
        allowed = Body(choice.get("allowed_tools", dict, {}), "tool_choice.allowed_tools.")
        mode, wanted = allowed.get("mode", str, "auto"), allowed.get("tools", list, [])
    else:
        mode, wanted = "required", [choice.raw]
    functions = [w.get("function") if isinstance(w, dict) else None for w in wanted]
    names = [f.get("name") if isinstance(f, dict) else None for f in functions]
    chosen = tuple(t for t in tools if t["function"]["name"] in names)
    known = [t["function"]["name"] for t in tools]
    if mode not in ("auto", "required") or not names or not all(name in known for name in names):
        raise BadRequestError(
            f"tool_choice names {', '.join(map(repr, names)) or 'no tool'}; 'tools' has {known}",
            param="tool_choice",
        )
    return ToolChoice(mode, chosen)


def grammar(body: Body, choice: ToolChoice) -> GrammarSpec | None:
    """What the text must match: the one thing, if any, that the body holds it to."""
    found = [g for g in (_response_format(body), _structured(body)) if g is not None]
    if choice.mode == "required":
        found.append(GrammarSpec("json_schema", json.dumps(call_schema(choice.tools))))
    if len(found) > 1:
        raise BadRequestError(
            "Only one of response_format, structured_outputs and a required tool can shape the output",
            param="response_format",
        )
    return found[0] if found else None


def call_schema(tools: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """A schema for one call of one of the tools: {"name": ..., "arguments": {...}}."""
    options = [
        {
            "type": "object",
            "properties": {
                "name": {"const": t["function"]["name"]},
                "arguments": t["function"].get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for t in tools
    ]
    return options[0] if len(options) == 1 else {"anyOf": options}


def _response_format(body: Body) -> GrammarSpec | None:
    form = body.get("response_format", dict, {})
    kind = form.get("type", "text")
    if kind == "text":
        return None
    if kind == "json_object":
        return GrammarSpec("json_object")
    if kind == "json_schema":
        named = form.get("json_schema")
        schema = named.get("schema") if isinstance(named, dict) else None
        if not isinstance(schema, dict):
            raise BadRequestError(
                "response_format.json_schema.schema should be an object", param="response_format"
            )
        return GrammarSpec("json_schema", json.dumps(schema))
    raise BadRequestError(
        f"response_format type {kind!r} is not one of text, json_object, json_schema", param="response_format"
    )


def _structured(body: Body) -> GrammarSpec | None:
    wanted = body.get("structured_outputs", dict, {})
    if not wanted:
        return None
    if len(wanted) != 1:
        raise BadRequestError("'structured_outputs' should have one of json, regex, choice, grammar")
    kind, value = next(iter(wanted.items()))
    if kind == "json" and isinstance(value, dict):
        return GrammarSpec("json_schema", json.dumps(value))
    if kind == "regex" and isinstance(value, str):
        return GrammarSpec("regex", value)
    if kind == "grammar" and isinstance(value, str):
        return GrammarSpec("ebnf", value)
    if (
        kind == "choice"
        and isinstance(value, list)
        and value
        and all(isinstance(v, str) and v for v in value)
    ):
        return GrammarSpec("choice", json.dumps(value))
    raise BadRequestError(f"structured_outputs.{kind} has no usable value", param="structured_outputs")
