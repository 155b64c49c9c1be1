"""The rest of a plan after a failure, by a planner that takes requests."""

from __future__ import annotations

from collections.abc import Sequence

from router.plan import Ask, Definition, Plan, Ref, Step
from router.planner.again import plan_again
from router.planner.rules.planner import RulesPlanner
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


def test_the_rules_take_the_next_best_tool() -> None:
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = (
        Definition("get_weather", "Get the current weather in a city.", city),
        Definition("weather_report", "Get a report of the current weather in a city.", city),
    )
    planner = RulesPlanner(weights())
    first = planner.plan("What is the current weather in the city of Rome?", tools)
    (step,) = first.steps
    broken = (Broken(step.id, step.tool, "timeout"),)
    second = plan_again(planner.plan, Situation(first.request, first, (), broken, tools))
    assert second is not None
    (other,) = second.steps
    assert {step.tool, other.tool} == {"get_weather", "weather_report"}
    assert other.arguments == step.arguments == {"city": "Rome"}
    assert other.id != step.id
