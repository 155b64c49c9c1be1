"""A plan does not depend on the order in which a process happens to keep the words of a set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SEEDS = ("0", "1", "2", "3", "4")


def in_processes(seeds: tuple[str, ...]) -> list[dict[str, Any]]:
    """What `plan_worker` prints in a process for each seed, all running at once."""
    command = [sys.executable, "-m", "tests.router.plan_worker"]
    root = Path(__file__).resolve().parents[2]
    started = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONHASHSEED": seed}
        )
        for seed in seeds
    ]
    try:
        printed = [child.communicate()[0] for child in started]
    finally:
        for child in started:
            child.kill()
            child.wait()
    assert [child.returncode for child in started] == [0] * len(seeds)
    return [json.loads(text) for text in printed]


def test_plans_and_what_is_learned_from_them_are_the_same_whatever_the_hash_seed_is() -> None:
    first, *others = in_processes(SEEDS)
    assert sum(len(plan["plan"]) for plan in first["plans"]) > 8
    assert all(rows[0] for rows in first["learned"])
    for other in others:
        assert other["plans"] == first["plans"]
        assert other["rarity"] == first["rarity"]
        assert other["learned"] == first["learned"]
