"""Learning the weights: ``python -m router.planner.rules.train TRAIN.jsonl.gz --cache DIR``.

TRAIN holds requests with their tools and gold plans, one JSON object a line: ``id``, ``source``,
``request``, ``tools``, ``plan`` and ``labels``, as `toolyard plan --batch` takes and gives them. The
shipped weights come from the Apache-2.0 and MIT sources alone; ``--leave-out`` names others (the shipped ones:
``--leave-out toolrl_sft``), and with one source left out at a time gives the honest figure for requests of a new
kind. Every seed is fixed. It takes some ten minutes of one core.

What a number means may not turn round with the data it was learned from: a tool that is nearer to a request is
never the less likely for it. Those with such a meaning are held to it (``GROWS`` and ``FALLS``), which costs a
little on requests like those learned from and gains more on others. Requests are cut into clauses at everybody's
verbs here, without those of their own tools: with them nothing was learned better.

Needs scikit-learn and the exported encoder in DIR (``toolyard[search]`` installs both).
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

from router.plan import Definition
from router.planner.rules import calls as splitting
from router.planner.rules import evidence
from router.planner.rules.choose import FALLS, FEATURES, GROWS, Similar, look, text_of, told_apart
from router.planner.rules.linear import FAR, Linear
from router.planner.rules.planner import CLOSER, CLOSER_FALLS, CLOSER_GROWS, owners, think
from router.planner.rules.practice import found, refusals
from router.planner.rules.reading import read
from router.planner.rules.trees import LEAF, Trees
from router.planner.rules.values import candidates
from router.planner.rules.weights import FILE, Weights

Record = Mapping[str, Any]
KEPT_NEGATIVES: Final = 0.15
"""Share of the wrong values that is learned from; their weight makes up for the rest."""
REFUSALS: Final = 0.3
"""Share of the requests that are learned from once more with every tool they need taken away."""
FOUND: Final = 0.3
"""Share of the requests that are learned from once more among the tools that a search would find."""
STUDIED: Final = 5000
"""Requests that what looks closer learns from; each is planned for it."""
REPEATS: Final = 0.01
"""Share of the plans of a source that call a tool several times, from which on it tells when to."""
SELDOM: Final = 0.3
"""What a request of another source counts for there."""
FLAT: Final = 0.01
"""How strongly the weights of a line are held to nothing."""
MIN_COUNT: Final = 20
"""Tools that a stem must stand in to get a rarity of its own."""
_NOTHING: Final = Trees(0.0, ())
_NO_LINE: Final = Linear(0.0, ())


class Rows:
    """What a model learns from: numbers, a label and a weight each, by source.

    :param names: of the numbers; those in ``grows`` never speak against, those in ``falls`` never for.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        grows: Collection[str] = frozenset(),
        falls: Collection[str] = frozenset(),
    ) -> None:
        self.signs = [(name in grows) - (name in falls) for name in names]
        self.x: list[tuple[float, ...]] = []
        self.y: list[bool] = []
        self.w: list[float] = []
        self.source: list[str] = []

    def add(self, row: Sequence[float], label: bool, source: str, weight: float = 1.0) -> None:
        self.x.append(tuple(row))
        self.y.append(label)
        self.w.append(weight)
        self.source.append(source)

    def extend(self, other: Rows) -> None:
        """Learn from another's rows, too."""
        self.x += other.x
        self.y += other.y
        self.w += other.w
        self.source += other.source

    def fit(self, rounds: int, leaves: int = 12, rate: float = 0.1) -> dict[str, Any]:
        """Boosted trees over the rows, as JSON. A source counts with the root of its size."""
        import numpy as np
        from sklearn.ensemble import HistGradientBoostingClassifier

        x = np.array(self.x, dtype=np.float32)
        weight = np.array(self._weights())
        model = HistGradientBoostingClassifier(
            max_iter=rounds,
            learning_rate=rate,
            max_leaf_nodes=leaves,
            min_samples_leaf=40,
            l2_regularization=5.0,
            early_stopping=False,
            random_state=0,
            monotonic_cst=self.signs or None,
        ).fit(x, self.y, sample_weight=weight / weight.mean())
        return _exported(model)

    def fit_line(self) -> dict[str, Any]:
        """Logistic regression over the rows, as JSON; its weights keep to their signs, too."""
        import numpy as np
        from scipy.optimize import minimize  # type: ignore[import-untyped]

        x = np.array(self.x)
        sign = np.where(self.y, 1.0, -1.0)
        weight = np.array(self._weights())
        weight /= weight.sum()
        mean, deviation = x.mean(0), x.std(0) + 1e-6
        z = np.clip((x - mean) / deviation, -FAR, FAR)

        def loss(line: Any) -> tuple[float, Any]:
            margin = sign * (z @ line[1:] + line[0])
            pull = -weight * sign / (1 + np.exp(margin))
            held = FLAT * line[1:] @ line[1:]
            slope = np.concatenate([[pull.sum()], z.T @ pull + 2 * FLAT * line[1:]])
            return weight @ np.logaddexp(0, -margin) + held, slope

        bounds = [(0 if s > 0 else None, 0 if s < 0 else None) for s in self.signs]
        start = np.zeros(x.shape[1] + 1)
        line = minimize(loss, start, jac=True, bounds=[(None, None), *bounds], method="L-BFGS-B").x
        terms = zip(mean.tolist(), deviation.tolist(), line[1:].tolist(), strict=True)
        return {"base": round(float(line[0]), 5), "terms": [[round(n, 6) for n in term] for term in terms]}

    def _weights(self) -> list[float]:
        sizes = Counter(self.source)
        return [w / math.sqrt(sizes[s]) for w, s in zip(self.w, self.source, strict=True)]


