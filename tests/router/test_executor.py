"""What running a plan means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from run_parts import Gate, Town, answering, failing, house, plan, ref, result, step

from router.calling import Call
from router.consent import Consent
from router.errors import (
    BadRequest,
    CallFailed,
    InvalidPlan,
    ModelUnavailable,
    NotResumable,
    Unanswered,
)
from router.limits import Limits
from router.plan import Step, from_json
from router.running import Options, Party
from router.runs import RunStatus, StepStatus, Verdict

pytestmark = pytest.mark.anyio
ALL = Options(consent=Consent.ALL)
BUSY = CallFailed("It is busy.", kind="busy", unknown=False, retriable=True)
LOST = CallFailed("The connection was lost.", kind="lost_connection", retriable=True)


@pytest.fixture
def town() -> Town:
    return Town()


async def yes(*_: Any) -> Verdict:
    return Verdict.APPROVE


async def test_a_step_starts_the_moment_its_inputs_exist(tmp_path: Path, town: Town) -> None:
    slow, after = Gate(), asyncio.Event()

    async def quick_follower(call: Call) -> Any:
        after.set()
        return {}

    town.tool("slow", slow.body, read=True)
    town.tool("quick", answering({"id": 7}), read=True)
    town.tool("follow", quick_follower, read=True, trusted=True, open_world=False)
    async with house(tmp_path, town) as executor:
        steps = plan(
            step("1", "slow"),
            step("2", "quick"),
            step("3", "follow", {"of": ref("2", "id")}),
            step("4", "follow", {}, "1"),
        )
        running = asyncio.create_task(executor.run(steps))
        async with asyncio.timeout(60):
            await after.wait()
        assert not slow.open.is_set()
        assert [call.arguments for call in town.calls if call.tool == "follow"] == [{"of": 7}]
        slow.open.set()
        outcome = await running
    assert outcome.status is RunStatus.DONE
    assert town.count("follow") == 2


async def test_only_the_referenced_part_of_a_large_result_flows_on(tmp_path: Path, town: Town) -> None:
    town.tool("big", answering({"rows": [{"id": 1, "text": "x" * 300_000}]}), read=True, trusted=True)
    town.tool("use", read=True)
    async with house(tmp_path, town) as executor:
        outcome = await executor.run(plan(step("1", "big"), step("2", "use", {"id": ref("1", "rows.0.id")})))
        stored = outcome.steps["1"].result
        assert stored is not None
        assert stored.body is None
        assert stored.size > 300_000
        assert len(await executor.result(outcome.run.id, outcome.steps["1"]) or b"") == stored.size
    assert town.calls[-1].arguments == {"id": 1}


async def test_no_more_calls_are_made_at_a_time_than_a_server_and_all_may_have(
    tmp_path: Path, town: Town
) -> None:
    both = {"a": 0, "b": 0}
    most = {"a": 0, "b": 0}

    def body(server: str) -> Any:
        async def run(call: Call) -> Any:
            both[server] += 1
            most[server] = max(most[server], both[server])
            await asyncio.sleep(0)
            both[server] -= 1
            return {}

        return run

    for server in ("a", "b"):
        town.tool(f"{server}_read", body(server), server=server, read=True)
    limits = Limits(total=5, per_server=4, servers={"b": 2})
    async with house(tmp_path, town, limits=limits) as executor:
        steps = [step(f"{server}{i}", f"{server}_read") for i in range(20) for server in ("a", "b")]
        outcome = await executor.run(plan(*steps))
    assert outcome.status is RunStatus.DONE
    assert most["a"] == 4
    assert most["b"] == 2
    assert town.most <= 5


async def test_a_failed_step_takes_only_those_that_need_it_with_it(tmp_path: Path, town: Town) -> None:
    town.tool("bad", answering(result("no such city", is_error=True)), read=True)
    town.tool("good", read=True)
    async with house(tmp_path, town) as executor:
        outcome = await executor.run(
            plan(step("1", "bad"), step("2", "good", {}, "1"), step("3", "good", {}, "2"), step("4", "good"))
        )
    states = {id_: state.status for id_, state in outcome.steps.items()}
    assert states == {
        "1": StepStatus.FAILED,
        "2": StepStatus.SKIPPED,
        "3": StepStatus.SKIPPED,
        "4": StepStatus.DONE,
    }
    assert outcome.status is RunStatus.FAILED
    failure = outcome.steps["1"].failure
    assert failure is not None
    assert failure.kind == "tool_error"
    assert "city" not in failure.message
    assert failure.said == "no such city"


@pytest.mark.parametrize(("policy", "calls"), [({"read": True}, 2), ({"idempotent": True}, 2), ({}, 1)])
async def test_only_what_is_read_only_or_idempotent_is_retried(
    tmp_path: Path, town: Town, policy: dict[str, Any], calls: int
) -> None:
    town.tool("shaky", failing(BUSY), **policy)
    async with house(tmp_path, town) as executor:
        outcome = await executor.run(plan(step("1", "shaky")), ALL)
    assert town.count("shaky") == calls
    assert outcome.status is (RunStatus.DONE if calls == 2 else RunStatus.FAILED)


async def test_retries_end_when_the_servers_budget_is_spent(tmp_path: Path, town: Town) -> None:
    town.tool("down", failing(*[BUSY] * 1000), read=True)
    async with house(tmp_path, town) as executor:
        await executor.run(plan(*(step(str(i), "down") for i in range(40))))
    assert 40 < town.count("down") < 40 + 20  # a reserve of 10, and a tenth of the calls


async def test_a_write_without_an_answer_is_unknown_and_not_repeated(tmp_path: Path, town: Town) -> None:
    town.tool("pay", failing(LOST))
    town.tool("note", read=True)
    async with house(tmp_path, town) as executor:
        outcome = await executor.run(
            plan(step("1", "pay"), step("2", "note", {}, "1"), step("3", "note")), ALL
        )
        assert outcome.status is RunStatus.WAITING
        assert outcome.steps["1"].status is StepStatus.UNKNOWN
        assert outcome.steps["2"].status is StepStatus.WAITING
        assert outcome.steps["3"].status is StepStatus.DONE
        again = await executor.resume(outcome.run.id)
        assert again.status is RunStatus.WAITING
        assert town.count("pay") == 1
        assert not await executor.decide(outcome.run.id, "1", Verdict.HAPPENED, "ann")
        done = await executor.resume(outcome.run.id)
    assert done.status is RunStatus.DONE
    assert town.count("pay") == 1


async def test_leave_to_call_again_is_for_one_call(tmp_path: Path, town: Town) -> None:
    town.tool("pay", failing(LOST, LOST))
    async with house(tmp_path, town) as executor:
        outcome = await executor.run(plan(step("1", "pay")), Options(), Party(ask=yes))
        assert town.count("pay") == 1
        await executor.decide(outcome.run.id, "1", Verdict.APPROVE, "ann")
        outcome = await executor.resume(outcome.run.id)
        assert town.count("pay") == 2
        assert outcome.status is RunStatus.WAITING
        outcome = await executor.resume(outcome.run.id)
        assert town.count("pay") == 2
        await executor.decide(outcome.run.id, "1", Verdict.APPROVE, "ann")
        outcome = await executor.resume(outcome.run.id)
    assert outcome.status is RunStatus.DONE
    assert town.count("pay") == 3


async def test_a_read_is_hedged_when_asked_for_and_the_first_answer_counts(
    tmp_path: Path, town: Town
) -> None:
    gates = [Gate(), Gate()]
    left = list(gates)
    gates[1].open.set()

    async def body(call: Call) -> Any:
        return await left.pop(0).body(call)

    town.tool("read", body, read=True)
    async with house(tmp_path, town) as executor:
        outcome = await executor.run(plan(step("1", "read")), Options(hedge=0.01))
    assert outcome.status is RunStatus.DONE
    assert town.count("read") == 2
    assert gates[0].cancelled == 1


async def test_a_write_is_never_hedged(tmp_path: Path, town: Town) -> None:
    gate = Gate()
    town.tool("write", gate.body, idempotent=True)
    async with house(tmp_path, town) as executor:
        running = asyncio.create_task(
            executor.run(plan(step("1", "write")), Options(consent=Consent.ALL, hedge=0.0))
        )
        await gate.entered.wait()
        for _ in range(50):
            await asyncio.sleep(0)
        gate.open.set()
        await running
    assert town.count("write") == 1


async def test_the_same_call_of_a_pure_tool_is_made_once(tmp_path: Path, town: Town) -> None:
    town.tool("square", answering({"n": 9}), read=True, pure=True)
    town.tool("read", answering({"n": 9}), read=True)
    async with house(tmp_path, town) as executor:
        steps = plan(*(step(str(i), tool, {"n": 3}) for i, tool in enumerate(["square"] * 5 + ["read"] * 2)))
        first = await executor.run(steps)
        again = await executor.run(steps)
        town.tool("square", answering({"n": 10}), read=True, pure=True, version="2")
        await executor.run(plan(step("1", "square", {"n": 3})))
    assert first.status is again.status is RunStatus.DONE
    assert town.count("square") == 2  # once a version
    assert town.count("read") == 4
    assert all(again.steps[str(i)].cached for i in range(5))


async def test_cancelling_a_run_cancels_its_calls_and_keeps_what_there_is(tmp_path: Path, town: Town) -> None:
    read, write = Gate(), Gate()
    town.tool("read", read.body, read=True)
    town.tool("write", write.body)
    town.tool("quick", read=True)
    async with house(tmp_path, town) as executor:
        steps = plan(
            step("0", "quick"),
            step("1", "read"),
            step("2", "write"),
            step("3", "quick", {}, "1"),
            step("4", "quick", {}, "2"),
        )
        names: list[str] = []
        task = asyncio.create_task(
            executor.run(steps, ALL, Party(watch=lambda event, _: names.append(event.kind)))
        )
        await read.entered.wait()
        await write.entered.wait()
        (run,) = executor.running
        assert await executor.cancel(run) is None
        outcome = await task
        assert read.cancelled == write.cancelled == 1
        states = {id_: state.status for id_, state in outcome.steps.items()}
        assert states == {
            "0": StepStatus.DONE,
            "1": StepStatus.CANCELLED,
            "2": StepStatus.UNKNOWN,
            "3": StepStatus.CANCELLED,
            "4": StepStatus.CANCELLED,
        }
        assert outcome.status is RunStatus.CANCELLED
        assert "cancelled" in names


async def test_a_run_out_of_time_keeps_its_results_and_can_be_taken_up_again(
    tmp_path: Path, town: Town
) -> None:
    gate = Gate()
    town.tool("slow", gate.body, read=True)
    town.tool("quick", read=True)
    async with house(tmp_path, town) as executor:
        steps = plan(step("1", "quick"), step("2", "slow"), step("3", "quick", {}, "2"))
        deadline = 0.1
        while True:
            outcome = await executor.run(steps, Options(deadline=deadline))
            assert outcome.status is RunStatus.FAILED
            assert outcome.run.reason == "deadline"
            if outcome.steps["1"].status is StepStatus.DONE:
                break
            deadline *= 4  # on a slow machine the quick one was not, either
            assert deadline < 60
        before = town.count("quick")
        gate.open.set()
        outcome = await executor.resume(outcome.run.id)
        assert outcome.status is RunStatus.DONE
        assert town.count("quick") == before + 1
        with pytest.raises(NotResumable):
            await executor.resume(outcome.run.id)


async def test_a_call_that_takes_too_long_fails_in_time(tmp_path: Path, town: Town) -> None:
    town.tool("hang", Gate().body, read=True, timeout=0.02)
    async with house(tmp_path, town) as executor:
        outcome = await executor.run(plan(step("1", "hang")))
    failure = outcome.steps["1"].failure
    assert failure is not None
    assert failure.kind == "timeout"
    assert town.count("hang") == 3


async def test_what_is_not_read_only_waits_for_a_persons_word(tmp_path: Path, town: Town) -> None:
    town.tool("read", read=True)
    town.tool("write")
    async with house(tmp_path, town) as executor:
        steps = plan(step("1", "read"), step("2", "write", {"x": 1}), step("3", "read", {}, "2"))
        outcome = await executor.run(steps)
        assert outcome.status is RunStatus.WAITING
        assert town.count("write") == 0
        (waiting,) = outcome.waiting
        assert waiting.question is not None
        assert waiting.question.rules == ("consent",)
        assert '"x": 1' in waiting.question.preview
        assert not await executor.decide(outcome.run.id, "2", Verdict.APPROVE, "ann")
        outcome = await executor.resume(outcome.run.id)
        assert outcome.status is RunStatus.DONE
        assert [call.tool for call in town.calls] == ["read", "write", "read"]


async def test_a_no_fails_the_step_and_skips_what_needs_it(tmp_path: Path, town: Town) -> None:
    town.tool("write")

    async def no(*_: Any) -> Verdict:
        return Verdict.DENY

    async with house(tmp_path, town) as executor:
        outcome = await executor.run(
            plan(step("1", "write"), step("2", "write", {}, "1")), Options(), Party(ask=no)
        )
    assert town.calls == []
    assert outcome.status is RunStatus.FAILED
    assert outcome.steps["2"].status is StepStatus.SKIPPED


async def test_a_word_heard_while_the_run_is_under_way_is_acted_on(tmp_path: Path, town: Town) -> None:
    gate = Gate()
    town.tool("slow", gate.body, read=True)
    town.tool("write")
    asked = asyncio.Event()
    async with house(tmp_path, town) as executor:

        def watch(event: Any, state: Any) -> None:
            if event.kind == "asked":
                asked.set()

        task = asyncio.create_task(
            executor.run(plan(step("1", "slow"), step("2", "write")), Options(), Party(watch=watch))
        )
        await asked.wait()
        await gate.entered.wait()
        (run,) = executor.running
        assert await executor.decide(run, "2", Verdict.APPROVE, "ann")
        while not town.count("write"):
            await asyncio.sleep(0)
        gate.open.set()
        outcome = await task
    assert outcome.status is RunStatus.DONE


async def test_an_approval_holds_for_exactly_what_was_shown(tmp_path: Path, town: Town) -> None:
    town.tool("write", version="1")
    async with house(tmp_path, town) as executor:
        outcome = await executor.run(plan(step("1", "write")))
        await executor.decide(outcome.run.id, "1", Verdict.APPROVE, "ann")
        town.tool("write", version="2")  # its definition changes before it is called
        outcome = await executor.resume(outcome.run.id)
    assert outcome.status is RunStatus.WAITING
    assert town.calls == []


async def test_a_plan_that_may_not_run_calls_nothing(tmp_path: Path, town: Town) -> None:
    town.tool("read", read=True, schema={"type": "object", "required": ["city"]})
    async with house(tmp_path, town) as executor:
        with pytest.raises(InvalidPlan):
            await executor.run(plan(step("1", "read")))
        with pytest.raises(InvalidPlan):
            await executor.run(plan(step("1", "nothing")))
        with pytest.raises(Unanswered):
            await executor.run(plan(step("1", "read", {"city": {"$ask": "Which city?"}})))
        with pytest.raises(BadRequest):
            await executor.run(plan(step("1", "read", {"city": "\ud800"})))
        assert await executor.journal.read(lambda records: records.runs()) == []
    assert town.calls == []


async def test_a_result_that_breaks_the_next_steps_schema_stops_there(tmp_path: Path, town: Town) -> None:
    town.tool("read", answering({"id": [1, 2]}), read=True, trusted=True)
    town.tool("use", read=True, schema={"type": "object", "properties": {"id": {"type": "string"}}})
    async with house(tmp_path, town) as executor:
        steps = plan(
            step("1", "read"),
            step("2", "use", {"id": ref("1", "id")}),
            step("3", "use", {"id": ref("1", "no")}),
        )
        outcome = await executor.run(steps)
    broken, missing = outcome.steps["2"].failure, outcome.steps["3"].failure
    assert broken is not None
    assert missing is not None
    assert (broken.kind, broken.schema_path) == ("bad_arguments", "/properties/id/type")
    assert missing.kind == "bad_path"
    assert town.count("use") == 0


async def test_a_number_that_came_as_text_goes_into_a_number(tmp_path: Path, town: Town) -> None:
    town.tool("read", answering("42"), read=True, trusted=True)
    town.tool("use", read=True, schema={"type": "object", "properties": {"n": {"type": "integer"}}})
    async with house(tmp_path, town) as executor:
        outcome = await executor.run(plan(step("1", "read"), step("2", "use", {"n": ref("1")})))
    assert outcome.status is RunStatus.DONE
    assert town.calls[-1].arguments == {"n": 42}


async def steps_of(
    *steps: dict[str, Any], then: asyncio.Event | None = None, seen: list[str]
) -> AsyncGenerator[Step, None]:
    for one in steps:
        (made,) = from_json([one]).steps
        yield made
    if then is not None:
        await then.wait()
    seen.append("decoded")


async def test_reads_start_while_the_rest_of_the_plan_is_being_made(tmp_path: Path, town: Town) -> None:
    seen: list[str] = []
    early, rest = asyncio.Event(), asyncio.Event()

    async def read(call: Call) -> Any:
        seen.append("read")
        if call.step == "2":
            early.set()
        return {"id": 1}

    async def write(call: Call) -> Any:
        seen.append("write")
        return {}

    town.tool("read", read, read=True, trusted=True)
    town.tool("write", write, idempotent=True)
    async with house(tmp_path, town) as executor:
        steps = steps_of(
            step("1", "read"),
            step("2", "read", {"id": ref("1", "id")}),
            step("3", "write"),
            then=rest,
            seen=seen,
        )
        options = Options(consent=Consent.ALL, candidates=("read", "write"))
        task = asyncio.create_task(executor.stream(steps, "do it", options))
        await early.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert seen == ["read", "read"]
        rest.set()
        outcome = await task
        assert seen == ["read", "read", "decoded", "write"]
        assert len(outcome.run.plan["plan"]) == 3
    assert outcome.status is RunStatus.DONE


@pytest.mark.parametrize(
    "last",
    [
        step("3", "unknown"),
        step("1", "read"),
        step("3", "read", {"x": ref("9")}),
        {"id": "3", "tool": "read", "arguments": {"x": {"$ask": "?"}}},
    ],
)
async def test_of_a_plan_that_turns_out_wrong_only_reads_were_made_and_they_are_kept(
    tmp_path: Path, town: Town, last: dict[str, Any]
) -> None:
    town.tool("read", read=True)
    town.tool("write")
    async with house(tmp_path, town) as executor:
        steps = steps_of(step("1", "read"), step("2", "write"), last, seen=[])
        outcome = await executor.stream(
            steps, "do it", Options(consent=Consent.ALL, candidates=("read", "write"))
        )
    assert outcome.status is RunStatus.FAILED
    assert outcome.run.reason == "invalid_plan"
    assert town.count("write") == 0
    assert outcome.steps["2"].status is StepStatus.CANCELLED


async def test_of_a_plan_that_is_never_finished_only_reads_were_made_and_it_is_not_resumed(
    tmp_path: Path, town: Town
) -> None:
    town.tool("read", read=True)
    town.tool("write")

    async def broken() -> AsyncGenerator[Step, None]:
        async for one in steps_of(step("1", "read"), step("2", "write"), seen=[]):
            yield one
        while not town.count("read"):
            await asyncio.sleep(0)
        raise ModelUnavailable("It went away.")

    async with house(tmp_path, town) as executor:
        options = Options(consent=Consent.ALL, candidates=("read", "write"))
        outcome = await executor.stream(broken(), "do it", options)
        assert (outcome.status, outcome.run.reason) == (RunStatus.FAILED, "unplanned")
        assert (town.count("read"), town.count("write")) == (1, 0)
        with pytest.raises(NotResumable):
            await executor.resume(outcome.run.id)


async def test_a_run_whose_process_died_while_it_was_planned_has_failed(tmp_path: Path, town: Town) -> None:
    town.tool("read", read=True)
    never = asyncio.Event()
    async with house(tmp_path, town) as executor:
        steps = steps_of(step("1", "read"), then=never, seen=[])
        run, going = executor.start_stream(steps, "do it", Options(candidates=("read",)))
        task = asyncio.create_task(going)
        while not town.count("read"):
            await asyncio.sleep(0)
        await executor.journal.read(lambda records: records.runs())  # what is queued before it is on disk
        task.cancel()
        await asyncio.wait([task])
    async with house(tmp_path, town) as executor:
        assert await executor.orphans() == [run]
        outcome = await executor.resume(run)
        assert (outcome.status, outcome.run.reason) == (RunStatus.FAILED, "unplanned")
        assert town.count("read") == 1


async def test_what_happened_is_a_history_a_person_can_read(tmp_path: Path, town: Town) -> None:
    town.tool("shaky", failing(BUSY), read=True)
    async with house(tmp_path, town) as executor:
        outcome = await executor.run(plan(step("1", "shaky"), step("2", "shaky", {}, "1")))
        events = await executor.journal.read(lambda records: records.events(outcome.run.id))
    assert [(event.kind, event.step, event.attempt) for event in events] == [
        ("started", "", 0),
        ("calling", "1", 1),
        ("calling", "1", 2),
        ("done", "1", 2),
        ("calling", "2", 1),
        ("done", "2", 1),
        ("ended", "", 0),
    ]
    assert [event.seq for event in events] == list(range(1, 8))
