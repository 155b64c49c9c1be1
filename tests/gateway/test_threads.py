"""Blocking work beside the loop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from gateway.threads import daemon_stream

pytestmark = pytest.mark.anyio


async def test_pieces_come_as_they_are_made_and_an_error_where_it_happened() -> None:
    go = threading.Event()

    def work() -> Iterator[int]:
        yield 1
        assert go.wait(20)
        yield 2
        raise KeyError("three")

    pieces = daemon_stream(work, "pieces")
    assert await anext(pieces) == 1  # though the second is not made yet
    go.set()
    assert await anext(pieces) == 2
    with pytest.raises(KeyError, match="three"):
        await anext(pieces)


async def test_work_that_nobody_reads_any_more_ends_at_its_next_piece() -> None:
    ended = threading.Event()

    def work() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            ended.set()

    async with contextlib.aclosing(daemon_stream(work, "endless")) as pieces:
        assert await anext(pieces) == 0
    assert ended.wait(20)
