"""What a plan asks for, as a form a person can fill in, and the plan with the answers in their places.

Forms are flat objects of simple types (MCP 2025-11-25, Elicitation: Requested Schema). A value of another
type is asked for as JSON text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from gateway.policy.consent import visible
from router.errors import BadRequest
from router.plan import Ask, Definition, Plan

_SIMPLE: Final = ("string", "integer", "number", "boolean")
_KEPT: Final = ("format", "minimum", "maximum", "minLength", "maxLength", "default")
_FORMATS: Final = ("email", "uri", "date", "date-time")
MAX_QUESTIONS: Final = 32


@dataclass(frozen=True, slots=True)
class Question:
    """A value that nobody gave.

    :param key: its name in the form.
    :param path: keys and list positions in the step's arguments.
    :param schema: of its field in the form.
    :param as_json: whether the answer is JSON text.
    """

    key: str
    step: str
    path: tuple[str | int, ...]
    text: str
    schema: Mapping[str, Any]
    as_json: bool = False


def question_json(question: Question) -> dict[str, Any]:
    """A question as JSON; `read_question` reads it back."""
    return {
        "key": question.key,
        "step": question.step,
        "path": list(question.path),
        "question": question.text,
        "schema": dict(question.schema),
        "json": question.as_json,
    }


def read_question(value: Mapping[str, Any]) -> Question:
    """What `question_json` has made."""
    return Question(
        value["key"], value["step"], tuple(value["path"]), value["question"], value["schema"], value["json"]
    )


def questions_of(plan: Plan, tools: Mapping[str, Definition]) -> list[Question]:
    """Every question of a plan, in its order. Raises BadRequest where there are too many to ask."""
    found: list[Question] = []
    for step in plan.steps:
        tool = tools.get(step.tool)
        for path, ask in _asks(dict(step.arguments), ()):
            schema, as_json = _field(_at(tool.input_schema if tool is not None else {}, path))
            text = visible(ask.question, 500)
            key = f"q{len(found) + 1}"
            found.append(
                Question(key, step.id, path, text, {**schema, "title": text, "description": text}, as_json)
            )
    if len(found) > MAX_QUESTIONS:
        raise BadRequest(f"The plan asks for {len(found)} values.", "Say more in the request.")
    return found


def form(questions: list[Question]) -> dict[str, Any]:
    """The schema of a form with a field for each."""
    fields = {question.key: dict(question.schema) for question in questions}
    return {"type": "object", "properties": fields, "required": list(fields)}


def answered(plan: Plan, questions: list[Question], answers: Mapping[str, Any]) -> Plan:
    """The plan with the answers in their places; what was not answered stays a question.

    :raises BadRequest: an answer that should be JSON is none.
    """
    steps = {step.id: step for step in plan.steps}
    for question in questions:
        if question.key in answers:
            step = steps[question.step]
            value = _value(question, answers[question.key])
            steps[step.id] = replace(step, arguments=_put(dict(step.arguments), question.path, value))
    return replace(plan, steps=tuple(steps.values()))


def read_answer(question: Question, text: str) -> Any:
    """What somebody typed, as the value the form wants. Raises BadRequest."""
    kind = question.schema.get("type")
    if question.as_json or kind == "string":
        return text
    try:
        value = msgspec.json.decode(text.strip().lower())
    except msgspec.DecodeError:
        value = None
    fits = {"boolean": (bool,), "integer": (int,), "number": (int, float)}[str(kind)]
    if type(value) not in fits:
        raise BadRequest(f"{text[:80]!r} is no {kind}.", "Answer the question again.")
    return value


def _value(question: Question, given: Any) -> Any:
    if not question.as_json:
        return given
    try:
        return msgspec.json.decode(given if isinstance(given, str) else msgspec.json.encode(given))
    except msgspec.DecodeError:
        raise BadRequest(
            f"The answer to {question.text!r} is not JSON.", "Give it as a JSON value."
        ) from None


def _asks(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Ask]]:
    if isinstance(value, Ask):
        yield path, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _asks(part, (*path, key))
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield from _asks(part, (*path, place))


def _put(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    if not path:
        return new
    head, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        return {key: _put(part, rest, new) if key == head else part for key, part in value.items()}
    return [_put(part, rest, new) if place == head else part for place, part in enumerate(value)]


def _at(schema: Any, path: tuple[str | int, ...]) -> Mapping[str, Any]:
    """What a schema says of the value at a path, as far as it says so plainly."""
    for key in path:
        inner = schema.get("items") if isinstance(key, int) else (schema.get("properties") or {})
        schema = inner if isinstance(key, int) else inner.get(key) if isinstance(inner, Mapping) else None
        if not isinstance(schema, Mapping):
            return {}
    return schema if isinstance(schema, Mapping) else {}


def _field(schema: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The field of a form for a value, and whether it is asked for as JSON."""
    options = schema.get("enum")
    if isinstance(options, list) and options and all(isinstance(option, str) for option in options):
        return {"type": "string", "enum": options}, False
    kind = schema.get("type")
    if kind not in _SIMPLE:
        return {"type": "string"}, bool(schema) and kind is not None
    kept = {key: schema[key] for key in _KEPT if key in schema}
    if kept.get("format") not in _FORMATS:
        kept.pop("format", None)
    return {"type": kind, **kept}, False
