"""Which steps of a plan begin while the rest of it is still being written."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from router.check import check
from router.plan import Ask, Definition, Plan, Ref, Step
from router.planner.unfolding import Unfolding

CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
OUT = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
TOOLS = {
    name: Definition.of({"name": name, "inputSchema": {**CITY, "required": ["city"]}, "outputSchema": OUT})
    for name in ("find", "tell")
}

values = st.one_of(
    st.text(max_size=3),
    st.integers(),  # no city
    st.just(Ask("Which city?")),
    st.integers(1, 4).map(lambda n: Ref(str(n), "name")),  # perhaps of a step that is none, or comes later
)


def made(number: int, tool: str, city: Any, days: Any) -> Step:
    arguments = {"city": city} if days is None else {"city": city, "days": days}
    needs = tuple({value.step: None for value in arguments.values() if isinstance(value, Ref)})
    return Step(str(number), tool, arguments, needs)


plans = st.lists(
    st.tuples(st.sampled_from(["find", "tell"]), values, st.none() | st.integers() | st.text(max_size=2)),
    max_size=5,
).map(lambda steps: [made(n, *step) for n, step in enumerate(steps, 1)])


@given(plans)
def test_what_has_begun_is_sound_and_is_how_the_whole_begins(steps: list[Step]) -> None:
    unfolding = Unfolding("do it", TOOLS)
    begun = []
    for step in steps:
        if unfolding.take(step):
            assert len(begun) == len([s for s in steps if int(s.id) < int(step.id)])  # none was passed over
            begun.append(step)
            check(Plan(tuple(begun), "do it"), TOOLS)
            assert not Plan(tuple(begun)).asks()
    whole = unfolding.whole()
    check(whole, TOOLS)
    assert [*begun, *unfolding.rest(whole)] == list(whole.steps)


def test_from_the_first_step_that_asks_the_rest_waits() -> None:
    unfolding = Unfolding("do it", TOOLS)
    steps = [made(1, "find", "Rome", None), made(2, "tell", Ask("?"), None), made(3, "find", "Oslo", None)]
    assert [unfolding.take(step) for step in steps] == [True, False, False]
    assert unfolding.rest(unfolding.whole()) == tuple(steps[1:])
