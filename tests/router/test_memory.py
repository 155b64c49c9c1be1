"""Plans are remembered by shape: nothing of anybody's is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_parts import plan, ref, step

from router.errors import BadRequest
from router.journal.database import Database
from router.memory import PlanMemory, shape_of
from router.plan import Definition, Plan

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
def memory(tmp_path: Path) -> Iterator[PlanMemory]:
    database = Database.open(tmp_path / "runs.db")
    yield PlanMemory(database)
    database.close()


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
    found = memory.examples("Send a mail to the user called Bob", TOOLS)
    assert [len(shape.plan) for shape in found] == [2, 1]
    assert found[1].uses == 2
    assert memory.examples("Brew some coffee", TOOLS) == []
    changed = {**TOOLS, "send_mail": Definition("send_mail", hash="m2")}
    assert [len(shape.plan) for shape in memory.examples("Send a mail to the user Bob", changed)] == [1]


def test_a_shape_can_become_a_tool_of_its_own(memory: PlanMemory) -> None:
    shape = shape_of(wish("Ann", "hello"), TOOLS)
    memory.remember(shape)
    tool = memory.promote(shape.key, "mail_user", "Mail a user by name")
    assert (tool.name, tool.input_schema["properties"]) == (
        "mail_user",
        {"name": {"type": "string"}, "text": {"type": "string"}},
    )
    assert memory.shapes()[0].name == "mail_user"
    other = shape_of(plan(step("1", "find_user", {"name": "x"})), TOOLS)
    memory.remember(other)
    for key, name in ((other.key, "mail_user"), (other.key, "no name"), ("nothing", "fine")):
        with pytest.raises(BadRequest):
            memory.promote(key, name, "")
