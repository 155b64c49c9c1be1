"""A plan: which tools are called with what, and which call waits for which.

    plan = Plan(
        steps=(
            Step("1", "find_user", {"name": "Ann"}),
            Step("2", "send", {"to": Ref("1", "items.0.email"), "text": "Hello"}, ("1",)),
        ),
        request="Say hello to Ann",
    )
    plan == from_json(to_json(plan))

A plan is data and knows no tools; `router.check` holds it against them. As JSON a reference is
``{"$ref": "1", "path": "items.0.email"}``, a value nobody gave is ``{"$ask": "Which city?"}``, and an
object that would read as either is ``{"$literal": {…}}``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from router.errors import BadPath, MalformedPlan

MAX_STEPS: Final = 256
MAX_DEPTH: Final = 64
"""Levels of objects and lists in one step's arguments."""

_MARKS: Final = ("$ref", "$ask", "$literal")


@dataclass(frozen=True, slots=True)
class Ref:
    """What an earlier step returned, or a part of it.

    :param step: the id of that step.
    :param path: keys and list positions joined by dots, from the top of the step's structured result;
        a dot inside a key is written ``\\.`` and a backslash ``\\\\``. Empty for the whole result.
    """

    step: str
    path: str = ""

    @property
    def segments(self) -> tuple[str, ...]:
        """The keys and list positions of the path."""
        return split_path(self.path)


@dataclass(frozen=True, slots=True)
class Ask:
    """A required value that nobody gave; whoever runs the plan has to ask for it.

    :param question: for a person, one sentence.
    """

    question: str


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a tool.

    :param id: unique in the plan.
    :param tool: the name under which the tool was given to the planner.
    :param arguments: JSON values, with Ref and Ask wherever a value may stand.
    :param depends_on: ids of the steps that have to be finished first, those referenced among them.
    """

    id: str
    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    depends_on: tuple[str, ...] = ()

    def refs(self) -> Iterator[Ref]:
        """The references in the arguments, in their order."""
        return (value for value in open_values(self.arguments) if isinstance(value, Ref))

    def asks(self) -> Iterator[Ask]:
        """The questions in the arguments, in their order."""
        return (value for value in open_values(self.arguments) if isinstance(value, Ask))


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps that together serve a request.

    :param steps: a directed acyclic graph; steps without a path between them may run at the same time.
    :param request: what was asked for.
    :param note: one sentence for the person: why there are no steps, or what the plan leaves out.
    """

    steps: tuple[Step, ...] = ()
    request: str = ""
    note: str = ""

    def asks(self) -> list[tuple[str, Ask]]:
        """Every question with the id of its step."""
        return [(step.id, ask) for step in self.steps for ask in step.asks()]


@dataclass(frozen=True, slots=True)
class Definition:
    """A tool as a planner sees it: one of its candidates.

    :param name: unique among the candidates of one request; what Step.tool names.
    :param input_schema: JSON Schema of the arguments.
    :param output_schema: JSON Schema of the structured result; None where the server declares none.
    :param annotations: the tool's MCP annotations (``readOnlyHint``, ``idempotentHint`` …).
    :param hash: the definition hash, by which versions are told apart.
    :param server: the name of the server it belongs to.
    """

    name: str
    description: str = ""
    input_schema: Mapping[str, Any] = field(default_factory=dict, hash=False)
    output_schema: Mapping[str, Any] | None = field(default=None, hash=False)
    annotations: Mapping[str, Any] = field(default_factory=dict, hash=False)
    hash: str = ""
    server: str = ""

    @staticmethod
    def of(value: Mapping[str, Any], *, server: str = "", hash: str | None = None) -> Definition:  # noqa: A002
        """A candidate from an MCP tool definition.

        :param hash: its definition hash where the caller knows it; computed otherwise.
        :raises MalformedPlan: there is no name, or a schema is not an object.
        """
        name = value.get("name")
        if not isinstance(name, str) or not name:
            raise MalformedPlan("A tool's definition has no name.", "Give every tool a name.")
        described = value.get("description")
        schemas = []
        for key, absent in (("inputSchema", {}), ("outputSchema", None)):
            schema = value.get(key)
            if schema is not None and not isinstance(schema, Mapping):
                raise MalformedPlan(
                    f"The {key} of {name} is not an object.", "Have its server mend the definition."
                )
            schemas.append(absent if schema is None else schema)
        annotations = value.get("annotations")
        return Definition(
            name=name,
            description=described if isinstance(described, str) else "",
            input_schema=schemas[0] or {},
            output_schema=schemas[1],
            annotations=annotations if isinstance(annotations, Mapping) else {},
            hash=_hash(value) if hash is None else hash,
            server=server,
        )


def _hash(value: Mapping[str, Any]) -> str:
    import msgspec

    from registry.definition import definition_hash

    return definition_hash(msgspec.json.encode(value))


