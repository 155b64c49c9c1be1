"""How close the executor comes to the critical path, beside one call after another.

    python tests/benchmarks/planning/executor.py [--rounds 3] [--seed 1] [--writes]

Random DAGs of 2 to 64 steps whose calls take 50 to 200 ms, journalled to a real file. ``over`` is wall
time beyond 1.05 times the critical path, per step; the bar is 2 ms. ``sequential`` makes the same calls
one after another and journals nothing, as a model does that waits for each result (ReAct). With
``--writes`` the tool may change something: then every call waits until its intent is on the disk.
``flush`` is what one durable write of this disk takes, measured before.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from router.calling import Call
from router.check import order
from router.consent import Consent
from router.cost import critical_path
from router.executor import Executor
from router.facts import Facts
from router.journal.journal import Journal
from router.limits import Limits
from router.plan import Definition, Plan, Ref, Step
from router.running import Options
from router.runs import RunStatus

SIZES: Final = (2, 4, 8, 16, 32, 64)
BAR: Final = 0.002
SCHEMA: Final = {"type": "object", "properties": {"seconds": {"type": "number"}, "after": {"type": "array"}}}
SLEEP: Final = Facts(
    Definition("sleep", input_schema=SCHEMA, hash="1", server="bench"),
    read_only=True,
    open_world=False,
    trusted=True,
)

WRITE: Final = replace(SLEEP, read_only=False)


def random_plan(size: int, chance: random.Random) -> Plan:
    """A DAG whose steps use the results of up to three earlier ones."""
    steps: list[Step] = []
    for number in range(size):
        needs = chance.sample(steps, min(len(steps), chance.choice((0, 1, 1, 2, 3))))
        arguments = {
            "seconds": chance.uniform(0.05, 0.2),
            "after": [Ref(need.id, "slept") for need in needs],
        }
        steps.append(Step(str(number), "sleep", arguments, tuple(need.id for need in needs)))
    return Plan(tuple(steps), "sleep")


async def sleep(call: Call) -> bytes:
    """The tool: it takes as long as it is told to."""
    await asyncio.sleep(call.arguments["seconds"])
    return b'{"content":[],"structuredContent":{"slept":%f}}' % call.arguments["seconds"]


async def sequential(plan: Plan) -> float:
    """Seconds that the calls take one after another."""
    started = time.perf_counter()
    for wave in order(plan):
        for step in wave:
            await sleep(Call("sleep", step.arguments, "", step.id, 1, 60))
    return time.perf_counter() - started


def flush_seconds(folder: Path) -> float:
    """Seconds that the disk takes to make a page durable: the median of twenty."""
    took = []
    with (folder / "flush").open("wb") as file:
        for _ in range(20):
            started = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - started)
    return statistics.median(took)


async def measured(executor: Executor, plan: Plan) -> tuple[float, float]:
    """Seconds that a run takes, and how many of them this process computes; its journal included."""
    started, busy = time.perf_counter(), time.process_time()
    outcome = await executor.run(plan, Options(consent=Consent.ALL))
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    assert outcome.status is RunStatus.DONE, outcome
    return seconds, busy


async def main(rounds: int, seed: int, writes: bool) -> bool:
    chance = random.Random(seed)
    kept = True
    with tempfile.TemporaryDirectory() as folder:
        print(f"flush {flush_seconds(Path(folder)) * 1000:.1f} ms")
        print("steps  critical s  wall s  sequential s  speedup  over ms/step  cpu ms/step")
        async with Journal(Path(folder) / "runs.db") as journal:
            executor = Executor(
                journal,
                sleep,
                {"sleep": WRITE if writes else SLEEP}.get,
                limits=Limits(total=64, per_server=64),
            )
            await measured(executor, random_plan(2, chance))  # imports and the first schema
            for size in SIZES:
                rows = []
                for _ in range(rounds):
                    plan = random_plan(size, chance)
                    path = critical_path(plan, {s.id: s.arguments["seconds"] for s in plan.steps}).seconds
                    rows.append((path, *await measured(executor, plan), await sequential(plan)))
                path, wall, busy, one = (statistics.mean(column) for column in zip(*rows, strict=True))
                over = max((w - 1.05 * p) / size for p, w, _, _ in rows)
                kept = kept and over <= BAR
                print(
                    f"{size:5}  {path:10.3f}  {wall:6.3f}  {one:12.3f}  {one / wall:6.1f}x  {over * 1000:12.2f}  {busy * 1000 / size:11.2f}"
                )
    print(
        "kept: "
        + ("yes" if kept else "no")
        + " (wall <= 1.05 x critical path + 2 ms a step, worst of each size)"
    )
    return kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--writes", action="store_true", help="calls that may change something")
    given = parser.parse_args()
    raise SystemExit(0 if asyncio.run(main(given.rounds, given.seed, given.writes)) else 1)
