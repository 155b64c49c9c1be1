"""Sync makes the store what the server is, whatever the server does, and loses no approval."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from registry_parts import definition

from registry.definition import definition_hash
from registry.store import Store
from registry.sync import sync_server
from registry.tools import Pin, Statistics, ToolRecords, ToolRef

NAMES = st.sampled_from(["read", "write", "find", "ünï", "a b"])
TEXTS = st.sampled_from(["one", "two", "three"])


class ChangingServer(RuleBasedStateMachine):
    """A server that changes at will; after each sync the store says what it offers, and remembers the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(os.environ["TEST_SYNC_DIR"])
        self.path = self.directory / f"{time.monotonic_ns()}.db"
        self.store = Store.open(self.path)
        self.records = ToolRecords(self.store)
        self.offers: dict[str, str] = {}
        self.synced: dict[str, str] = {}
        self.ever: set[tuple[str, str]] = set()
        self.generation = 0

    def teardown(self) -> None:
        self.store.close()

    @rule(name=NAMES, text=TEXTS)
    def offer(self, name: str, text: str) -> None:
        self.offers[name] = text

    @rule(name=NAMES)
    def withdraw(self, name: str) -> None:
        self.offers.pop(name, None)

    @rule(other=TEXTS)
    def another_server_changes_nothing_here(self, other: str) -> None:
        sync_server(self.records, "other", [definition("read", other)])

    @rule()
    def sync(self) -> None:
        before, now = self.synced, self.offers
        report = sync_server(self.records, "s", [definition(n, t) for n, t in now.items()])
        assert {c.name for c in report.created} == now.keys() - before.keys()
        assert {c.name for c in report.deleted} == before.keys() - now.keys()
        assert {c.name for c in report.updated} == {
            name for name in now.keys() & before.keys() if now[name] != before[name]
        }
        assert report.unchanged == len(now) - len(report.created) - len(report.updated)
        self.synced = dict(now)
        self.ever |= set(now.items())

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store.open(self.path)
        self.records = ToolRecords(self.store)

    @invariant()
    def the_store_is_what_was_synced_last(self) -> None:
        offered = {ref.name: ref.hash for ref in self.records.current("s")}
        assert offered == {n: definition_hash(definition(n, t)) for n, t in self.synced.items()}
        bodies = {ref.name: body for ref, body in self.records.definitions() if ref.server == "s"}
        assert bodies == {n: definition(n, t) for n, t in self.synced.items()}

    @invariant()
    def every_version_is_remembered(self) -> None:
        kept = {
            (name, json.loads(version.body)["description"])
            for name in {name for name, _ in self.ever}
            for version in self.records.history("s", name)
        }
        assert kept == self.ever


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SYNC_DIR", str(tmp_path))


