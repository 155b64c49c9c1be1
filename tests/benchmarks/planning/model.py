"""Prove the planner that asks a model: ``python -m tests.benchmarks.planning.model RECORDS.jsonl[.gz] --model-url URL``.

Meant for a checkpoint with random weights (`tests.benchmarks.inference.random_model`, then ``toolyard infer
serve --model DIR --threads 1``): what such a model writes is noise, so that a plan can be right in form
because of the grammar alone. Every plan is parsed, checked, and followed with made-up results of the
declared shape, each step's arguments held against its schema again. Then the time from a request to its
first step is measured, one request after another, with the tools' part of the prompt computed before.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from router import batch
from router.check import check, order
from router.plan import Ask, Definition, Plan, Ref, follow, from_json, to_json
from router.planner.endpoint import Endpoint
from router.planner.model import ModelPlanner
from router.schemas import value_allowed


class NoFallback:
    """Where a plan was to be made by something else, the model has failed."""

    name = "nothing"

    def plan(self, request: str, tools: Sequence[Definition]) -> Plan:
        raise AssertionError("the model gave no plan")


def made_up(schema: Any, depth: int = 0) -> Any:
    """A value of the shape that an output schema declares: every property, one item in a list."""
    rule = schema if isinstance(schema, dict) else {}
    kind = rule.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if depth < 6 and isinstance(rule.get("properties"), dict):
        return {name: made_up(part, depth + 1) for name, part in rule["properties"].items()}
    if depth < 6 and kind == "array":
        return [made_up(rule.get("items"), depth + 1)]
    return batch.empty(
        {key: rule[key] for key in ("type", "enum", "const", "minimum", "default") if key in rule}
    )


def run(plan: Plan, tools: dict[str, Definition]) -> int:
    """Follow a plan with made-up results; the number of calls. References to what is not there raise."""
    results: dict[str, Any] = {}
    for wave in order(plan):
        for step in wave:
            arguments = _followed(dict(step.arguments), results)
            assert (
                _asks(arguments)
                or value_allowed(arguments, tools[step.tool].input_schema)
                or any(step.refs())
            )
            results[step.id] = made_up(tools[step.tool].output_schema)
    assert len(results) == len(plan.steps), "steps wait for each other"
    return len(results)


def _followed(value: Any, results: dict[str, Any]) -> Any:
    if isinstance(value, Ref):
        return follow(value, results[value.step])
    if isinstance(value, dict):
        return {key: _followed(part, results) for key, part in value.items()}
    return [_followed(part, results) for part in value] if isinstance(value, list) else value


def _asks(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, Ask) or any(map(_asks, parts))


def chosen(path: Path, pool: Path | None, count: int, most_tools: int) -> Iterator[dict[str, Any]]:
    """Records in an order of chance, with tools of the pool (which declare what they return) among theirs."""
    chance = random.Random(5)
    records = list(batch.records(path))
    others = list(batch.lines(pool)) if pool is not None else []
    chance.shuffle(records)
    for record in records[:count]:
        more = chance.sample(others, min(3, len(others)))
        yield {**record, "tools": [*record["tools"][: most_tools - len(more)], *more]}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Prove the planner that asks a model.")
    parser.add_argument("records", type=Path)
    parser.add_argument("--pool", type=Path, help="tools with output schemas, added to those of the records")
    parser.add_argument("--model-url", required=True)
    parser.add_argument("--model")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--steps", type=int, default=3, help="most steps of a plan: noise seldom ends one")
    parser.add_argument("--tools", type=int, default=10, help="most candidates of a request")
    parser.add_argument("--together", type=int, default=4, help="plans made at the same time")
    parser.add_argument("--strings", choices=("free", "copied"), default="free")
    parser.add_argument("--timed", type=int, default=30, help="requests whose first step is timed")
    parser.add_argument("--pid", type=int, help="the engine's process: its CPU time is measured too (Linux)")
    options = parser.parse_args(arguments)
    endpoint = Endpoint(options.model_url, options.model, temperature=1.0)
    planner = ModelPlanner(
        endpoint,
        NoFallback(),
        strings=options.strings,
        most_steps=options.steps,
        least_steps=1,
        seconds=120,
        say=print,
    )
    print(f"{options.model_url}: {planner.ability().value}, strings {options.strings}")
    records = list(chosen(options.records, options.pool, options.count, options.tools))

    def one(record: dict[str, Any]) -> tuple[int, int, int, str]:
        tools = batch.candidates(record["tools"])
        known = {tool.name: tool for tool in tools}
        try:
            plan = planner.plan(record["request"], tools)
            check(plan, known)
            assert from_json(to_json(plan)) == plan
            return run(plan, known), sum(1 for s in plan.steps for _ in s.refs()), len(plan.asks()), plan.note
        except Exception as error:
            return 0, 0, 0, f"FAILED {record['id']}: {type(error).__name__}: {error}"

    start = time.monotonic()
    with ThreadPoolExecutor(options.together) as pool:
        done = list(pool.map(one, records))
    failed = [note for *_, note in done if note.startswith("FAILED")]
    print(
        f"{len(done) - len(failed)} of {len(done)} plans parse, check and run in {time.monotonic() - start:.0f} s; "
        f"{sum(d[0] for d in done)} steps, {sum(d[1] for d in done)} references, {sum(d[2] for d in done)} questions, "
        f"{sum(bool(d[3]) for d in done) - len(failed)} with a note"
    )
    print("\n".join(failed[:10]))
    if options.timed:
        print(first_steps(planner, records[: options.timed], options.pid))


def first_steps(planner: ModelPlanner, records: Sequence[dict[str, Any]], pid: int | None) -> str:
    """The time from a request to its first step, with the prefix warm.

    CPU time, of this process and of an engine with one thread, is what a quiet machine would take.
    """
    planner.endpoint.temperature = 0.0
    waited, worked = [], []
    for record in records:
        tools = batch.candidates(record["tools"])
        for request in ("Something else.", record["request"]):
            with planner.endpoint.connect(time.monotonic() + 120) as connection:
                planner.endpoint.model(connection)
                start, before = time.monotonic(), _cpu(pid)
                next(iter(planner.steps(request, tools, connection)), None)
                took = time.monotonic() - start, _cpu(pid) - before
        waited.append(1000 * took[0])
        worked.append(1000 * took[1])
    lines = [("wall", waited)] + ([("CPU", worked)] if pid is not None else [])
    return "\n".join(
        f"request to first step, warm prefix, {name}: median {statistics.median(ms):.0f} ms, "
        f"p90 {sorted(ms)[int(0.9 * len(ms))]:.0f} ms, most {max(ms):.0f} ms ({len(ms)} requests)"
        for name, ms in lines
    )


def _cpu(pid: int | None) -> float:
    """CPU seconds of this process and of another."""
    if pid is None:
        return time.process_time()
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return time.process_time() + (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
