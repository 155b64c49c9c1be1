"""Choose the thresholds of the planner without a model: ``python -m tests.benchmarks.planning.thresholds TRAIN``.

By cross-validation over sources: the weights are learned anew without some sources, and thresholds are
judged on requests of those sources alone, so that they hold for requests of a new kind. Judged is the
mean of five measures over their bars: tools, values and whole plans right, whole plans of two and more
steps, and refusals; a measure at twice its bar counts no more.
Requests to refuse are those of the sources, and requests whose tools were taken away.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from router import batch
from router.planner.rules import fill, planner
from router.planner.rules.meaning import by_encoder
from router.planner.rules.practice import refusals
from router.planner.rules.train import encoder, learn
from router.planner.rules.weights import Weights, read_weights
from tests.benchmarks.planning.run import planned
from tests.benchmarks.planning.score import table

FOLDS: Final = (
    ("bfcl_v4",),
    ("hammerbench",),
    ("seal_tools",),
    ("api_bank", "toolalpaca", "gnn4plan_ultratool", "gnn4plan_tmdb"),
)
BARS: Final = {
    "tool_exact": 0.60,
    "arg_value_exact": 0.45,
    "plan_exact": 0.25,
    "steps=2+": 0.10,
    "refused": 0.75,
}
GRID: Final[dict[str, tuple[Any, tuple[float, ...]]]] = {
    "REFUSE": (planner, (0.4, 0.44, 0.48, 0.52)),
    "CALL": (planner, (0.3, 0.35, 0.4, 0.5)),
    "SPLIT": (planner, (0.25, 0.35, 0.45, 0.6)),
    "OPTIONAL": (fill, (0.06, 0.1, 0.15, 0.2)),
}
"""In this order: each is chosen with the ones before it as chosen and the others as shipped."""


def sample(records: Sequence[dict[str, Any]], each: int) -> list[dict[str, Any]]:
    """At most ``each`` requests of every source."""
    by_source: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        by_source[record["source"]].append(record)
    chance = random.Random(3)
    return [r for part in by_source.values() for r in chance.sample(part, min(each, len(part)))]


def judged(
    folds: Sequence[tuple[Weights, list[dict[str, Any]], list[dict[str, Any]]]], similar: Any
) -> dict[str, float]:
    """The measures over the folds, each planned with weights that never saw its sources."""
    gold: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    plans: dict[str, Any] = {}
    for weights, records, others in folds:
        found, _ = planned(planner.RulesPlanner(weights, similar, guess=True), [*records, *others])
        plans |= found
        gold += records
        refused += others + [record for record in records if not record["plan"]]
    rows, declined = table(gold, plans), table(refused, plans)
    out = {name: rows["macro"][name] for name in ("tool_exact", "arg_value_exact", "plan_exact")}
    return out | {"steps=2+": rows["steps=2+"]["plan_exact"], "refused": declined["macro"]["refused"]}


def worth(measures: dict[str, float]) -> float:
    """The mean of the measures over their bars."""
    return sum(min(2.0, measures[name] / bar) for name, bar in BARS.items()) / len(BARS)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Choose thresholds by cross-validation over sources.")
    parser.add_argument("train", type=Path)
    parser.add_argument("--cache", type=Path, required=True, help="where the encoder was exported to")
    parser.add_argument("--leave-out", action="append", default=[], metavar="SOURCE")
    parser.add_argument("--each", type=int, default=100, help="requests of each source that are planned")
    parser.add_argument("--keep", type=Path, help="a folder for the weights of the folds; reused where there")
    parser.add_argument("--folds", type=int, default=len(FOLDS), help="how many of the folds are used")
    chosen = parser.parse_args(arguments)
    records = [r for r in batch.records(chosen.train) if r["source"] not in chosen.leave_out]
    folds = []
    learned = [chosen.keep / f"fold{n}.json.gz" for n in range(chosen.folds)] if chosen.keep else []
    ready = learned and all(path.exists() for path in learned)
    similar = by_encoder(chosen.cache, print) if ready else encoder(chosen.cache, records)
    for number, sources in enumerate(FOLDS[: chosen.folds]):
        kept = chosen.keep / f"fold{number}.json.gz" if chosen.keep else None
        if kept is None or not kept.exists():
            found = learn([r for r in records if r["source"] not in sources], similar, print)
            data = gzip.compress(json.dumps(found).encode())
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(data)
        else:
            data = kept.read_bytes()
        mine = sample([r for r in records if r["source"] in sources], chosen.each)
        others = [{**r, "id": f"{r['id']}#none"} for r in refusals(mine, 0.5, seed=4)]
        folds.append((read_weights(data), mine, others))
        print(
            f"fold {number}: {', '.join(sources)}; {len(mine)} requests, {len(others)} to refuse", flush=True
        )
    for name, (module, values) in GRID.items():
        best = (-1.0, getattr(module, name))
        for value in values:
            setattr(module, name, value)
            measures = judged(folds, similar)
            row = "  ".join(f"{key} {measure:.3f}" for key, measure in measures.items())
            print(f"{name} {value:<5} {worth(measures):.4f}  {row}", flush=True)
            best = max(best, (worth(measures), value))
        setattr(module, name, best[1])
        print(f"{name} = {best[1]}", flush=True)


if __name__ == "__main__":
    main()
