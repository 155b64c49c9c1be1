"""Training an adapter on feedback, in numpy, and keeping it only where it is better.

The loss is the cross entropy of the chosen tool among all tools (InfoNCE; van den Oord et al., 2018)
plus a pull to zero. The judge is the search itself, on feedback that training did not see.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from registry.feedback.adapter import Adapter
from registry.feedback.heldback import held_back
from registry.search import clauses
from registry.search.engine import Searcher

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_PAIRS: Final = 50
"""Feedback below which nothing is learned that is not chance."""
MIN_GAIN: Final = 0.002
"""NDCG@10 on held-back feedback by which a new adapter must beat the current one."""

TEMPERATURE: Final = 0.05
PULL: Final = 0.003
"""Weight of the squared size of the matrix."""
EPOCHS: Final = 4
MIN_STEPS: Final = 100
"""Few pairs are gone over more often, until so many steps are taken."""
RATE: Final = 1e-3
_BATCH: Final = 256
_MOST_TOOLS: Final = 4096
"""Tools among which one is to be told; more are sampled."""

Pair = tuple[str, str, str]
"""(request, server, name): what was asked, and the tool that answered it."""


@dataclass(frozen=True, slots=True)
class Example:
    """Vectors of one catalog to learn from.

    :param queries: ``[n, dimension]``.
    :param targets: the row of ``tools`` that answers each query.
    :param tools: ``[m, dimension]``.
    """

    queries: NDArray[np.float32]
    targets: NDArray[np.int64]
    tools: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Learned:
    """What a training came to: NDCG@10 on the held-back pairs without, with the current, with the new."""

    adapter: Adapter | None
    pairs: int
    held_back: int
    plain: float
    current: float
    trained: float

    @property
    def kept(self) -> bool:
        return self.adapter is not None


def examples(searcher: Searcher, pairs: Sequence[Pair]) -> Example | None:
    """What a searcher's tools and these pairs teach. None where no pair names a tool that has a vector.

    A request of several clauses teaches with the clause that its tool fits best.
    """
    index, encoder = searcher.index, searcher.encoder
    if encoder is None or index.vectors is None:
        return None
    with index.lock:
        slots = [slot for slot, _ in index.living() if index.vectors.has(slot)]
        tools = index.vectors.matrix(index.slots)[slots].copy()
        row_of = {index.ref(slot)[:2]: row for row, slot in enumerate(slots)}
    queries: list[NDArray[np.float32]] = []
    targets: list[int] = []
    for request, server, name in pairs:
        row = row_of.get((server, name))
        if row is None:
            continue
        vectors = encoder.encode_queries(clauses.split(request))
        queries.append(vectors[int((vectors @ tools[row]).argmax())])
        targets.append(row)
    if not queries:
        return None
    return Example(np.stack(queries), np.array(targets, dtype=np.int64), tools)


def fit(
    data: Sequence[Example], *, epochs: int = EPOCHS, pull: float = PULL, seed: int = 0
) -> NDArray[np.float32]:
    """The matrix that fits the examples of one or more catalogs, ``[dimension, dimension]``.

    Adam (Kingma, Ba, 2015) over shuffled batches; each batch is of one catalog.
    """
    random = np.random.default_rng(seed)
    size = data[0].tools.shape[1]
    weights: NDArray[Any] = np.zeros((size, size), dtype=np.float32)
    mean: NDArray[Any] = np.zeros_like(weights)
    spread: NDArray[Any] = np.zeros_like(weights)
    step = 0
    an_epoch = sum(math.ceil(len(example.queries) / _BATCH) for example in data)
    for _ in range(max(epochs, math.ceil(MIN_STEPS / an_epoch))):
        batches = [
            (example, rows)
            for example in data
            for rows in np.array_split(
                random.permutation(len(example.queries)), math.ceil(len(example.queries) / _BATCH)
            )
        ]
        for place in random.permutation(len(batches)):
            example, rows = batches[place]
            slope = _slope(weights, example, rows, random) + 2.0 * pull * weights
            step += 1
            mean = 0.9 * mean + 0.1 * slope
            spread = 0.999 * spread + 0.001 * slope**2
            rate = RATE * math.sqrt(1.0 - 0.999**step) / (1.0 - 0.9**step)
            weights = weights - rate * mean / (np.sqrt(spread) + 1e-8)
    return weights.astype(np.float32)


def _slope(
    weights: NDArray[np.float32], example: Example, rows: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.float32]:
    """The gradient of the mean loss of a batch with respect to the matrix."""
    queries, targets, tools = example.queries[rows], example.targets[rows], example.tools
    if len(tools) > _MOST_TOOLS:
        others = random.choice(len(tools), _MOST_TOOLS, replace=False)
        chosen = np.union1d(targets, others)
        tools, targets = tools[chosen], np.searchsorted(chosen, targets)
    moved = queries + queries @ weights
    length = np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9)
    unit = moved / length
    logits = unit @ tools.T / TEMPERATURE
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    share[np.arange(len(rows)), targets] -= 1.0
    back = share @ tools / (TEMPERATURE * len(rows))
    back = (back - (back * unit).sum(axis=1, keepdims=True) * unit) / length
    slope: NDArray[np.float32] = queries.T @ back
    return slope


def split(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """(to learn from, held back): a fifth of the requests, told by their text, so that the same request
    is on the same side in every training and on one side only."""
    learn: list[Pair] = []
    held: list[Pair] = []
    for pair in pairs:
        (held if held_back(pair[0]) else learn).append(pair)
    return learn, held


def judge(searcher: Searcher, pairs: Sequence[Pair], adapter: Adapter | None) -> float:
    """Mean NDCG@10 of the search on pairs, with an adapter or without."""
    engine = Searcher(searcher.index, searcher.encoder, adapt=adapter)
    total = 0.0
    for request, server, name in pairs:
        hits = engine.find(request, 10, collapse=False).hits
        place = next((i for i, hit in enumerate(hits) if hit.ref[:2] == (server, name)), None)
        total += 0.0 if place is None else 1.0 / math.log2(place + 2)
    return total / len(pairs) if pairs else 0.0


def learn(searcher: Searcher, pairs: Sequence[Pair], current: Adapter | None, *, version: int) -> Learned:
    """Train on feedback and judge on the part held back. Seconds to minutes of CPU: run it in a child.

    The result has an adapter only where it beats the current one, and no adapter at all, by MIN_GAIN.
    """
    train, held = split(pairs)
    example = examples(searcher, train) if len(train) >= MIN_PAIRS and held else None
    encoder = searcher.encoder
    if example is None or encoder is None:
        return Learned(None, len(train), len(held), 0.0, 0.0, 0.0)
    made = Adapter(encoder.model.split("/", 1)[0], fit([example]), version)
    plain = judge(searcher, held, None)
    before = plain if current is None else judge(searcher, held, current)
    after = judge(searcher, held, made)
    better = after >= max(plain, before) + MIN_GAIN
    return Learned(made if better else None, len(train), len(held), plain, before, after)
