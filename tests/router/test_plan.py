"""Plans: JSON in and out, and what may run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.check import check, cycle, order, problems
from router.errors import (
    BadArguments,
    BadPath,
    BadSchema,
    Cycle,
    DuplicateStep,
    HiddenDependency,
    InvalidPlan,
    MalformedPlan,
    UnknownStep,
    UnknownTool,
)
from router.plan import Ask, Definition, Plan, Ref, Step, follow, from_json, join_path, split_path, to_json

FIND = Definition.of(
    {
        "name": "find",
        "inputSchema": {
            "type": "object",
            "properties": {
                "text": {"type": "string", "pattern": "^[a-z]+$"},
                "limit": {"type": "integer", "minimum": 1},
                "kind": {"enum": ["a", "b"]},
                "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
            },
            "required": ["text"],
            "additionalProperties": False,
        },
        "outputSchema": {
            "type": "object",
            "properties": {
                "count": {"type": "integer"},
                "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
                "more": {"type": "object", "additionalProperties": True},
            },
            "$defs": {"item": {"type": "object", "properties": {"id": {"type": "string"}}}},
        },
    }
)
TOOLS = {"find": FIND, "blind": Definition("blind")}


def found(*steps: Step) -> list[type[Exception]]:
    return [type(problem) for problem in problems(Plan(steps), TOOLS)]


def second(**arguments: Any) -> list[type[Exception]]:
    return found(Step("1", "find", {"text": "x"}), Step("2", "find", {"text": "y", **arguments}, ("1",)))


def test_a_reference_stands_for_the_type_its_output_schema_gives() -> None:
    assert second(text=Ref("1", "items.0.id")) == []
    assert second(limit=Ref("1", "count"), tags=["p", Ref("1", "items.0.id")]) == []
    assert second(limit=Ref("1", "items.0.id")) == [BadArguments]
    assert second(text=Ref("1")) == [BadArguments]
    assert second(kind=Ref("1", "items.1.id")) == []
    assert second(kind=Ref("1", "count")) == [BadArguments]
    assert second(text=Ref("1", "more.whatever")) == []


def test_a_path_leads_to_what_the_output_schema_promises() -> None:
    assert second(text=Ref("1", "name")) == [BadPath]
    assert second(text=Ref("1", "items.id")) == [BadPath]
    assert second(text=Ref("1", "items.0.name")) == [BadPath]
    assert second(text=Ref("1", "count.0")) == [BadPath]
    blind = Step("1", "blind")
    assert found(blind, Step("2", "find", {"text": Ref("1", "any.thing")}, ("1",))) == []


def test_a_question_stands_for_any_value() -> None:
    assert found(Step("1", "find", {"text": Ask("What is looked for?"), "limit": Ask("How many?")})) == []


def test_arguments_keep_to_the_schema_and_the_problem_says_where() -> None:
    plan = Plan((Step("1", "find", {"text": "UPPER", "limit": 0, "other": 1}),))
    with pytest.raises(InvalidPlan) as caught:
        check(plan, TOOLS)
    where = {(p.step, p.path, p.schema_path) for p in caught.value.problems}
    assert where == {
        ("1", "/text", "/properties/text/pattern"),
        ("1", "/limit", "/properties/limit/minimum"),
        ("1", "", "/additionalProperties"),
    }
    assert found(Step("1", "find")) == [BadArguments]


def test_steps_are_unique_known_and_do_not_wait_for_each_other() -> None:
    assert found(Step("1", "blind"), Step("1", "blind")) == [DuplicateStep]
    assert found(Step("1", "gone")) == [UnknownTool]
    assert found(Step("1", "blind", {}, ("2",))) == [UnknownStep]
    assert found(Step("1", "blind", {}, ("1",))) == [UnknownStep]
    assert found(Step("1", "blind", {}, ("2",)), Step("2", "blind", {}, ("1",))) == [Cycle]
    assert found(Step("1", "blind"), Step("2", "blind", {"x": Ref("1")})) == [HiddenDependency]


def test_rules_that_only_a_value_can_decide_wait_for_it() -> None:
    schema = {
        "properties": {
            "a": {"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 2}]},
            "b": {"not": {"type": "string"}},
            "c": {"if": {"type": "string"}, "then": {"minLength": 3}},
        }
    }
    tools = {"t": Definition("t", input_schema=schema), "blind": Definition("blind")}
    for name in schema["properties"]:
        step = Step("2", "t", {name: Ref("1")}, ("1",))
        assert problems(Plan((Step("1", "blind"), step)), tools) == []
    assert problems(Plan((Step("1", "t", {"a": "abc"}),)), tools) != []


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nothing"},
        {"properties": 5},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/nowhere"},
        {"$schema": "https://example.com/dialect"},
        {"properties": {"x": {"pattern": "(a+)+$"}}},
    ],
)
def test_a_schema_that_cannot_be_used_is_a_problem_of_the_plan(schema: dict[str, Any]) -> None:
    tools = {"t": Definition("t", input_schema=schema)}
    (problem,) = problems(Plan((Step("1", "t", {"x": "a" * 5000 + "!"}),)), tools)
    assert isinstance(problem, BadSchema | BadArguments)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"plan": {}},
        [3],
        [{"id": "1"}],
        [{"tool": "t", "arguments": []}],
        [{"tool": "t", "depends_on": "1"}],
        [{"tool": "t", "arguments": {"x": {"$ref": "1", "other": 2}}}],
        [{"tool": "t", "arguments": {"x": {"$ask": 3}}}],
        [{"tool": "t", "arguments": {"x": {"$literal": 3}}}],
        [{"tool": "t"}] * 300,
    ],
)
def test_what_is_no_plan_is_refused(value: Any) -> None:
    with pytest.raises(MalformedPlan):
        from_json(value)


def test_a_step_depends_on_what_it_references() -> None:
    plan = from_json([{"id": 1, "tool": "t"}, {"id": 2, "tool": "t", "arguments": {"x": {"$ref": 1}}}])
    assert plan.steps[1].depends_on == ("1",)


def test_nesting_has_a_limit() -> None:
    value: Any = 1
    for _ in range(100):
        value = [value]
    with pytest.raises(MalformedPlan):
        from_json([{"tool": "t", "arguments": {"x": value}}])


def test_following_a_reference_says_how_far_it_led() -> None:
    result = {"items": [{"a.b": 7}]}
    assert follow(Ref("1", "items.0.a\\.b"), result) == 7
    assert follow(Ref("1"), result) is result
    with pytest.raises(BadPath, match=r"no '1' at items"):
        follow(Ref("1", "items.1.a"), result)


keys = st.text(max_size=5) | st.sampled_from(["$ref", "$ask", "$literal", "path"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=10)
    | st.builds(Ref, st.sampled_from(["1", "2"]), st.text(max_size=5))
    | st.builds(Ask, st.text(max_size=10)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(keys, values, max_size=3), st.text(max_size=20), st.text(max_size=20))
def test_a_plan_read_back_from_json_is_the_same(arguments: dict[str, Any], request: str, note: str) -> None:
    step = Step("3", "tool", arguments)
    needs = tuple(dict.fromkeys(ref.step for ref in step.refs()))
    plan = Plan((Step("3", "tool", arguments, needs),), request, note)
    assert from_json(to_json(plan)) == plan


@given(st.lists(st.text(alphabet="ab.\\0", min_size=1, max_size=4), max_size=4))
def test_a_path_read_back_has_the_same_segments(segments: list[str]) -> None:
    assert split_path(join_path(tuple(segments))) == tuple(segments)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_every_step_comes_after_its_needs_or_is_named_as_stuck(pairs: list[tuple[int, int]]) -> None:
    needs = {str(i): tuple(dict.fromkeys(str(a) for a, b in pairs if b == i)) for i in range(8)}
    plan = Plan(tuple(Step(name, "blind", {}, need) for name, need in needs.items()))
    done: set[str] = set()
    for wave in order(plan):
        assert all(done.issuperset(step.depends_on) for step in wave)
        done.update(step.id for step in wave)
    stuck = cycle(plan)
    assert done | set(stuck) == set(needs)
    assert done.isdisjoint(stuck)
    for name in stuck:
        assert set(needs[name]) & set(stuck)
