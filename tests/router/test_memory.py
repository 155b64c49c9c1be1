"""Plans are remembered by shape: nothing of anybody's is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from run_parts import plan, ref, step

from router.composite import Composite, Composites
from router.errors import BadRequest
from router.journal.database import Database
from router.memory import PlanMemory
from router.plan import Definition, Plan
from router.planner.prompt import messages
from router.shapes import shape_of

FIND = Definition(
    "find_user",
    "Find a user by name",
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "active": {"type": "boolean"}},
        "required": ["name"],
    },
    hash="f1",
)
MAIL = Definition(
    "send_mail",
    "Send a mail to a person",
    {
        "type": "object",
        "properties": {"to": {"type": "string"}, "text": {"type": "string"}},
        "required": ["to", "text"],
    },
    hash="m1",
)
TOOLS = {"find_user": FIND, "send_mail": MAIL}


def wish(name: str, text: str, ids: tuple[str, str] = ("1", "2"), **more: Any) -> Plan:
    first, second = ids
    return plan(
        step(first, "find_user", {"name": name, **more}),
        step(second, "send_mail", {"to": ref(first, "email"), "text": text}),
        request=f"Find the user {name} and send her a mail that says {text}",
    )


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(tmp_path / "runs.db")
    yield opened
    opened.close()


@pytest.fixture
def memory(database: Database) -> PlanMemory:
    return PlanMemory(database)


@pytest.fixture
def composites(database: Database) -> Composites:
    return Composites(database)


def test_plans_that_differ_in_values_and_ids_alone_have_one_shape() -> None:
    assert shape_of(wish("Ann", "hello"), TOOLS).key == shape_of(wish("Bob", "bye", ("x", "y")), TOOLS).key
    assert shape_of(wish("Ann", "hello"), TOOLS).key != shape_of(wish("Ann", "hello", active=True), TOOLS).key


def test_no_value_is_kept(memory: PlanMemory, tmp_path: Path) -> None:
    memory.remember(shape_of(wish("Zaphod", "zarquon 42 zz@example.com"), TOOLS))
    (shape,) = memory.shapes()
    assert shape.request == "find the user and send her a mail that"
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (b"aphod", b"zarquon", b"42 zz", b"example.com"):
        assert secret not in kept


def test_a_shape_filled_with_the_values_is_the_plan_again() -> None:
    shape = shape_of(wish("Ann", "hello", active=True), TOOLS)
    assert shape.schema["required"] == ["name", "text"]
    made = shape.filled({"name": "Ann", "text": "hello", "active": True})
    assert made.steps == wish("Ann", "hello", active=True).steps or [s.tool for s in made.steps] == [
        "find_user",
        "send_mail",
    ]
    assert dict(made.steps[0].arguments) == {"name": "Ann", "active": True}
    assert dict(shape.filled({"name": "Ann", "text": "hello"}).steps[0].arguments) == {"name": "Ann"}
    for values in ({"name": "Ann"}, {"name": "Ann", "text": "x", "other": 1}):
        with pytest.raises(BadRequest):
            shape.filled(values)


def test_examples_are_those_of_like_requests_whose_tools_are_what_they_were(memory: PlanMemory) -> None:
    memory.remember(shape_of(wish("Ann", "hello"), TOOLS))
    lone = plan(step("1", "find_user", {"name": "Ann"}), request="Find a user")
    memory.remember(shape_of(lone, TOOLS))
    memory.remember(shape_of(lone, TOOLS))
    tools = list(TOOLS.values())
    found = memory.examples("Send a mail to the user called Bob", tools)
    assert [len(shape.plan) for shape in found] == [2, 1]
    assert found[1].uses == 2
    assert memory.examples("Brew some coffee", tools) == []
    changed = [FIND, replace(MAIL, hash="m2")]
    assert [len(shape.plan) for shape in memory.examples("Send a mail to the user Bob", changed)] == [1]


def test_examples_name_their_tools_as_the_candidates_do(memory: PlanMemory) -> None:
    memory.remember(shape_of(wish("Ann", "hello"), TOOLS))
    here = [replace(FIND, name="people_find"), replace(MAIL, name="post_mail")]
    (shape,) = memory.examples("Find a user and send a mail", here)
    assert [one["tool"] for one in shape.plan] == ["people_find", "post_mail"]


def test_what_was_forgotten_is_no_example_any_more(memory: PlanMemory) -> None:
    memory.remember(shape_of(wish("Ann", "hello"), TOOLS))
    assert memory.examples("Send a mail to a user", list(TOOLS.values()))
    assert memory.forget() == 1
    assert memory.examples("Send a mail to a user", list(TOOLS.values())) == []


def named(name: str, **more: Any) -> Composite:
    return Composite(name, "Mail a user by name", shape_of(wish("Ann", "hello"), TOOLS), **more)


def test_a_plan_with_a_name_is_a_tool_whose_parameters_are_its_values(composites: Composites) -> None:
    composites.put(named("mail_user"))
    (tool,) = composites.all()
    assert tool.definition()["inputSchema"] == {
        "type": "object",
        "properties": {"name": {"type": "string"}, "text": {"type": "string"}},
        "required": ["name", "text"],
        "additionalProperties": False,
    }
    assert tool.tools == ("find_user", "send_mail")
    assert tool.ends() == ("2",)
    assert tool.plan({"name": "Bob", "text": "bye"}).steps == wish("Bob", "bye").steps


def test_a_value_that_was_fixed_is_no_parameter(composites: Composites) -> None:
    composites.put(named("greet", fixed={"text": "hello"}))
    tool = composites.get("greet")
    assert tool is not None
    assert list(tool.schema["properties"]) == tool.schema["required"] == ["name"]
    assert tool.plan({"name": "Bob"}).steps == wish("Bob", "hello").steps
    with pytest.raises(BadRequest, match="no parameter text"):
        tool.plan({"name": "Bob", "text": "bye"})


def test_names_are_given_once_until_they_are_taken_back(composites: Composites) -> None:
    composites.put(named("mail_user"))
    for name in ("mail_user", "no name", "", "x" * 49):
        with pytest.raises(BadRequest):
            composites.put(named(name))
    composites.used("mail_user")
    assert [tool.uses for tool in composites.all()] == [1]
    assert composites.remove("mail_user")
    assert not composites.remove("mail_user")
    assert composites.get("mail_user") is None


def test_composite_tools_are_neither_examples_nor_forgotten_with_them(
    memory: PlanMemory, composites: Composites
) -> None:
    composites.put(named("mail_user"))
    assert memory.shapes() == []
    assert memory.forget() == 0
    assert len(composites.all()) == 1


def test_a_model_is_shown_examples_behind_what_stays_the_same() -> None:
    tools = list(TOOLS.values())
    plain = messages(tools, "Mail Bob", None)
    shown = messages(tools, "Mail Bob", None, [shape_of(wish("Ann", "hello"), TOOLS)])
    assert shown[0] == plain[0]
    asked = shown[1]["content"]
    assert asked.endswith(plain[1]["content"])
    assert '{"name":"<name>"}' in asked
    assert '{"$ref":"1","path":"email"}' in asked
    assert "Ann" not in asked