def _exported(model: Any) -> dict[str, Any]:
    trees = []
    for (predictor,) in model._predictors:
        nodes = []
        for node in predictor.nodes:
            if node["is_leaf"]:
                nodes.append([LEAF, round(float(node["value"]), 5), 0, 0])
            else:
                at = float(node["num_threshold"])
                nodes.append([int(node["feature_idx"]), round(at, 6), int(node["left"]), int(node["right"])])
        trees.append(nodes)
    return {"base": float(model._baseline_prediction.item()), "trees": trees}


def tools_of(record: Record) -> list[Definition]:
    """The candidates of a record as they are compared; hashes are not needed here."""
    return [*told_apart([Definition.of(tool, hash="-") for tool in record["tools"]])]


def rarity_of(records: Iterable[Record]) -> dict[str, float]:
    """How much a stem tells one tool from another: the inverse document frequency, 0 to 1."""
    counts: Counter[str] = Counter()
    total = 0
    for record in records:
        for tool in tools_of(record):
            text = text_of(tool)
            counts.update(text.name | text.about)
            total += 1
    return {
        stem: round(math.log((total + 1) / count) / math.log(total + 1), 3)
        for stem, count in sorted(counts.items())
        if count >= MIN_COUNT
    }


def said_on(record: Record) -> date | None:
    """The first day of the year that a gold plan fills in where a request leaves it out; None where it names none."""
    found = re.search(r"\b((?:19|20)\d\d)-\d\d-\d\d", json.dumps(record["plan"]))
    return date(int(found[1]), 1, 1) if found else None


def tool_rows(records: Iterable[Record], similar: Similar | None, rarity: dict[str, float]) -> Rows:
    """A row for each tool of each request: is it called?"""
    rows = Rows(FEATURES, GROWS, FALLS)
    for record in records:
        tools = tools_of(record)
        gold = {step["tool"] for step in record["plan"]}
        for tool, row in zip(tools, look(read(record["request"]), tools, similar, rarity).rows, strict=True):
            rows.add(row, tool.name in gold, record["source"])
    return rows


def value_rows(records: Iterable[Record], similar: Similar | None, rarity: dict[str, float]) -> Rows:
    """A row for each value that a parameter of a called tool could take: does it?"""
    rows, chance = Rows(evidence.FEATURES, evidence.GROWS, evidence.FALLS), random.Random(0)
    for record in records:
        counts = Counter(step["tool"] for step in record["plan"])
        if "args" not in record["labels"] or not counts or max(counts.values()) > 1:
            continue
        tools, reading = tools_of(record), read(record["request"], said_on(record))
        names = [tool.name for tool in tools]
        called = [names.index(name) for name in counts]
        owned = owners(look(reading, tools, similar, rarity).near, called)
        for step in record["plan"]:
            at = names.index(step["tool"])
            owner = evidence.owner_of(tools[at], frozenset(owned[at]))
            for param in owner.params:
                accepted = _accepted(step, param.path)

                def right(value: Any, accepted: list[Any] = accepted) -> bool:
                    return any(_plain(value) == gold for gold in accepted)

                def keep(value: Any, right: Callable[[Any], bool] = right) -> bool:
                    return right(value) or chance.random() < KEPT_NEGATIVES

                for value in candidates(param, owner, reading, keep):
                    label = right(value.value)
                    weight = 1.0 if label else 1 / KEPT_NEGATIVES
                    rows.add(value.features, label, record["source"], weight)
    return rows


def _accepted(step: Mapping[str, Any], path: tuple[str, ...]) -> list[Any]:
    value: Any = step["arguments"]
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return []
        value = value[key]
    options = step.get("accept", {}).get(path[0], [value]) if len(path) == 1 else [value]
    return [_plain(option) for option in options]


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.strip() if isinstance(value, str) else value


