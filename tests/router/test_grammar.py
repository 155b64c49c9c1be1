"""What a model is allowed to write next."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.check import check
from router.grammar import LENGTHS, LONGEST, MOST_ITEMS, copies, next_step, question
from router.plan import Definition, Plan, Step, from_json


def tool(name: str = "t", output: dict[str, Any] | None = None, **schema: Any) -> Definition:
    return Definition(name, input_schema={"type": "object", **schema}, output_schema=output, hash="-")


def allowed(schema: dict[str, Any], name: str, arguments: Any, **more: Any) -> bool:
    value = {"next": {"tool": name, "arguments": arguments, **more}}
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


def one(rule: dict[str, Any], value: Any, *, required: bool = True, **more: Any) -> bool:
    """Whether a value may be written for a parameter with a rule."""
    only = tool(properties={"x": rule}, required=["x"] if required else [])
    return allowed(next_step([only], Plan(), **more), "t", {"x": value})


def test_only_tools_that_there_are_may_be_called() -> None:
    schema = next_step([tool("a"), tool("b")], Plan())
    assert allowed(schema, "a", {})
    assert not allowed(schema, "c", {})
    assert jsonschema.Draft202012Validator(schema).is_valid({"next": None})
    assert not jsonschema.Draft202012Validator(next_step([tool("a")], Plan(), end=False)).is_valid(
        {"next": None}
    )


def test_only_parameters_that_there_are_may_be_given_and_required_ones_must() -> None:
    schema = next_step(
        [tool(properties={"a": {"type": "string"}, "b": {"type": "string"}}, required=["a"])], Plan()
    )
    assert allowed(schema, "t", {"a": "x"})
    assert allowed(schema, "t", {"a": "x", "b": "y"})
    assert not allowed(schema, "t", {"b": "y"})
    assert not allowed(schema, "t", {"a": "x", "c": "y"})


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 5}, 3, 6),
        ({"type": "number", "minimum": 0, "exclusiveMinimum": True}, 0.5, 0),
        ({"type": "integer", "multipleOf": 5}, 10, 11),
        ({"type": "string", "pattern": "^[a-c]+$"}, "abc", "xyz"),
        ({"enum": ["a", 1, None]}, None, "b"),
        ({"const": {"k": 1}}, {"k": 1}, {"k": 2}),
        ({"type": ["string", "null"]}, None, 3),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, 3, 3.5),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 1}, [True], []),
        ({"allOf": [{"type": "string"}, {"maxLength": 3}]}, "abc", "abcd"),
        ({"type": "object", "properties": {"n": {"type": "string"}}, "required": ["n"]}, {"n": "x"}, {}),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"k": 1}, {"k": "v"}),
    ],
)
def test_values_keep_to_the_rule(rule: dict[str, Any], good: Any, bad: Any) -> None:
    assert one(rule, good)
    assert not one(rule, bad)


def test_a_rule_may_refer_to_a_definition_and_to_itself() -> None:
    node = {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}}}
    looped = tool(properties={"x": {"$ref": "#/$defs/node"}}, required=["x"], **{"$defs": {"node": node}})
    schema = next_step([looped], Plan())
    assert allowed(schema, "t", {"x": {"v": 1, "next": {"v": 2}}})
    assert not allowed(schema, "t", {"x": {"v": "1"}})


def test_what_a_grammar_cannot_hold_can_be_asked_for() -> None:
    for rule in (
        {"type": "string", "pattern": "^(?=a)"},
        {"type": "array", "prefixItems": [{}]},
        {"enum": []},
    ):
        ask = {"$ask": question(tool(), ["x"])}
        assert one(rule, ask)
        assert not one(rule, "abc")


def test_a_question_stands_for_required_parameters_alone() -> None:
    ask = {"$ask": question(tool(), ["x"])}
    assert one({"type": "string"}, ask)
    assert not one({"type": "string"}, ask, required=False)
    assert not one({"type": "string"}, {"$ask": "Your password?"})


def test_everything_that_is_written_ends() -> None:
    assert not one({"type": "string"}, "x" * (LONGEST + 1))
    assert not one({"type": "array", "items": {"type": "integer"}}, [1] * (MOST_ITEMS + 1))
    assert not one({"type": "object"}, {f"k{i}": i for i in range(MOST_ITEMS + 1)})
    assert not one({}, 10**15)


def test_a_string_may_be_as_long_as_the_request_and_no_longer() -> None:
    text = tool(properties={"x": {"type": "string"}, "y": {"type": "string", "minLength": 200}})
    short, long = (next_step([text], Plan((), "word " * words)) for words in (4, 400))
    assert allowed(short, "t", {"x": "x" * LENGTHS})
    assert not allowed(short, "t", {"x": "x" * (LENGTHS + 1)})
    assert allowed(short, "t", {"y": "y" * 200})
    assert allowed(long, "t", {"x": "x" * LONGEST})


OUTPUT = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "items": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "integer"}}}},
    },
}


def test_a_reference_names_a_part_of_an_earlier_result_that_has_the_right_type() -> None:
    tools = [tool("find", OUTPUT), tool("use", properties={"id": {"type": "integer"}})]
    schema = next_step(tools, Plan((Step("1", "find"),)))
    assert allowed(schema, "use", {"id": {"$ref": "1", "path": "items.0.id"}})
    assert allowed(schema, "use", {"id": 3}, after=["1"])
    for bad in (
        {"$ref": "1", "path": "name"},
        {"$ref": "1", "path": "no"},
        {"$ref": "2", "path": "items.0.id"},
    ):
        assert not allowed(schema, "use", {"id": bad})
    assert not allowed(schema, "use", {}, after=["2"])
    assert not allowed(next_step(tools, Plan()), "use", {"id": {"$ref": "1", "path": "items.0.id"}})


def test_data_cannot_pass_for_a_reference() -> None:
    assert not one({"type": "object"}, {"$ref": "9"})
    assert not one({"enum": [{"$ref": "9"}]}, {"$ref": "9"})


def test_copied_strings_are_runs_of_words_of_the_request() -> None:
    words = copies("Tell Ann Lee (the boss), please.")
    assert {"Ann Lee", "the boss", "please"} <= set(words)
    assert one({"type": "string"}, "Ann Lee", copied=words)
    assert not one({"type": "string"}, "Bob", copied=words)
    assert one({"type": "string", "maxLength": 3}, "Ann", copied=words)
    assert not one({"type": "string", "maxLength": 3}, "Ann Lee", copied=words)
    assert one({"enum": ["red"]}, "red", copied=words)


def test_the_order_of_the_tools_changes_nothing() -> None:
    a, b = tool("a", OUTPUT), tool("b", properties={"x": {"type": "string"}})
    assert json.dumps(next_step([a, b], Plan())) == json.dumps(next_step([b, a], Plan()))


_VALUES = st.sampled_from(["x", "", 0, 1, 2.5, True, None, [], [1], {}, {"a": "x"}, "a" * 9])


@given(
    st.sampled_from(
        [
            {"type": "string", "maxLength": 4},
            {"type": "integer", "exclusiveMinimum": 0},
            {"type": "array", "items": {"type": "integer"}},
            {"anyOf": [{"type": "string"}, {"type": "null"}], "maxLength": 3},
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"type": ["boolean", "number"], "minimum": 1},
            {},
        ]
    ),
    _VALUES,
)
def test_whatever_may_be_written_passes_the_check(rule: dict[str, Any], value: Any) -> None:
    only = tool(properties={"x": rule}, required=["x"])
    if allowed(next_step([only], Plan()), "t", {"x": value}):
        check(from_json([{"id": "1", "tool": "t", "arguments": {"x": value}}]), {"t": only})
