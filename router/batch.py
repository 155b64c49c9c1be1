"""Many requests, one a line: records in, plans out, for measuring planners.

A record is ``{"id", "request", "tools": […]}``; its tools are the candidates. What is written is
``{"id", "plan": […]}``. That form has no question: a required value that nobody gave is written as the
default or the empty value of its type, and named beside the plan in ``asks``.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from router.errors import BadRequest, MalformedPlan, RouterError
from router.outputs import type_of
from router.plan import Ask, Definition, Plan, Step, step_json
from router.planner.base import Planner
from router.schemas import value_allowed

MAX_LINE = 16 * 1024 * 1024


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON lines.

    :raises BadRequest: a line is no record; says which.
    :raises OSError: the file cannot be read.
    """
    for number, value in enumerate(lines(path), 1):
        if not isinstance(value.get("request"), str) or "id" not in value:
            raise BadRequest(
                f"Record {number} of {path} is none.", 'Give {"id", "request", "tools"} on each line.'
            )
        yield value


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one a line, gzip where its name ends in ``.gz``; empty lines pass.

    :raises BadRequest: a line is no JSON object; names the line.
    :raises OSError: the file cannot be read.
    """
    with _opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE):
            number += 1
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadRequest(f"Line {number} of {path} is not JSON: {error}.") from error
            if not isinstance(value, dict):
                raise BadRequest(f"Line {number} of {path} is not a JSON object.")
            yield value


def _opened(path: Path) -> IO[str]:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def run(planner: Planner, record: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one record. A record that cannot be planned gets an empty plan and ``error``."""
    try:
        tools = candidates(record.get("tools") or [])
        plan = planner.plan(record["request"], tools)
    except RouterError as error:
        return {"id": record["id"], "plan": [], "error": {"kind": error.kind, "message": str(error)}}
    return written(record["id"], plan, tools)


def candidates(values: Sequence[Any]) -> list[Definition]:
    """The tools of a record; of two with one name, the first.

    :raises MalformedPlan: one of them is no tool definition.
    """
    if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
        raise MalformedPlan("The record's tools are not a list of tool definitions.")
    tools: dict[str, Definition] = {}
    for value in values:
        tool = Definition.of(value)
        tools.setdefault(tool.name, tool)
    return list(tools.values())


def written(id_: Any, plan: Plan, tools: Sequence[Definition]) -> dict[str, Any]:
    """A plan as a line of the output."""
    schemas = {tool.name: tool.input_schema for tool in tools}
    steps, asks = [], []
    for step in plan.steps:
        asks += [{"step": step.id, "question": ask.question} for ask in step.asks()]
        filled = _answered(dict(step.arguments), schemas.get(step.tool, {}))
        steps.append(step_json(Step(step.id, step.tool, filled, step.depends_on)))
    out: dict[str, Any] = {"id": id_, "plan": steps}
    if asks:
        out["asks"] = asks
    if plan.note:
        out["note"] = plan.note
    return out


def _answered(value: Any, schema: Any) -> Any:
    rule = schema if isinstance(schema, Mapping) else {}
    if isinstance(value, Ask):
        return empty(rule)
    if isinstance(value, Mapping):
        known = rule.get("properties")
        parts = known if isinstance(known, Mapping) else {}
        return {key: _answered(part, parts.get(key)) for key, part in value.items()}
    if isinstance(value, list):
        return [_answered(part, rule.get("items")) for part in value]
    return value


def empty(schema: Mapping[str, Any]) -> Any:
    """The least telling value that a schema allows; None where none of the usual ones will do."""
    enum, examples = schema.get("enum"), schema.get("examples")
    options: list[Any] = [schema["default"]] if "default" in schema else []
    options += [*(enum if isinstance(enum, list) else ()), *(examples if isinstance(examples, list) else ())]
    options += [schema["const"]] if "const" in schema else []
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        needed = schema.get("required")
        names = needed if isinstance(needed, list) else []
        options.append({name: empty(properties.get(name, {})) for name in names})
    options += ["", 0, 0.0, False, [], {}, None, 1, "-", schema.get("minimum", 0)]
    wanted = schema.get("type")
    options.sort(key=lambda option: wanted is not None and type_of(option) != wanted)
    return next((option for option in options if value_allowed(option, schema)), None)
