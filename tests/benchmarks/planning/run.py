"""Measure the planner: ``python -m tests.benchmarks.planning.run GOLD.jsonl[.gz] …``.

GOLD holds requests with tools and gold plans. Printed is every measure by source, by number of steps
and as ``macro``, the mean of the sources; then the CPU time of a request. ``--pred`` scores plans that
`toolyard plan --batch` wrote; otherwise every request is planned here. ``--pool TOOLS.jsonl[.gz]`` adds
the synthetic test of references between steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from router import batch
from router.planner.base import Planner
from router.planner.rules.planner import RulesPlanner
from router.planner.rules.weights import weights
from tests.benchmarks.planning import synthetic
from tests.benchmarks.planning.score import edges, printed, table


def planned(planner: Planner, records: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[float]]:
    """Plans by id, and the CPU seconds that each took."""
    plans, seconds = {}, []
    for record in records:
        start = time.process_time()
        answer = batch.run(planner, record)
        seconds.append(time.process_time() - start)
        plans[record["id"]] = answer["plan"]
    return plans, seconds


def edge_f1(records: Sequence[dict[str, Any]], plans: dict[str, Any]) -> float:
    """F1 of the edges of synthetic requests, whose tools are different in every step."""
    shared = wanted = got = 0
    for record in records:
        names = [
            {step["id"]: step["tool"] for step in plan} for plan in (record["plan"], plans[record["id"]])
        ]
        gold = {(names[0][a], names[0][b]) for a, b in edges(record["plan"])}
        found = {(names[1][a], names[1][b]) for a, b in edges(plans[record["id"]])}
        shared, wanted, got = shared + len(gold & found), wanted + len(gold), got + len(found)
    return 2 * shared / (wanted + got) if wanted + got else 1.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the planner.")
    parser.add_argument("gold", type=Path, nargs="*")
    parser.add_argument("--pred", type=Path, help="plans to score, instead of planning")
    parser.add_argument("--cache", type=Path, help="where the encoder was exported to; words alone without")
    parser.add_argument("--pool", type=Path, help="tools with output schemas, for the synthetic test")
    parser.add_argument("--json", type=Path, help="where to write the table as JSON")
    chosen = parser.parse_args(arguments)
    gold = [record for path in chosen.gold for record in batch.records(path)]
    similar = None
    if chosen.cache is not None:
        from router.planner.rules.meaning import by_encoder

        similar = by_encoder(chosen.cache, print)
    planner = RulesPlanner(weights(), similar, guess=True)
    if gold:
        if chosen.pred is not None:
            plans = {
                line["id"]: line["plan"]
                for line in map(json.loads, chosen.pred.read_text("utf-8").splitlines())
            }
            seconds: list[float] = []
        else:
            plans, seconds = planned(planner, gold)
        found = table(gold, plans)
        print(printed(found))
        if seconds:
            ranked = sorted(seconds)
            print(
                f"CPU a request: mean {1000 * statistics.mean(ranked):.1f} ms, "
                f"median {1000 * statistics.median(ranked):.1f} ms, p95 {1000 * ranked[int(0.95 * len(ranked))]:.1f} ms"
            )
        if chosen.json is not None:
            chosen.json.write_text(json.dumps(found, indent=1))
    if chosen.pool is not None:
        composed = synthetic.requests(list(batch.lines(chosen.pool)), 500)
        plans, _ = planned(planner, composed)
        tools_right = sum(
            sorted(s["tool"] for s in r["plan"]) == sorted(s["tool"] for s in plans[r["id"]])
            for r in composed
        )
        print(
            f"synthetic: {len(composed)} requests, tools exact {tools_right / len(composed):.3f}, "
            f"edge F1 {edge_f1(composed, plans):.3f}"
        )


if __name__ == "__main__":
    main()