class TestChangingServer(ChangingServer.TestCase):  # type: ignore[misc, valid-type]  # made at run time
    settings = settings(
        max_examples=25,
        stateful_step_count=20,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def test_a_definition_that_cannot_be_read_is_named_and_the_others_are_kept(store: Store) -> None:
    bad = [
        b"nope",
        b"[]",
        b'{"name": 1}',
        b"\xff",
        b'{"name":"a"}',
        b'{"name":"a","x":1}',
        b'{"name":"\\ud800"}',
    ]
    report = sync_server(ToolRecords(store), "s", [*bad, b'{"name":"b"}'])
    assert [change.name for change in report.created] == ["a", "b"]
    assert len(report.problems) == 6
    assert "listed twice" in report.problems[4]


def test_layout_and_order_are_no_change_and_leave_the_generation_alone(store: Store) -> None:
    records = ToolRecords(store)
    sync_server(records, "s", [b'{"name":"a","description":"x"}', b'{"name":"b"}'])
    before = records.generation()
    report = sync_server(records, "s", [b'{"name":"b"}', b'{ "description":"x", "name":"a" }'])
    assert (report.unchanged, report.changes) == (2, ())
    assert records.generation() == before > 0


def test_the_hundred_that_changed_are_found_among_ten_thousand(store: Store) -> None:
    records = ToolRecords(store)
    many = [definition(f"tool_{i}", f"Does thing {i} " * 20, a={"type": "string"}) for i in range(10_000)]
    sync_server(records, "s", many)
    assert sync_server(records, "s", many).unchanged == 10_000  # how soon: tests/benchmarks/registry
    changed = [definition(f"tool_{i}", "new") for i in range(100)] + many[100:]
    report = sync_server(records, "s", changed)
    assert (len(report.updated), report.unchanged) == (100, 9_900)


def test_statistics_add_up_and_feedback_keeps_its_order(store: Store) -> None:
    records = ToolRecords(store)
    records.count([("s", "a", Statistics(2, 1, 0.5, 0.1)), ("s", "a", Statistics(1, 1, 0.25, 0.0))])
    records.count([])
    assert records.statistics() == {("s", "a"): Statistics(3, 2, 0.75, 0.1)}
    records.put_feedback([(str(n), "s", "a") for n in range(5)], now=1.0)
    assert [row[0] for row in records.feedback(limit=2)] == ["3", "4"]
    assert records.forget_feedback() == 5
    assert records.feedback() == []


def test_a_pin_outlives_its_tool_and_can_be_taken_back(store: Store) -> None:
    records = ToolRecords(store)
    report = sync_server(records, "s", [definition("a")])
    pin = Pin(ToolRef("s", "a", report.created[0].after or ""), 1.0, "first use")
    records.pin([pin])
    sync_server(records, "s", [])
    assert records.pins() == {("s", "a"): pin}
    assert records.unpin("s", "a")
    assert not records.unpin("s", "a")


WORKER = """
import sys, itertools
from registry.store import Store
from registry.sync import sync_server
from registry.tools import Pin, ToolRecords
store = Store.open(sys.argv[1])
records = ToolRecords(store)
for turn in itertools.count(int(sys.argv[2])):
    tools = [b'{"name":"t%d","description":"%d"}' % (i, turn) for i in range(30)]
    sync_server(records, "s", tools)
    print("synced", turn, flush=True)
    records.pin([Pin(ref, float(turn), "test") for ref in records.current("s")])
    print("pinned", turn, flush=True)
"""


def state(records: ToolRecords) -> tuple[Mapping[str, str], Mapping[str, str]]:
    return (
        {ref.name: ref.hash for ref in records.current("s")},
        {pin.ref.name: pin.ref.hash for pin in records.pins().values()},
    )


def version(turn: int) -> dict[str, str]:
    return {f"t{i}": definition_hash(b'{"name":"t%d","description":"%d"}' % (i, turn)) for i in range(30)}


@pytest.mark.parametrize("kills", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_any_moment_nothing_that_was_said_to_be_done_is_lost(tmp_path: Path, kills: int) -> None:
    path = tmp_path / "toolyard.db"
    Store.open(path).close()
    chance = random.Random(5)
    turn = 0
    for _ in range(kills):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), str(turn)], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        said = [worker.stdout.readline()]
        # Not a wait for anything: the moment of the kill is meant to be any.
        time.sleep(chance.uniform(0, 0.06))
        worker.send_signal(signal.SIGKILL)
        said += worker.stdout.read().splitlines()
        worker.wait(timeout=30)
        worker.stdout.close()
        done = [line.split() for line in said if len(line.split()) == 2]
        synced = max((int(t) for what, t in done if what == "synced"), default=-1)
        pinned = max((int(t) for what, t in done if what == "pinned"), default=-1)
        with Store.open(path) as store:
            tools, pins = state(ToolRecords(store))
        # What was said to be done is there; the step in progress is there as a whole or not at all.
        assert tools in (version(synced), version(synced + 1))
        if pinned >= 0:
            assert pins in (version(pinned), version(pinned + 1))
        turn = synced + 2
