"""Measures of a ranking: NDCG@10 with binary gain, recall@10, complete@10 (all tools within ten)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NAMES = ("ndcg@10", "recall@10", "complete@10", "hit@1")


def score(query: Mapping[str, Any], ranked: Sequence[str], depth: int = 10) -> dict[str, float]:
    """The measures of one query. An alternative stands for its tool; the group counts once."""
    group = {tool: number for number, tool in enumerate(query["relevant"])}
    for tool, others in (query.get("alternatives") or {}).items():
        for other in others if tool in group else ():
            group.setdefault(other, group[tool])
    total = len({group[tool] for tool in query["relevant"]})
    found: dict[int, int] = {}
    for place, tool in enumerate(dict.fromkeys(ranked), 1):
        if tool in group:
            found.setdefault(group[tool], place)
    within = [place for place in found.values() if place <= depth]
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(total, depth) + 1))
    return {
        "ndcg@10": sum(1 / math.log2(place + 1) for place in within) / ideal,
        "recall@10": len(within) / total,
        "complete@10": float(len(within) == total),
        "hit@1": float(1 in found.values()),
    }


def mean(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure, in percent."""
    kept = list(rows)
    return {name: 100 * sum(row[name] for row in kept) / len(kept) if kept else 0.0 for name in NAMES}
