"""What a plan asks for, as a form, and the answers in their places."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.planning.questions import (
    MAX_QUESTIONS,
    answered,
    form,
    question_json,
    questions_of,
    read_answer,
    read_question,
)
from router.errors import BadRequest
from router.plan import Ask, Definition, Plan, Step

SCHEMA = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 1},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "rows": {"type": "array", "items": {"type": "object", "properties": {"on": {"type": "boolean"}}}},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}
TOOLS = {"t": Definition("t", input_schema=SCHEMA)}


def plan(**arguments: Any) -> Plan:
    return Plan((Step("1", "t", arguments),))


def test_each_question_is_a_field_of_the_type_the_tool_wants() -> None:
    asking = plan(count=Ask("How many?"), kind=Ask("Which?"), rows=[{"on": True}, {"on": Ask("On?")}])
    schema = form(questions_of(asking, TOOLS))
    assert schema["required"] == ["q1", "q2", "q3"]
    types = [
        {k: v for k, v in f.items() if k not in ("title", "description")}
        for f in schema["properties"].values()
    ]
    assert types == [
        {"type": "integer", "minimum": 1},
        {"type": "string", "enum": ["a", "b"]},
        {"type": "boolean"},
    ]


def test_answers_go_where_the_questions_stood_and_others_stay_questions() -> None:
    asking = plan(count=Ask("How many?"), rows=[{"on": True}, {"on": Ask("On?")}], tags=Ask("Tags?"))
    questions = questions_of(asking, TOOLS)
    made = answered(asking, questions, {"q2": False, "q3": '["x", "y"]'})
    assert made.steps[0].arguments == {
        "count": Ask("How many?"),
        "rows": [{"on": True}, {"on": False}],
        "tags": ["x", "y"],
    }
    with pytest.raises(BadRequest, match="not JSON"):
        answered(asking, questions, {"q3": "x and y"})


def test_a_question_survives_the_way_over_the_wire() -> None:
    questions = questions_of(plan(tags=Ask("Tags?"), count=Ask("How many?")), TOOLS)
    assert [read_question(question_json(question)) for question in questions] == questions


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("count", " 3 ", 3), ("kind", "a", "a"), ("tags", '["x"]', '["x"]')],
)
def test_what_is_typed_is_read_as_the_field_wants_it(name: str, text: str, value: Any) -> None:
    (question,) = questions_of(plan(**{name: Ask("?")}), TOOLS)
    assert read_answer(question, text) == value


@given(st.text(max_size=20) | st.integers().map(str))
def test_what_is_typed_is_a_value_of_the_type_or_refused(text: str) -> None:
    (question,) = questions_of(plan(count=Ask("?")), TOOLS)
    if re.fullmatch(r"[ \t\r\n]*-?(0|[1-9][0-9]*)[ \t\r\n]*", text):
        assert read_answer(question, text) == int(text)
    else:
        with pytest.raises(BadRequest, match="integer"):
            read_answer(question, text)


def test_more_questions_than_a_person_can_be_asked_are_refused() -> None:
    with pytest.raises(BadRequest, match="asks for"):
        questions_of(plan(tags=[Ask("?")] * (MAX_QUESTIONS + 1)), TOOLS)
