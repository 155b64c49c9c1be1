"""Whatever moment a process that runs plans is killed at, nothing with side effects is done twice."""

from __future__ import annotations

from pathlib import Path

from kill_parts import campaign


def test_no_step_is_doubled_by_twenty_kills(tmp_path: Path) -> None:
    toll = campaign(tmp_path, kills=20, seed=1)
    assert toll.kills == 20
    assert toll.doubled == []
    assert toll.wrong == []