def call_rows(records: Iterable[Record], similar: Similar | None, weights: Weights) -> Rows:
    """A row for each tool that is looked at closer: is it called?"""
    rows = Rows(CLOSER, CLOSER_GROWS, CLOSER_FALLS)
    for record in records:
        tools, reading = tools_of(record), read(record["request"], said_on(record))
        gold = {step["tool"] for step in record["plan"]}
        sight = look(reading, tools, similar, weights.rarity)
        thoughts = think(reading, tools, sight, weights, similar is not None)
        for thought in thoughts:
            rows.add(thought.row, tools[thought.tool].name in gold, record["source"])
    return rows


def split_rows(records: Iterable[Record], similar: Similar | None, weights: Weights) -> Rows:
    """A row for each way to call a tool several times: is that how often it is called?

    Sources that hardly ever call a tool several times tell of themselves more than of requests, and count for less.
    """
    rows = Rows(splitting.FEATURES, splitting.GROWS, splitting.FALLS)
    known = [record for record in records if record["plan"] and "args" in record["labels"]]
    sizes = Counter(record["source"] for record in known)
    often = Counter(
        record["source"] for record in known if len({s["tool"] for s in record["plan"]}) < len(record["plan"])
    )
    for record in known:
        source = record["source"]
        weight = 1.0 if often[source] >= REPEATS * sizes[source] else SELDOM
        counts = Counter(step["tool"] for step in record["plan"])
        tools, reading = tools_of(record), read(record["request"], said_on(record))
        sight = look(reading, tools, similar, weights.rarity)
        thoughts = think(reading, tools, sight, weights, similar is not None)
        called = [thought.filled for thought in thoughts if thought.filled.tool.name in counts]
        for base in called:
            others = [other for other in called if other is not base]
            for option in splitting.options(base.tool, base, reading, weights.values, others):
                rows.add(option.features, len(option.calls) == counts[base.tool.name], source, weight)
    return rows


def learn(records: Sequence[Record], similar: Similar, say: Callable[[str], None]) -> dict[str, Any]:
    """The weights as JSON.

    First sights and values learn from one half of the requests, what looks closer from the other, so
    that it meets them as uncertain as they will be. Values then learn from both.
    """
    rarity = rarity_of(records)
    every = [*records, *refusals(records, REFUSALS), *found(records, similar, FOUND)]
    random.Random(2).shuffle(every)
    half = every[: len(every) // 2]
    rest = every[len(every) // 2 :]
    closer = rest[:STUDIED]
    say(f"{len(records)} requests, and {len(every) - len(records)} with other tools")

    values = value_rows(half, similar, rarity)
    early = {
        "tools": tool_rows(half, similar, rarity).fit(120, rate=0.08),
        "tools_by_words": tool_rows(half, None, rarity).fit(120, rate=0.08),
        "values": values.fit(150, leaves=14),
    }
    say("learned first sights and values")
    known = {name: Trees.of(value) for name, value in early.items()}
    draft = Weights(
        rarity,
        **known,
        calls=_NOTHING,
        calls_by_words=_NOTHING,
        splits=_NO_LINE,
    )
    late = {}
    for suffix, closeness in (("", similar), ("_by_words", None)):
        late[f"calls{suffix}"] = call_rows(closer, closeness, draft).fit(120, leaves=10, rate=0.06)
    late["splits"] = split_rows(rest, similar, draft).fit_line()
    say("learned calls")
    values.extend(value_rows(rest, similar, rarity))
    return {"rarity": rarity, **early, "values": values.fit(150, leaves=14), **late}


def encoder(cache: Path, records: Iterable[Record]) -> Similar:
    """Closeness in meaning by the exported encoder, every text encoded once."""
    import numpy as np

    from registry.embed.prepare import load

    model = load(cache)
    if model is None:
        raise SystemExit(f"There is no exported encoder in {cache}. Run: toolyard registry check")
    known: dict[str, Any] = {}

    def vectors(texts: Sequence[str]) -> Any:
        fresh = [text for text in dict.fromkeys(texts) if text not in known]
        if fresh:
            known.update(zip(fresh, model.encode_documents(fresh), strict=True))
        return np.stack([known[text] for text in texts])

    lines = {text_of(tool).line for record in records for tool in tools_of(record)}
    vectors(sorted(lines, key=lambda line: (len(line), line)))
    return lambda asked, tools: (vectors(asked) @ vectors(tools).T).tolist()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Learn the weights of the planner without a model.")
    parser.add_argument("train", type=Path, help="requests with gold plans, JSON lines, gzip")
    parser.add_argument("--cache", type=Path, required=True, help="where the encoder was exported to")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--leave-out", action="append", default=[], metavar="SOURCE")
    chosen = parser.parse_args(arguments)
    with gzip.open(chosen.train, "rt", encoding="utf-8") as lines:
        records = [record for line in lines if (record := json.loads(line))["source"] not in chosen.leave_out]
    learned = learn(records, encoder(chosen.cache, records), print)
    data = json.dumps(learned, separators=(",", ":")).encode()
    chosen.out.write_bytes(gzip.compress(data, 9, mtime=0))
    print(f"{chosen.out}: {chosen.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
