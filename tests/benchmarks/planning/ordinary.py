"""Measure planning as a person meets it: ``python -m tests.benchmarks.planning.ordinary [--cache DIR] [-v]``.

``ordinary.jsonl`` holds requests in plain words, to services that are shipped and to nothing that there is. Each is
searched for among all tools of the services, and planned over what is found. A plan is ``right`` where it
calls tools that would do, with the values that were said, and nothing else; ``open`` where a value is asked for;
``declined`` where it is empty; and ``wrong`` otherwise.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.planning.planners import DOORS, plan_plainly
from registry import document
from registry.search.engine import Searcher
from registry.search.index import ToolIndex
from router.ground import ground
from router.plan import Ask, Definition, Plan
from router.planner.rules.planner import RulesPlanner
from router.planner.rules.weights import weights
from servers.host.listing import listed
from servers.manifest import files, shipped

REQUESTS: Final = Path(__file__).with_name("ordinary.jsonl")
SERVICES: Final = (
    "base58", "cron-descriptor", "emoji", "haversine", "humanize", "inflection", "jellyfish", "markdownify",
    "nanoid", "natsort", "python-slugify", "segno", "semver", "shortuuid", "tabulate", "titlecase", "validators",
    "w3lib", "webcolors", "xmltodict", "zxcvbn",
)  # fmt: skip
Tools = dict[tuple[str, str], Definition]


def catalog(services: Sequence[str], cache: Path | None) -> tuple[Searcher, Tools, Any]:
    """Search over the tools of services, the tools, and closeness in meaning where there is a cache."""
    encoder = similar = vectors = None
    if cache is not None:
        from registry.embed.prepare import prepare
        from registry.vector.index import VectorIndex
        from router.planner.rules.meaning import similarity

        encoder = prepare(cache, say=print)
        similar, vectors = similarity(encoder), VectorIndex(encoder.dimension)
    index, tools, documents = ToolIndex(vectors), {}, []
    for service in services:
        for value in listed(files.read(shipped.locate(service))):
            documents.append(document.read(service, json.dumps(value).encode()))
            index.put(documents[-1])
            made = {**value, "name": f"{service}__{value['name']}"}
            tools[service, value["name"]] = Definition.of(made, server=service, hash="-")
    if encoder is not None:
        from registry.search.service import embed

        keys = [(found.server, found.hash) for found in documents]
        index.put_vectors(dict(zip(keys, embed(encoder, documents), strict=True)))
    return Searcher(index, encoder), tools, similar


def judge(plan: Plan, wanted: Sequence[Mapping[str, Any]]) -> str:
    """``right``, ``open``, ``declined`` or ``wrong``."""
    if not plan.steps:
        return "declined"
    left = [(step.tool.partition("__")[2], list(step.arguments.values())) for step in plan.steps]
    for want in wanted:
        done = [call for call in left if call[0] in want["tools"] and _has(call[1], want["values"])]
        if not done:
            asks = any(isinstance(value, Ask) for _, values in left for value in values)
            return "open" if asks and len(left) == len(wanted) else "wrong"
        left.remove(done[0])
    return "wrong" if left else "right"


def _has(values: Sequence[Any], wanted: Sequence[Any]) -> bool:
    return all(any(value in (want, [want]) or str(want) == str(value) for value in values) for want in wanted)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure planning over the shipped services.")
    parser.add_argument("--cache", type=Path, help="where the encoder was exported to; words alone without")
    parser.add_argument("-v", "--verbose", action="store_true", help="show each plan that is not right")
    chosen = parser.parse_args(arguments)
    searcher, tools, similar = catalog(SERVICES, chosen.cache)
    planner = RulesPlanner(weights(), similar)
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for line in REQUESTS.read_text("utf-8").splitlines():
        case = json.loads(line)
        found = ground(case["request"], searcher.find).candidates
        candidates = [tools[f.tool[:2]] for f in found if f.tool[1] not in DOORS]
        plan = plan_plainly(planner, case["request"], candidates)
        kind = judge(plan, case["steps"])
        counts[bool(case["steps"])][kind] += 1
        if chosen.verbose and kind != ("right" if case["steps"] else "declined"):
            print(
                f"{kind:8}  {case['request']}\n"
                + "".join(f"          {s.tool} {s.arguments}\n" for s in plan.steps)
            )
    for fits, counted in counts.items():
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(counted.items()))
        print(f"{'a tool fits' if fits else 'none fits'}: {told}")


if __name__ == "__main__":
    main()
