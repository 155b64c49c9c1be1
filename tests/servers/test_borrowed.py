"""Which values a tool borrows from those beside it."""

from __future__ import annotations

from typing import Any

from servers.convert.borrowed import MOST, Neighbours
from servers.manifest.records import Evidence, Parameter, Tool


def tool(name: str, *parameters: str, kind: str = "str", **more: Any) -> Tool:
    made = tuple(Parameter(name=one, kind="normal", type={"k": kind}, required=True) for one in parameters)
    return Tool(name, f"m:{name}", "function", {}, parameters=made, **more)


def answer(result: str, **arguments: Any) -> Evidence:
    return Evidence(outcome="answer", arguments=arguments, result=result)


def calls(neighbours: Neighbours, wanted: Tool) -> list[dict[str, Any]]:
    return [trial.arguments for trial in neighbours.trials(wanted)]


def test_a_parameter_takes_what_others_of_its_name_took() -> None:
    neighbours = Neighbours(
        [(tool("first", "patch", "obj"), answer("1", patch=[{"op": "add"}], obj={"a": 1}))]
    )
    made = calls(neighbours, tool("second", "obj", "patch", kind="any"))
    assert {"obj": {"a": 1}, "patch": [{"op": "add"}]} in made


def test_a_text_that_was_answered_is_tried_that_of_the_likeliest_name_first() -> None:
    known = [
        (tool("version"), answer('"1.0"')),
        (tool("b58encode_int", "i"), answer('"3vQB7B"', i=7)),
        (tool("count"), answer("3")),
    ]
    assert [one["v"] for one in calls(Neighbours(known), tool("b58decode_int", "v"))] == ["3vQB7B", "1.0"]


def test_what_an_object_is_made_of_is_borrowed_too() -> None:
    made = Tool("make", "m:make", "class", {}, parameters=tool("", "patch", kind="list").parameters)
    method = tool("apply", init_property="init", constructor=made.parameters)
    neighbours = Neighbours([(made, answer("{}", patch=[1]))])
    assert calls(neighbours, method) == [{"init": {"patch": [1]}}]


def test_tries_are_bounded_and_none_is_made_twice() -> None:
    known = [(tool(f"t{n}", "text"), answer(f'"{n}"', text=str(n))) for n in range(50)]
    made = calls(Neighbours(known), tool("other", "text"))
    assert len(made) == MOST
    assert all(made.count(one) == 1 for one in made)
    assert calls(Neighbours([]), tool("other", "text")) == []


def test_an_answer_that_was_cut_is_no_text() -> None:
    cut = [(tool("long"), answer('"' + "x" * 599)), (tool("longer"), answer('"' + "x" * 500 + '"'))]
    assert calls(Neighbours(cut), tool("other", "text")) == []
