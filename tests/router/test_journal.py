"""What is in the journal was on disk before anything relied on it, and nobody but the owner writes it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_parts import Gate, Town, answering, house, plan, step

from router.errors import JournalDamaged, JournalError, JournalNewer, RunLost, UnknownRun
from router.journal.database import Database
from router.journal.journal import Journal
from router.journal.records import Change, Records
from router.runs import Event, Failure, Run, RunStatus, StepState, StepStatus, Stored, new_run_id

pytestmark = pytest.mark.anyio


def run_of(owner: str = "me", **fields: object) -> Run:
    now = time.time()
    made = Run(
        new_run_id(),
        "do \U0001f600 it",
        {"plan": []},
        {},
        RunStatus.RUNNING,
        "",
        0,
        now,
        now,
        None,
        owner,
        1,
        now + 60,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def state(id_: str = "1", **fields: object) -> StepState:
    return replace(StepState(id_, "tool"), **fields)  # type: ignore[arg-type]


async def test_what_is_written_is_read_back_as_it_was(tmp_path: Path) -> None:
    run = run_of()
    written = state(
        status=StepStatus.DONE,
        attempts=2,
        result=Stored("1/2", 3, b"\x00{}"),
        failure=Failure("timeout", "late", True, said="hm"),
    )
    event = Event(1, 5.0, "done", "1", detail={"size": 3})
    async with Journal(tmp_path / "runs.db") as journal:
        await journal.write(
            Change(run.id, 1, run, states=[written], events=[event], results=[("1/2", b"x" * 99)])
        )
        assert (await journal.read(lambda r: r.run(run.id))).request == run.request
        assert await journal.read(lambda r: r.steps(run.id)) == {"1": written}
        assert await journal.read(lambda r: r.events(run.id)) == [event]
        assert await journal.read(lambda r: r.result(run.id, "1/2")) == b"x" * 99
    assert stat.S_IMODE(os.stat(tmp_path / "runs.db").st_mode) == 0o600


async def test_an_earlier_owner_can_write_nothing_more(tmp_path: Path) -> None:
    run = run_of()
    async with Journal(tmp_path / "runs.db") as first, Journal(tmp_path / "runs.db") as second:
        await first.write(Change(run.id, 1, run))
        claimed = await second.claim(run.id)
        assert claimed.epoch == 2
        with pytest.raises(RunLost):
            await first.write(Change(run.id, 1, states=[state()]))
        await second.write(Change(run.id, 2, states=[state()]))


async def test_where_others_may_run_it_a_run_is_taken_only_when_its_lease_is_over(tmp_path: Path) -> None:
    alive, dead = run_of("other"), run_of("other", lease=time.time() - 1)
    async with Journal(tmp_path / "runs.db", exclusive=False) as journal:
        for run in (alive, dead):
            await journal.write(Change(run.id, 1, run, {"lease": run.lease}))
        with sqlite3.connect(tmp_path / "runs.db") as raw:
            raw.execute("UPDATE runs SET lease = ? WHERE id = ?", (dead.lease, dead.id))
        assert await journal.orphans() == [dead.id]
        with pytest.raises(RunLost):
            await journal.claim(alive.id)
        assert (await journal.claim(dead.id)).owner == journal.owner


async def test_parallel_changes_share_one_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []
    apply = Records.apply

    def counted(self: Records, changes: list[Change], **rest: float) -> object:
        groups.append(len(changes))
        return apply(self, changes, **rest)

    monkeypatch.setattr(Records, "apply", counted)
    run = run_of()
    async with Journal(tmp_path / "runs.db") as journal:
        await journal.write(Change(run.id, 1, run))
        await asyncio.gather(*(journal.write(Change(run.id, 1, states=[state(str(i))])) for i in range(200)))
        assert len(await journal.read(lambda r: r.steps(run.id))) == 200
    assert len(groups) <= 3


async def test_after_a_change_that_could_not_be_written_none_of_the_run_is(tmp_path: Path) -> None:
    run, other = run_of(), run_of()
    async with Journal(tmp_path / "runs.db") as journal:
        await journal.write(Change(run.id, 1, run))
        await journal.write(Change(other.id, 1, other))
        twice = [Event(1, 0.0, "a"), Event(1, 0.0, "b")]
        with pytest.raises(JournalError):
            await journal.write(Change(run.id, 1, events=twice))
        with pytest.raises(JournalError):
            await journal.write(Change(run.id, 1, states=[state()]))
        await journal.write(Change(other.id, 1, states=[state()]))
        assert await journal.read(lambda r: r.steps(run.id)) == {}


async def test_a_run_whose_journal_fails_gives_up_its_calls(tmp_path: Path) -> None:
    town, gate = Town(), Gate()
    town.tool("slow", gate.body, read=True)
    town.tool("quick", answering({}), read=True)
    async with house(tmp_path, town) as executor:
        task = asyncio.create_task(executor.run(plan(step("1", "slow"), step("2", "quick"))))
        await gate.entered.wait()
        (run,) = executor.running
        await executor.journal.read(lambda records: records.claim(run, "thief", now=0, lease=0, force=True))
        gate.open.set()
        with pytest.raises(RunLost):
            await task
        assert executor.running == []


async def test_a_journal_of_a_later_version_or_of_something_else_is_not_touched(tmp_path: Path) -> None:
    later, other = tmp_path / "later.db", tmp_path / "other.db"
    Database.open(later).close()
    with sqlite3.connect(later) as raw:
        raw.execute("UPDATE journal_version SET version = 99")
    with pytest.raises(JournalNewer):
        Database.open(later)
    other.write_bytes(b"no database" * 1000)
    with pytest.raises(JournalError):
        Database.open(other)
    with pytest.raises(JournalError):
        Database.open(tmp_path / "none.db", readonly=True)
    assert not (tmp_path / "none.db").exists()


async def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    run = run_of()
    async with Journal(tmp_path / "runs.db") as journal:
        await journal.write(Change(run.id, 1, run, states=[state()]))
        with sqlite3.connect(tmp_path / "runs.db") as raw:
            raw.execute("UPDATE steps SET state = ?", (b"{nonsense",))
        with pytest.raises(JournalDamaged):
            await journal.read(lambda records: records.steps(run.id))
        with pytest.raises(UnknownRun):
            await journal.read(lambda records: records.run("nothing"))


async def test_only_runs_that_have_ended_are_forgotten(tmp_path: Path) -> None:
    ended = [run_of(status=RunStatus.DONE, created_at=float(i)) for i in range(5)]
    going = run_of(created_at=0.0)
    async with Journal(tmp_path / "runs.db") as journal:
        for run in (*ended, going):
            await journal.write(Change(run.id, 1, run, states=[state()], results=[("h", b"x")]))
        assert await journal.read(lambda r: r.prune(before=0, keep=2)) == 3
        left = {run.id for run in await journal.read(lambda r: r.runs())}
        assert left == {ended[3].id, ended[4].id, going.id}
        with pytest.raises(UnknownRun):
            await journal.read(lambda r: r.result(ended[0].id, "h"))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30), st.integers(0, 30))
async def test_what_is_durable_is_always_a_beginning_of_what_was_written(
    tmp_path: Path, changes: list[tuple[int, bool]], fail_at: int
) -> None:
    """Whatever fails on the way, no change of a run is found without all those before it."""
    runs = [run_of() for _ in range(4)]
    async with Journal(tmp_path / f"{new_run_id()}.db") as journal:
        for run in runs:
            await journal.write(Change(run.id, 1, run))
        seq = dict.fromkeys(range(4), 0)
        waiting = []
        for number, (which, wait) in enumerate(changes):
            seq[which] += 1
            event = Event(seq[which], 0.0, str(number))
            broken = [event, event] if number == fail_at else [event]
            waiting.append(journal.write(Change(runs[which].id, 1, events=broken)))
            if wait:
                await asyncio.wait([waiting[-1]])
        await asyncio.gather(*waiting, return_exceptions=True)
        for run in runs:
            found = [event.seq for event in await journal.read(lambda r, run=run: r.events(run.id))]
            assert found == list(range(1, len(found) + 1))
