"""A watched file: every way of changing it is told, and waiting for it ends when it should."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

from gateway.config import watch
from gateway.config.watch import changes

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "servers.json"
    path.write_text("{}")
    return path


async def told(watched: AsyncGenerator[None]) -> None:
    with anyio.fail_after(60):
        await anext(watched)


def overwrite(file: Path, text: str) -> None:
    """Write in one go, which is one notice."""
    with open(file, "r+") as opened:
        opened.write(text)


async def quiet(watched: AsyncGenerator[None]) -> bool:
    """Nothing is told for longer than a change takes to be told. The generator is over afterwards."""
    with anyio.move_on_after(0.4):
        await anext(watched)
        return False
    return True


async def test_a_write_is_told_also_one_before_the_first_wait(file: Path) -> None:
    async with aclosing(changes(file)) as watched:
        file.write_text('{"a": 1}')
        await told(watched)
        overwrite(file, '{"a": 2}')
        await told(watched)
        overwrite(file, '{"a": 3}')
        await told(watched)
        assert await quiet(watched)


async def test_replacing_by_rename_deleting_and_coming_back_are_told(file: Path) -> None:
    async with aclosing(changes(file)) as watched:
        for text in ("one", "two"):
            fresh = file.with_suffix(".tmp")
            fresh.write_text(text)
            fresh.rename(file)
            await told(watched)
            assert file.read_text() == text
        file.unlink()
        await told(watched)
        file.write_text("back")
        await told(watched)


async def test_a_file_in_a_directory_that_does_not_exist_yet_is_told(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "servers.json"
    async with aclosing(changes(file)) as watched:
        file.parent.mkdir(parents=True)
        file.write_text("{}")
        await told(watched)
        file.write_text("{ }")
        await told(watched)


async def test_a_directory_that_is_deleted_and_made_anew_is_watched_again(tmp_path: Path) -> None:
    file = tmp_path / "config" / "servers.json"
    file.parent.mkdir()
    file.write_text("{}")
    async with aclosing(changes(file)) as watched:
        shutil.rmtree(file.parent)
        await told(watched)
        file.parent.mkdir()
        file.write_text("{}")
        await told(watched)
        file.write_text("{ }")
        await told(watched)


async def test_the_target_of_a_link_is_watched(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "home" / "link.json"
    link.parent.mkdir()
    link.symlink_to(file)
    async with aclosing(changes(link)) as watched:
        file.write_text('{"a": 1}')
        await told(watched)
        other = tmp_path / "other.json"
        other.write_text("other")
        fresh = link.with_suffix(".tmp")
        fresh.symlink_to(other)
        fresh.rename(link)
        await told(watched)


async def test_reading_and_neighbours_are_not_told(file: Path) -> None:
    async with aclosing(changes(file)) as watched:
        file.write_text("{ }")
        await told(watched)
        file.read_text()
        os.stat(file)
        file.with_name("neighbour.json").write_text("{}")
        assert await quiet(watched)


async def test_a_burst_is_told_a_few_times_at_most_and_its_end_is_always_told(file: Path) -> None:
    async with aclosing(changes(file)) as watched:

        def burst() -> None:
            for number in range(200):
                file.write_text(str(number))

        count, last = 0, ""
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, burst)
            while last != "199":
                await told(watched)
                last = file.read_text()
                count += 1
        assert count < 100, "of 200 writes; 3 on a machine that is not busy"


async def test_waiting_ends_at_once_when_it_is_cancelled(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RECHECK", 600.0)
    async with aclosing(changes(file)) as watched:
        file.write_text("{ }")
        await told(watched)
        with anyio.fail_after(60), anyio.move_on_after(0.05) as scope:
            await anext(watched)
        assert scope.cancelled_caught


async def test_where_the_system_cannot_watch_the_file_is_looked_at(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("watch limit reached")

    monkeypatch.setattr("watchfiles._rust_notify.RustNotify", refuse)
    monkeypatch.setattr(watch, "POLL", 0.01)
    async with aclosing(changes(file)) as watched:
        file.write_text("{ }")
        await told(watched)
        file.write_text("{  }")
        await told(watched)
    assert "the system cannot watch it (watch limit reached)" in caplog.text
