"""Search measured on the catalog that is there: requests with known answers, and each way to rank them.

Two sources of requests. *Feedback*: what was asked here, and the tool that was then called; only what
the query adapter did not learn from counts. *Descriptions*: for each tool its own description, shortened
and without the words of its name; that compares the ways with each other, and says little about how
people's requests fare, because the words are the tool's own.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from registry import document
from registry.document import words_of
from registry.feedback.heldback import held_back
from registry.search.engine import Searcher
from registry.search.measures import mean, score
from registry.search.service import SearchService
from registry.tools import ToolRecords

FEEDBACK: Final = "feedback"
DESCRIPTIONS: Final = "descriptions"
ENOUGH: Final = 20
"""Requests below which feedback is not measured on by itself."""
MOST: Final = 1000
"""Requests that are measured on, drawn at random with a fixed seed."""
_DEPTH: Final = 10
_WORDS: Final = 16
_FEWEST: Final = 3
"""Words that a request made of a description must have left."""

Rank = Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class Request:
    """A request and the tools that answer it, as ``server/name``.

    :param alternatives: by tool, others that are the same but for their server.
    """

    text: str
    relevant: tuple[str, ...]
    alternatives: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Row:
    """What one way to rank came to. Measures in percent, times in milliseconds."""

    way: str
    ndcg: float
    recall: float
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Report:
    """A measurement.

    :param source: ``feedback`` or ``descriptions``.
    :param mode: ``hybrid``, or ``lexical`` where there are no vectors to measure.
    """

    source: str
    requests: int
    tools: int
    mode: str
    rows: tuple[Row, ...]


def from_feedback(records: ToolRecords, searcher: Searcher) -> list[Request]:
    """The requests of feedback whose tools are still offered, each once with every tool it led to.

    Without those that the adapter in use learned from, where it was trained here.
    """
    all_ = getattr(searcher.adapt, "version", 0) == 0
    tools: dict[str, dict[str, None]] = {}
    for request, server, name in records.feedback():
        if (all_ or held_back(request)) and searcher.index.slot(server, name) is not None:
            tools.setdefault(request.strip(), {})[f"{server}/{name}"] = None
    twins = _twins(searcher)
    made = [
        Request(text, tuple(names), {n: twins.get(n, []) for n in names}) for text, names in tools.items()
    ]
    return _sample([one for one in made if one.text])


def from_descriptions(records: ToolRecords, searcher: Searcher) -> list[Request]:
    """A request for each tool whose description says enough beside its name."""
    twins = _twins(searcher)
    made = []
    for ref, body in records.definitions():
        try:
            read = document.read(ref.server, body)
        except (ValueError, RecursionError):
            continue  # search cannot find it either, and `registry check` names it
        own = {word.lower() for word in words_of(f"{ref.server} {ref.name}").split()}
        sentence = re.split(r"(?<=[.!?])\s", read.description, maxsplit=1)[0]
        words = [word for word in sentence.split() if word.strip(".,;:()").lower() not in own]
        name = f"{ref.server}/{ref.name}"
        if len(words) >= _FEWEST and searcher.index.slot(ref.server, ref.name) is not None:
            text = " ".join(words[:_WORDS]).rstrip(".")
            made.append(Request(text, (name,), {name: twins.get(name, [])}))
    return _sample(made)


def measure(
    service: SearchService,
    source: str,
    requests: Sequence[Request],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Rank every request in every way there is, and time it: encoding, search and order."""
    searcher = service.searcher
    ways = list(_ways(searcher))
    # The encoder remembers recent queries; each is timed as if it were asked for the first time.
    forget: Callable[[], None] = getattr(searcher.encoder, "forget", lambda: None)
    rows = []
    for number, (way, rank) in enumerate(ways):
        rank(requests[0].text if requests else "warm up")  # libraries load on first use
        before = number * len(requests)
        step = partial(_step, progress, before, len(ways) * len(requests))
        rows.append(_row(way, rank, requests, forget, step))
    mode = "hybrid" if len(ways) > 2 else "lexical"
    return Report(source, len(requests), len(searcher.index), mode, tuple(rows))


def _step(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _row(
    way: str,
    rank: Rank,
    requests: Sequence[Request],
    forget: Callable[[], None],
    progress: Callable[[int], None],
) -> Row:
    results, times = [], []
    for done, request in enumerate(requests, 1):
        forget()
        started = time.perf_counter()
        ranked = rank(request.text)
        times.append(1e3 * (time.perf_counter() - started))
        results.append(score({"relevant": request.relevant, "alternatives": request.alternatives}, ranked))
        progress(done)
    means, times = mean(results), sorted(times) or [0.0]
    return Row(way, means["ndcg@10"], means["recall@10"], _at(times, 0.50), _at(times, 0.95))


def _at(ordered: Sequence[float], part: float) -> float:
    """The value below which this part lies (nearest rank)."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def _ways(searcher: Searcher) -> Iterator[tuple[str, Rank]]:
    """Words, vectors, both fused, and the search as it is: fused, with clauses and the adapter."""
    index, encoder = searcher.index, searcher.encoder

    def engine(made: Searcher, split: bool) -> Rank:
        def rank(text: str) -> list[str]:
            hits = made.find(text, _DEPTH, split=split, collapse=False).hits
            return [f"{hit.ref.server}/{hit.ref.name}" for hit in hits]

        return rank

    yield "words (BM25)", engine(Searcher(index), False)
    if encoder is not None and index.vectors is not None and len(index.vectors):
        vectors = index.vectors

        def by_vectors(text: str) -> list[str]:
            import numpy as np

            scores: Any = vectors.scores(encoder.encode_queries([text]), index.slots)[0]
            best = (int(slot) for slot in np.argsort(-scores, kind="stable"))
            refs = [index.ref(slot) for slot in best if vectors.has(slot)][:_DEPTH]
            return [f"{ref.server}/{ref.name}" for ref in refs]

        yield "vectors (cosine)", by_vectors
        yield "fusion", engine(Searcher(index, encoder), False)
    yield "as served", engine(searcher, True)


def _twins(searcher: Searcher) -> dict[str, list[str]]:
    """By tool, those of other servers whose definition says the same: any of them answers."""
    index = searcher.index
    groups: dict[bytes, list[str]] = {}
    for slot, ref in index.living():
        groups.setdefault(index.fingerprint(slot), []).append(f"{ref.server}/{ref.name}")
    return {
        name: [o for o in group if o != name] for group in groups.values() if len(group) > 1 for name in group
    }


def _sample(requests: list[Request]) -> list[Request]:
    return requests if len(requests) <= MOST else random.Random(0).sample(requests, MOST)
