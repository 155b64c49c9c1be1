"""What a plan would do is known without calling anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_parts import Town, answering, house, plan, ref, step

from router.check import order
from router.consent import Consent
from router.cost import critical_path, estimate
from router.dryrun import dry_run
from router.limits import Limits
from router.plan import Plan, Step
from router.running import Options
from router.runs import StepStatus


def town() -> Town:
    made = Town()
    made.tool(
        "inbox",
        answering({"text": "hi"}),
        read=True,
        server="mail",
        seconds=0.5,
        output={"type": "object", "properties": {"text": {"type": "string"}}},
    )
    made.tool("tidy", read=True, open_world=False, trusted=True, seconds=2.0)
    made.tool("send", seconds=0.25, schema={"type": "object", "properties": {"n": {"type": "integer"}}})
    made.tool("new", read=True, trusted=True)
    return made


STEPS = plan(
    step("1", "inbox"),
    step("2", "tidy", {"t": ref("1", "text")}),
    step("3", "send", {"t": ref("2")}),
    step("4", "new"),
)


def test_it_says_who_would_be_asked_and_why() -> None:
    found = dry_run(STEPS, town().tools)
    assert found.problems == ()
    assert not found.unasked
    assert {s.id: s.asks for s in found.steps} == {
        "1": (),
        "2": (),
        "3": ("consent", "untrusted_to_write", "untrusted_to_network"),
        "4": (),
    }
    assert found.steps[2].flows == ("/t of send is what step 2 (tidy) returned: untrusted, from mail, town.",)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", list(Consent))
async def test_it_foresees_exactly_what_a_run_stops_at(tmp_path: Path, mode: Consent) -> None:
    made = town()
    found = dry_run(STEPS, made.tools, options=Options(consent=mode))
    assert made.calls == []
    async with house(tmp_path, made) as executor:
        outcome = await executor.run(STEPS, Options(consent=mode))
    for preview in found.steps:
        state = outcome.steps[preview.id]
        if state.status is StepStatus.APPROVAL:
            assert state.question is not None
            assert state.question.rules == preview.asks
        elif state.status is StepStatus.DONE:
            assert preview.asks == ()
            assert state.label == preview.label


def test_it_says_what_is_wrong_with_a_plan() -> None:
    wrong = plan(step("1", "inbox"), step("2", "send", {"n": ref("1", "text")}), step("3", "none"))
    kinds = [problem.kind for problem in dry_run(wrong, town().tools).problems]
    assert kinds == ["bad_arguments", "unknown_tool"]


def test_it_says_how_long_and_where_the_limits_are() -> None:
    found = dry_run(STEPS, town().tools, options=Options(deadline=1.0))
    assert found.estimate is not None
    assert found.estimate.seconds == pytest.approx(2.75)
    assert found.estimate.path.steps == ("1", "2", "3")
    assert found.estimate.guessed == ("4",)
    assert any("2.8 s" in note for note in found.notes)
    wide = plan(*(step(str(i), "inbox") for i in range(5)))
    assert any(
        "5 calls of mail" in note for note in dry_run(wide, town().tools, limits=Limits(per_server=2)).notes
    )


def test_it_lists_the_values_that_nobody_gave() -> None:
    found = dry_run(plan(step("1", "new", {"city": {"$ask": "Which city?"}})), town().tools)
    assert found.questions == (("1", "Which city?"),)


@st.composite
def dags(draw: st.DrawFn) -> tuple[Plan, dict[str, float]]:
    size = draw(st.integers(1, 12))
    steps = [
        Step(str(i), "t", {}, tuple(str(j) for j in range(i) if draw(st.booleans()))) for i in range(size)
    ]
    return Plan(tuple(steps)), {str(i): draw(st.floats(0, 10)) for i in range(size)}


@given(dags())
def test_the_critical_path_is_the_longest_chain(made: tuple[Plan, dict[str, float]]) -> None:
    steps, seconds = made
    found = critical_path(steps, seconds)

    def longest(id_: str) -> float:
        needs = next(s for s in steps.steps if s.id == id_).depends_on
        return seconds[id_] + max(map(longest, needs), default=0.0)

    assert found.seconds == pytest.approx(max(longest(s.id) for s in steps.steps))
    assert sum(seconds[id_] for id_ in found.steps) == pytest.approx(found.seconds)
    assert len(order(steps)) >= 1


def test_nothing_takes_no_time() -> None:
    assert estimate(Plan(), {}).seconds == 0.0
