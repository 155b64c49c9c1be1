"""The rest of a plan after a failure, by a planner that takes requests."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from router.plan import Ask, Definition, Plan, Ref, Step
from router.planner.again import plan_again
from router.planner.rules.fill import fill
from router.planner.rules.planner import RulesPlanner, Thought, distinct
from router.planner.rules.reading import read
from router.planner.rules.weights import weights
from router.replan import Broken, Situation

TOOLS = tuple(Definition(name) for name in ("find", "send", "post"))
FIRST = Plan((Step("1", "find"), Step("2", "send", {"to": Ref("1", "id")}, ("1",))), "find and send")


def situation(plan: Plan = FIRST, candidates: tuple[Definition, ...] = TOOLS) -> Situation:
    return Situation(plan.request, plan, ("1",), (Broken("2", "send", "timeout"),), candidates)


class Fixed:
    """Plans whatever it was given, and remembers what it was asked with."""

    def __init__(self, *steps: Step) -> None:
        self.steps, self.given = steps, tuple[str, ...]()

    def __call__(self, request: str, tools: Sequence[Definition]) -> Plan:
        self.given = tuple(tool.name for tool in tools)
        return Plan(self.steps, request)


def test_finished_steps_stand_for_themselves_and_new_ones_get_new_ids() -> None:
    other = Fixed(Step("2", "post", {"to": Ref("1", "id")}, ("1",)), Step("1", "find"))
    made = plan_again(other, situation())
    assert other.given == ("find", "post")
    assert made is not None
    assert made.steps == (FIRST.steps[0], Step("2r", "post", {"to": Ref("1", "id")}, ("1",)))


def test_there_is_no_other_plan_where_it_would_add_nothing_or_ask() -> None:
    assert plan_again(Fixed(Step("1", "find")), situation()) is None
    assert plan_again(Fixed(Step("1", "post", {"to": Ask("Whom?")})), situation()) is None
    assert plan_again(Fixed(), situation(candidates=TOOLS[1:2])) is None
    assert plan_again(Fixed(Step("1", "post")), situation(Plan(FIRST.steps))) is None


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
ALIKE = [
    (
        "What is the current weather in the city of Rome?",
        Definition("get_weather", "Get the current weather in a city.", CITY),
        Definition("weather_report", "Get a report of the current weather in a city.", CITY),
        {"city": "Rome"},
    ),
    (
        "Show me the weather forecast for the city of Lima",
        Definition("weather_forecast", "Get the weather forecast of a city", CITY),
        Definition("city_weather_forecast", "Weather forecast for a city", CITY),
        {"city": "Lima"},
    ),
    (
        'Count the words of the text "to be or not to be"',
        Definition("count_words", "Count the words of a text", TEXT),
        Definition("word_count", "Count how many words a text has", TEXT),
        {"text": "to be or not to be"},
    ),
]


@pytest.mark.parametrize(("request_", "one", "two", "arguments"), ALIKE)
@pytest.mark.parametrize("turned", [False, True])
def test_of_two_like_tools_the_rules_call_one_and_after_its_failure_the_other(
    request_: str, one: Definition, two: Definition, arguments: dict[str, str], turned: bool
) -> None:
    tools = (two, one) if turned else (one, two)
    planner = RulesPlanner(weights())
    first = planner.plan(request_, tools)
    (step,) = first.steps
    broken = (Broken(step.id, step.tool, "timeout"),)
    second = plan_again(planner.plan, Situation(first.request, first, (), broken, tools))
    assert second is not None
    (other,) = second.steps
    assert {step.tool, other.tool} == {one.name, two.name}
    assert other.arguments == step.arguments == arguments
    assert other.id != step.id


def test_two_tools_that_each_answer_words_of_their_own_are_no_twins() -> None:
    request = "What is the weather and the air quality in the city of Rome?"
    tools = (
        Definition("get_weather", "Get the weather in a city", CITY),
        Definition("air_quality", "Get the quality of the air in a city", CITY),
    )
    reading = read(request)
    thoughts = [
        Thought(at, fill(tool, frozenset({0}), reading, weights().values), ())
        for at, tool in enumerate(tools)
    ]
    assert distinct([(0.6, thoughts[0]), (0.9, thoughts[1])], reading) == [thoughts[1], thoughts[0]]
    again = Thought(2, thoughts[0].filled, ())
    kept = distinct([(0.6, thoughts[0]), (0.5, again), (0.9, thoughts[1])], reading)
    assert kept == [thoughts[1], thoughts[0]]
