"""Requests to learn from beside those that are given: with other tools around them than theirs."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from router.plan import Definition
from router.planner.rules.choose import MAX_REQUEST_WORDS, Similar, text_of
from router.planner.rules.spans import stems_of

Record = Mapping[str, Any]
LIKE: Final = 0.6
"""The closeness from which on a tool may do what another one does."""
TWIN: Final = 0.85
"""The same where that other one is there, too, and known to be the one that is meant."""
NONE_FITS: Final = 0.4
"""Share of the requests among found tools whose own are not among them."""
FOUND: Final = (3, 9)
"""How many other tools are found, at least and at most."""
BATCH: Final = 64


def refusals(records: Sequence[Record], share: float, seed: int = 1) -> Iterator[Record]:
    """Requests whose tools were taken away: what is left, or some other tools of the source, fits none."""
    chance = random.Random(seed)
    pools: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        pools[record["source"]] += record["tools"]
    for record in records:
        if not record["plan"] or chance.random() > share:
            continue
        gold = {step["tool"] for step in record["plan"]}
        left = [tool for tool in record["tools"] if tool["name"] not in gold]
        if not left or chance.random() < 0.4:
            pool = chance.sample(pools[record["source"]], min(40, len(pools[record["source"]])))
            words = {
                word
                for tool in record["tools"]
                if tool["name"] in gold
                for word in stems_of(tool["description"])
            }
            pool = [
                tool
                for tool in pool
                if tool["name"] not in gold
                and tool["description"] not in {t["description"] for t in record["tools"]}
            ]
            pool.sort(key=lambda tool: -len(words & set(stems_of(tool["description"]))))
            left = pool[: chance.randint(1, 3)]
        if left:
            yield {**record, "tools": left, "plan": []}


def found(records: Sequence[Record], similar: Similar, share: float, seed: int = 5) -> Iterator[Record]:
    """Requests among the tools that a search would find for them, in the place of those that came with them.

    The others are the nearest of all tools in meaning, save for those that are so like a tool that is needed
    that they might do as well.
    """
    chance = random.Random(seed)
    pool = {
        text_of(Definition.of(tool, hash="-")).line: tool for record in records for tool in record["tools"]
    }
    lines = sorted(pool)
    asked = [r for r in records if r["plan"] and "args" in r["labels"] and chance.random() < share]
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        heads = [" ".join(record["request"].split()[:MAX_REQUEST_WORDS]) for record in part]
        own = [[text_of(Definition.of(tool, hash="-")).line for tool in _needed(record)] for record in part]
        near = iter(similar([*heads, *(line for several in own for line in several)], lines))
        rows = [next(near) for _ in part]
        for record, row, several in zip(part, rows, own, strict=True):
            close = [next(near) for _ in several]
            tools = _needed(record)
            names = {tool["name"] for tool in tools}
            fits = chance.random() >= NONE_FITS
            others = []
            for at in sorted(range(len(lines)), key=lambda at: -row[at])[: 4 * FOUND[1]]:
                tool = pool[lines[at]]
                if tool["name"] not in names and all(like[at] < (TWIN if fits else LIKE) for like in close):
                    names.add(tool["name"])
                    others.append(tool)
            around = [*others[: chance.randint(*FOUND)], *(tools if fits else ())]
            chance.shuffle(around)
            if around:
                yield {**record, "tools": around, "plan": record["plan"] if fits else []}


def _needed(record: Record) -> list[Mapping[str, Any]]:
    """The tools that a record's plan calls."""
    names = {step["tool"] for step in record["plan"]}
    return [tool for tool in record["tools"] if tool["name"] in names]
