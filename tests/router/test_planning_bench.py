"""The planner as a command, and the benchmark that measures it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from router import batch
from router.errors import BadRequest
from router.plan import Ask, Definition, Plan, Step
from router.planner.rules.planner import RulesPlanner
from router.planner.rules.weights import weights
from tests.benchmarks.planning import synthetic
from tests.benchmarks.planning.run import edge_f1, planned
from tests.benchmarks.planning.score import graph_valid, score, table

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
RECORD: dict[str, Any] = {
    "id": "a:1",
    "source": "a",
    "request": "The weather forecast in Oslo",
    "tools": [
        {"name": "get_weather", "description": "Get the weather forecast of a city", "inputSchema": CITY}
    ],
    "plan": [{"id": "1", "tool": "get_weather", "arguments": {"city": "Oslo"}, "depends_on": []}],
    "labels": ["tools", "args", "edges"],
}


def toolyard(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_file_of_requests_becomes_a_file_of_plans(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl"
    bad = {"id": 2, "request": "Anything", "tools": [{"description": "no name"}]}
    with gzip.open(source, "wt", encoding="utf-8") as lines:
        lines.write(json.dumps(RECORD) + "\n\n" + json.dumps(bad) + "\n")
    done = toolyard("plan", "--batch", str(source), "--out", str(out), "--words")
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, out.read_text("utf-8").splitlines())
    assert first == {"id": "a:1", "plan": RECORD["plan"]}
    assert (second["plan"], second["error"]["kind"]) == ([], "malformed_plan")


@pytest.mark.parametrize(
    ("content", "more", "says"),
    [
        ("{}", (), "is none"),
        ("nonsense", (), "not JSON"),
        (json.dumps(RECORD), ("--planner", "model"), "model"),
        (json.dumps(RECORD), ("--planner", "other"), "no planner named other"),
    ],
)
def test_what_cannot_be_planned_says_why_and_writes_nothing(
    tmp_path: Path, content: str, more: tuple[str, ...], says: str
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(content)
    done = toolyard("plan", "--batch", str(source), "--out", str(out), "--words", *more)
    assert done.returncode == 1
    assert says in done.stderr
    assert not out.exists()


def test_a_question_is_written_as_an_empty_value_and_named_beside_the_plan() -> None:
    tool = Definition("t", input_schema={"properties": {"n": {"type": "integer", "minimum": 5}}})
    line = batch.written("x", Plan((Step("1", "t", {"n": Ask("How many?")}),)), [tool])
    assert line["plan"][0]["arguments"] == {"n": 5}
    assert line["asks"] == [{"step": "1", "question": "How many?"}]


def test_a_file_that_is_no_file_of_records_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("[1]\n")
    with pytest.raises(BadRequest):
        list(batch.records(path))


def test_gold_against_itself_is_perfect_and_nothing_against_it_is_not() -> None:
    right = table([RECORD], {"a:1": RECORD["plan"]})["macro"]
    assert {right[name] for name in ("tool_exact", "arg_value_exact", "plan_exact", "schema_valid")} == {1.0}
    wrong = table([RECORD], {})["macro"]
    assert wrong["tool_exact"] == wrong["plan_exact"] == wrong["arg_value_exact"] == 0.0


def test_a_reference_is_right_where_it_names_the_same_step_under_another_id() -> None:
    def plan(first: str, second: str) -> list[dict[str, Any]]:
        return [
            {"id": first, "tool": "a", "arguments": {"x": 1}, "depends_on": []},
            {"id": second, "tool": "b", "arguments": {"y": {"$ref": first}}, "depends_on": [first]},
        ]

    record = {"plan": plan("1", "2"), "tools": [], "labels": ["tools", "args", "edges"]}
    assert score(record, plan("7", "3"))["plan_exact"] == 1.0
    assert (
        score(record, [*plan("7", "3")[:1], {"id": "3", "tool": "b", "arguments": {"y": 1}}])["plan_exact"]
        == 0.0
    )
    assert not graph_valid([{"id": "1", "tool": "a", "arguments": {"x": {"$ref": "1"}}}])


def test_composed_requests_are_consistent_and_their_edges_are_found() -> None:
    def tool(name: str, described: str, takes: dict[str, str], gives: dict[str, str]) -> dict[str, Any]:
        def properties(kinds: dict[str, str]) -> dict[str, Any]:
            return {key: {"type": kind, "description": key.replace("_", " ")} for key, kind in kinds.items()}

        return {
            "name": name,
            "description": described,
            "inputSchema": {"type": "object", "properties": properties(takes), "required": list(takes)},
            "outputSchema": {"type": "object", "properties": properties(gives)},
        }

    pool = [
        tool(
            "createOrder", "Create an order for a product", {"product": "string"}, {"order_number": "string"}
        ),
        tool(
            "trackOrder",
            "Track the delivery of an order",
            {"order_number": "string"},
            {"courier_phone": "string"},
        ),
        tool("callCourier", "Call a courier by phone", {"courier_phone": "string"}, {"answer": "string"}),
        tool(
            "getWeather", "Get the weather forecast of a city", {"city": "string"}, {"temperature": "number"}
        ),
        tool(
            "bookTable", "Book a table in a restaurant", {"restaurant": "string"}, {"table_number": "integer"}
        ),
        tool(
            "translateText", "Translate a text to a language", {"text": "string"}, {"translation": "string"}
        ),
    ]
    records = synthetic.requests(pool, 40)
    for record in records:
        assert {step["tool"] for step in record["plan"]} <= {t["name"] for t in record["tools"]}
        assert graph_valid(record["plan"])
    plans, _ = planned(RulesPlanner(weights(), guess=True), records)
    assert edge_f1(records, plans) >= 0.6
