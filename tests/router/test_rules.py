"""Planning without a model: what is read in a request, and the plans that come of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.check import problems
from router.errors import BadRequest
from router.plan import Ask, Definition, Plan, Ref
from router.planner.rules.moments import form_of, moments
from router.planner.rules.numerals import spelled
from router.planner.rules.planner import RulesPlanner
from router.planner.rules.reading import read
from router.planner.rules.trees import LEAF, Trees
from router.planner.rules.weights import weights


def tool(name: str, description: str, required: str = "", **properties: Any) -> Definition:
    return Definition.of(
        {
            "name": name,
            "description": description,
            "inputSchema": {"type": "object", "properties": properties, "required": required.split()},
        }
    )


def text(description: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


WEATHER = tool(
    "get_weather",
    "Get the weather forecast of a city",
    "city",
    city=text("The city, e.g. Oslo"),
    unit={"type": "string", "enum": ["celsius", "fahrenheit"]},
)
MAIL = tool(
    "send_email",
    "Send an email to a person",
    "to subject",
    to=text("Email address of the recipient"),
    subject=text("Subject of the email"),
)
LOAN = tool(
    "loan_payment",
    "Calculate the monthly payment of a loan",
    "amount years",
    amount={"type": "number", "description": "The loan amount in dollars"},
    years={"type": "integer", "description": "The term of the loan in years"},
)
FIND = Definition.of(
    {
        "name": "create_order",
        "description": "Create an order for a product",
        "inputSchema": {
            "type": "object",
            "properties": {"product": text("Name of the product to order")},
            "required": ["product"],
        },
        "outputSchema": {
            "type": "object",
            "properties": {"order_id": text("The id of the order"), "total": {"type": "number"}},
        },
    }
)
TRACK = tool(
    "track_order", "Track the delivery of an order", "order_id", order_id=text("The id of the order")
)
ALL = [WEATHER, MAIL, LOAN, FIND, TRACK]


@pytest.fixture(scope="module")
def planner() -> RulesPlanner:
    return RulesPlanner(weights())


def calls(plan: Plan) -> list[tuple[str, dict[str, Any]]]:
    return [(step.tool, dict(step.arguments)) for step in plan.steps]


def test_a_request_becomes_a_call_with_its_values(planner: RulesPlanner) -> None:
    plan = planner.plan("Calculate the monthly payment of a loan amount of $250,000 over 30 years", ALL)
    assert calls(plan) == [("loan_payment", {"amount": 250000, "years": 30})]


def test_two_wishes_become_two_steps_that_may_run_at_once(planner: RulesPlanner) -> None:
    plan = planner.plan(
        "Get the weather forecast of the city Lima. Then send an email to ann@example.com with the subject 'Hello'.",
        ALL,
    )
    assert [step.tool for step in plan.steps] == ["get_weather", "send_email"]
    assert plan.steps[1].arguments == {"to": "ann@example.com", "subject": "Hello"}
    assert all(not step.depends_on for step in plan.steps)


def test_a_wish_may_begin_with_the_verb_of_a_tool(planner: RulesPlanner) -> None:
    alarm = tool("sound_alarm", "Sound the storm alarm of a city", "city", city=text("The city"))
    request = "Get the weather forecast for the city of Paris, and sound the alarm of the city of London"
    plan = planner.plan(request, [WEATHER, alarm])
    assert [(step.tool, step.arguments["city"]) for step in plan.steps] == [
        ("get_weather", "Paris"),
        ("sound_alarm", "London"),
    ]


def test_a_row_of_values_for_a_parameter_that_takes_one_is_a_call_for_each(planner: RulesPlanner) -> None:
    plan = planner.plan("What is the weather forecast in Paris and London?", ALL)
    assert [c[1]["city"] for c in calls(plan)] == ["Paris", "London"]


def test_what_is_no_row_of_names_is_one_value(planner: RulesPlanner) -> None:
    plan = planner.plan("Send an email to ann@example.com with the subject 'Salt and Pepper'", ALL)
    assert [c[1]["subject"] for c in calls(plan)] == ["Salt and Pepper"]


def test_a_request_that_no_tool_fits_gets_an_empty_plan_that_says_so(planner: RulesPlanner) -> None:
    plan = planner.plan("Who painted the ceiling of the chapel?", [LOAN])
    assert plan.steps == ()
    assert plan.note


def test_a_required_value_that_nobody_gave_is_asked_for(planner: RulesPlanner) -> None:
    plan = planner.plan("Send an email to bob@example.com", ALL)
    assert [step.tool for step in plan.steps] == ["send_email"]
    assert plan.steps[0].arguments["to"] == "bob@example.com"
    assert isinstance(plan.steps[0].arguments["subject"], Ask)


def test_what_an_earlier_step_returns_is_referenced(planner: RulesPlanner) -> None:
    plan = planner.plan(
        "Create an order for the product 'Desk Lamp'. Then track the delivery using the order id it returns.",
        ALL,
    )
    assert calls(plan) == [
        ("create_order", {"product": "Desk Lamp"}),
        ("track_order", {"order_id": Ref("1", "order_id")}),
    ]
    assert plan.steps[1].depends_on == ("1",)


def test_an_empty_request_is_refused_and_no_tools_give_no_steps(planner: RulesPlanner) -> None:
    with pytest.raises(BadRequest):
        planner.plan("  ", ALL)
    assert planner.plan("Anything", []).steps == ()


@pytest.mark.parametrize(
    ("written", "kind", "form", "wanted"),
    [
        ("on March 5th, 2024", "date", "%Y-%m-%d", "2024-03-05"),
        ("on 5 March 2024", "date", "%d/%m/%Y", "05/03/2024"),
        ("2024-03-05", "date", "%m/%d/%Y", "03/05/2024"),
        ("at 7:30 pm", "time", "%H:%M", "19:30"),
        ("at noon", "time", "%H:%M:%S", "12:00:00"),
        ("12 am", "time", "%I:%M %p", "12:00 AM"),
        ("May 1st", "date", "%Y-%m-%d", None),
        ("next Friday", "relative", "%Y-%m-%d", None),
    ],
)
def test_dates_and_times_are_written_as_a_parameter_wants_them(
    written: str, kind: str, form: str, wanted: str | None
) -> None:
    (moment,) = moments(written)
    assert (moment.kind, moment.written(form)) == (kind, wanted)


def test_a_date_and_a_time_side_by_side_are_also_both() -> None:
    assert [m.kind for m in moments("March 5, 2024 at 5 pm")] == ["date", "time", "datetime"]


def test_a_form_is_read_from_the_description() -> None:
    assert form_of("Format: %Y-%m-%d %H:%M:%S") == "%Y-%m-%d %H:%M:%S"
    assert form_of("in the format YYYY-MM-DD") == "%Y-%m-%d"
    assert form_of("the day") is None


@pytest.mark.parametrize(
    ("written", "number"),
    [("twenty-five", 25), ("a dozen", 12), ("two hundred and five", 205), ("three million", 3_000_000)],
)
def test_numbers_may_be_spelled(written: str, number: int) -> None:
    assert spelled(written) == number


def test_every_kind_of_value_is_found_where_it_stands() -> None:
    request = "Mail 'Hi there' to ann@example.com about https://example.com/a, /tmp/x.csv, 20% of $1,500 in New York"
    reading = read(request)
    found = {(span.kind, span.text) for span in reading.spans}
    assert {
        ("quoted", "Hi there"),
        ("email", "ann@example.com"),
        ("url", "https://example.com/a"),
        ("path", "/tmp/x.csv"),
        ("number", "$1,500"),
        ("phrase", "New York"),
    } <= found
    assert all(request[span.start : span.end] == span.text for span in reading.spans)


def test_trees_add_up_and_the_early_ones_only_sort_out_what_is_far_behind() -> None:
    stump = ((0, 1.5, 1, 2), (LEAF, -1.0, 0, 0), (LEAF, 1.0, 0, 0))
    model = Trees(0.5, (stump,) * 4)
    assert model.margin([1.0]) == -3.5
    assert model.margin([2.0]) == 4.5
    assert [index for _, index in model.best([[1.0], [2.0], [1.0]], keep=2)] == [1, 0]


schemas = st.recursive(
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "string", "pattern": "^[A-Z]{3}$"},
            {"type": "integer", "minimum": 3},
            {"type": "number", "maximum": 10},
            {"type": "boolean"},
            {"enum": ["a", 1, None]},
            {"type": ["string", "null"]},
            {},
            {"type": "nonsense"},
            {"anyOf": [{"type": "integer"}, {"type": "string", "format": "date"}]},
            {"const": "x"},
            {"not": {}},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "minItems": 1}, inner),
        st.builds(
            lambda parts: {"type": "object", "properties": parts, "required": list(parts)},
            st.dictionaries(st.sampled_from(["name", "city", "a/b"]), inner, max_size=2),
        ),
    ),
    max_leaves=4,
)
definitions = st.builds(
    lambda name, described, parts, needed, output: Definition(
        name,
        described,
        {
            "type": "object",
            "properties": parts,
            "required": [n for n in parts if n in needed],
            "additionalProperties": False,
        },
        {"type": "object", "properties": output} if output is not None else None,
    ),
    st.sampled_from(["get_city", "send_mail", "x", "найти"]),
    st.sampled_from(["Get a city", "Send a mail to a name", "", "Compute a number (e.g. 3, 4)"]),
    st.dictionaries(st.sampled_from(["city", "name", "number", "tags", "flag", "date"]), schemas, max_size=4),
    st.sets(st.sampled_from(["city", "name", "number", "tags"])),
    st.none() | st.dictionaries(st.sampled_from(["city", "name", "number"]), schemas, max_size=2),
)
asked = st.lists(
    st.sampled_from(
        [
            "get the city of", "send a mail to", "Paris", "and", "London,", "3", "'quoted text'", ". Then", "with the name",
            "on 2024-01-05", "[1, 2]", "the result", "true", "\n", "???", "👍", "ABC", "5%", "numbers 4, 5 and 6",
        ]
    ),
    min_size=1,
    max_size=12,
).map(" ".join)  # fmt: skip


@settings(max_examples=150)
@given(asked, st.lists(definitions, max_size=4, unique_by=lambda d: d.name), st.booleans())
def test_no_plan_is_ever_invalid(request: str, tools: list[Definition], guess: bool) -> None:
    plan = RulesPlanner(weights(), guess=guess).plan(request + " x", tools)
    assert problems(plan, {tool.name: tool for tool in tools}) == []


def test_the_result_of_an_earlier_step_goes_where_the_request_says_so_and_nowhere_else(
    planner: RulesPlanner,
) -> None:
    word = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    result = {"type": "object", "properties": {"result": {"type": "string"}}, "required": ["result"]}
    tools = (
        Definition("pluralize", "Return the plural form of a word.", word, result),
        Definition("titleize", "Capitalize all the words of a string to make a title.", word, result),
    )
    said = planner.plan('Pluralize the word "category" and then titleize the result', tools)
    assert [s.arguments["word"] for s in said.steps] == ["category", Ref("1", "result")]
    named = planner.plan('Pluralize the word "category"; titleize the word "mouse"', tools)
    assert [s.arguments["word"] for s in named.steps] == ["category", "mouse"]
