"""A gateway that is ended and started anew in the middle of its clients' calls."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks/restart"))

from restarts import calls_through_restarts

pytestmark = pytest.mark.anyio


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
async def test_200_calls_of_each_era_go_through_three_restarts_and_nobody_initializes_again(
    tmp_path: Path,
) -> None:
    signals = [signal.SIGTERM, signal.SIGKILL, signal.SIGTERM]
    tallies = await calls_through_restarts(tmp_path, 200, list(signals))
    for tally in tallies.values():
        assert tally.wrong == []
        assert tally.answered >= 200
        assert tally.retriable + tally.broken <= 20, "a call or so is in flight at each restart"