def open_values(value: Any) -> Iterator[Ref | Ask]:
    """Every Ref and Ask in a value, in order."""
    if isinstance(value, Ref | Ask):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from open_values(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from open_values(part)


def split_path(path: str) -> tuple[str, ...]:
    """The segments of a reference's path; none for an empty one."""
    if not path:
        return ()
    if "\\" not in path:
        return tuple(path.split("."))
    segments, current, escaped = [], "", False
    for char in path:
        if escaped:
            current, escaped = current + char, False
        elif char == "\\":
            escaped = True
        elif char == ".":
            segments.append(current)
            current = ""
        else:
            current += char
    return (*segments, current)


def join_path(segments: tuple[str, ...]) -> str:
    """The path that has these segments."""
    return ".".join(segment.replace("\\", "\\\\").replace(".", "\\.") for segment in segments)


def follow(ref: Ref, result: Any) -> Any:
    """The value that a reference names in the result of its step.

    :raises BadPath: the result has no such part; says how far the path led.
    """
    value = result
    for at, segment in enumerate(ref.segments):
        if isinstance(value, Mapping) and segment in value:
            value = value[segment]
        elif isinstance(value, list) and segment.isdecimal() and int(segment) < len(value):
            value = value[int(segment)]
        else:
            reached = join_path(ref.segments[:at]) or "its top"
            raise BadPath(
                f"The result of step {ref.step} has no {segment!r} at {reached}.",
                "Take another part of the result.",
                step=ref.step,
                path=ref.path,
            )
    return value


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as a JSON value: ``request``, ``plan`` (its steps) and, where there is one, ``note``."""
    value: dict[str, Any] = {"request": plan.request, "plan": [step_json(step) for step in plan.steps]}
    if plan.note:
        value["note"] = plan.note
    return value


def step_json(step: Step) -> dict[str, Any]:
    """One step as a JSON value."""
    return {
        "id": step.id,
        "tool": step.tool,
        "arguments": {name: _encode(value) for name, value in step.arguments.items()},
        "depends_on": list(step.depends_on),
    }


def _encode(value: Any) -> Any:
    if isinstance(value, Ref):
        return {"$ref": value.step, "path": value.path} if value.path else {"$ref": value.step}
    if isinstance(value, Ask):
        return {"$ask": value.question}
    if isinstance(value, Mapping):
        parts = {key: _encode(part) for key, part in value.items()}
        return {"$literal": parts} if any(mark in value for mark in _MARKS) else parts
    if isinstance(value, list | tuple):
        return [_encode(part) for part in value]
    return value


def from_json(value: Any) -> Plan:
    """A plan from what `to_json` gives, or from the list of its steps alone.

    Ids may be numbers. A step depends on what it references, whether ``depends_on`` says so or not.

    :raises MalformedPlan: it is no plan; names the step.
    """
    request = note = ""
    if isinstance(value, Mapping):
        request, note = value.get("request", ""), value.get("note", "")
        if not isinstance(request, str) or not isinstance(note, str):
            raise MalformedPlan("The request or the note of the plan is no text.")
        if "plan" not in value:
            raise MalformedPlan("There is no plan in it.", "Give the steps as the list named plan.")
        value = value["plan"]
    if not isinstance(value, list):
        raise MalformedPlan("The plan is not a list of steps.", "Give a JSON list, empty where no tool fits.")
    if len(value) > MAX_STEPS:
        raise MalformedPlan(
            f"The plan has {len(value)} steps; {MAX_STEPS} are allowed.", "Plan less at once."
        )
    return Plan(tuple(_step(step, position) for position, step in enumerate(value, 1)), request, note)


def _step(value: Any, position: int) -> Step:
    if not isinstance(value, Mapping):
        raise MalformedPlan(f"Step {position} is not an object.", step=str(position))
    name = str(value.get("id", position))
    tool, arguments = value.get("tool"), value.get("arguments", {})
    depends_on = value.get("depends_on", [])
    if not isinstance(tool, str) or not tool:
        raise MalformedPlan(f"Step {name} names no tool.", step=name)
    if not isinstance(arguments, Mapping):
        raise MalformedPlan(f"The arguments of step {name} are not an object.", step=name, path="/arguments")
    if not isinstance(depends_on, list) or not all(isinstance(x, str | int) for x in depends_on):
        raise MalformedPlan(f"depends_on of step {name} is not a list of ids.", step=name, path="/depends_on")
    decoded = {str(key): _decode(part, name, 1) for key, part in arguments.items()}
    step = Step(name, tool, decoded)
    needs = dict.fromkeys([*map(str, depends_on), *(ref.step for ref in step.refs())])
    return Step(name, tool, decoded, tuple(needs))


def _decode(value: Any, step: str, depth: int, literal: bool = False) -> Any:
    if depth > MAX_DEPTH:
        raise MalformedPlan(f"The arguments of step {step} nest deeper than {MAX_DEPTH} levels.", step=step)
    if isinstance(value, list):
        return [_decode(part, step, depth + 1) for part in value]
    if not isinstance(value, Mapping):
        return value
    marks = [mark for mark in _MARKS if mark in value]
    if literal or not marks:
        return {str(key): _decode(part, step, depth + 1) for key, part in value.items()}
    return _marked(value, marks[0], step, depth)


def _marked(value: Mapping[str, Any], mark: str, step: str, depth: int) -> Any:
    inner, extra = value[mark], set(value) - {mark}
    if mark == "$literal" and not extra and isinstance(inner, Mapping):
        return _decode(inner, step, depth, literal=True)
    if mark == "$ask" and not extra and isinstance(inner, str):
        return Ask(inner)
    path = value.get("path", "")
    if mark == "$ref" and extra <= {"path"} and isinstance(inner, str | int) and isinstance(path, str):
        return Ref(str(inner), path)
    raise MalformedPlan(
        f"Step {step} has an object with {mark} that is neither a reference nor a question.",
        'Write {"$ref": "ID", "path": "KEY.0.KEY"}, {"$ask": "QUESTION"}, or wrap data as {"$literal": {…}}.',
        step=step,
    )
