"""The store keeps tasks as they were written, finds them by status, and forgets them on time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.store import Store
from registry.tasks import TaskRecord, TaskRecords

TASK = TaskRecord("a", "server", "working", None, 1.0, 2.0, 10.0, b"")
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@pytest.fixture
def records(tmp_path: Path) -> TaskRecords:
    return TaskRecords(Store.open(tmp_path / "store.db"))


def test_a_task_is_found_by_its_id_and_replaced_by_a_later_version(records: TaskRecords) -> None:
    records.put(TASK)
    assert records.get("a") == TASK
    done = replace(TASK, status="completed", updated_at=3.0, body=b'{"content":[]}')
    records.put(done)
    assert records.get("a") == done
    assert records.get("b") is None


def test_tasks_are_found_by_status_oldest_first(records: TaskRecords) -> None:
    for ident, status, created in (("a", "working", 3.0), ("b", "failed", 1.0), ("c", "input_required", 2.0)):
        records.put(replace(TASK, ident=ident, status=status, created_at=created))
    assert [task.ident for task in records.of_status("working", "input_required")] == ["c", "a"]


def test_tasks_are_forgotten_when_their_time_is_over_and_not_before(records: TaskRecords) -> None:
    for ident, expires in (("a", 10.0), ("b", 20.0)):
        records.put(replace(TASK, ident=ident, expires_at=expires))
    assert records.expire(9.9) == 0
    assert records.expire(10.0) == 1
    assert records.get("a") is None
    assert records.get("b") is not None
    records.remove("b")
    assert records.size() == (0, 0)


def test_the_size_is_the_number_of_tasks_and_the_bytes_of_their_bodies(records: TaskRecords) -> None:
    assert records.size() == (0, 0)
    for ident, body in (("a", b"12345"), ("b", b"")):
        records.put(replace(TASK, ident=ident, body=body))
    assert records.size() == (2, 5)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> TaskRecords:
    return TaskRecords(Store.open(tmp_path_factory.mktemp("tasks") / "store.db"))


@settings(max_examples=50)
@given(
    task=st.builds(
        TaskRecord, TEXT, TEXT, TEXT, st.none() | TEXT, *[st.floats(0, 1e10)] * 3, st.binary(max_size=50)
    )
)
def test_every_record_comes_back_as_it_was(kept: TaskRecords, task: TaskRecord) -> None:
    kept.put(task)
    assert kept.get(task.ident) == task
