"""Measure search on a folder of labelled sets: ``python -m tests.benchmarks.retrieval FOLDER``.

Each folder in it with ``tools.jsonl`` and ``queries.jsonl`` is a set. Printed, a row a step: words
alone, vectors alone, rank fusion, score fusion, then clauses, servers and the adapter, each on top
of the row before. The adapter of a set is trained on the other sets alone. ``--work`` keeps the
stores, so that a second run need not embed again. One thread: set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from registry import document, exchange
from registry.document import words_of
from registry.feedback import training
from registry.feedback.adapter import Adapter
from registry.lexical import query_terms
from registry.search import fusion
from registry.search.engine import Searcher
from registry.search.service import SearchService
from registry.store import Store
from registry.sync import sync_server
from registry.tools import ToolRecords
from tests.benchmarks.retrieval.metrics import NAMES, mean, score

Rank = Callable[[str], list[str]]
LIMIT = 20


class Case:
    """One set, imported into a store of its own and indexed."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.name = folder.name
        self.queries: list[dict[str, Any]] = [
            json.loads(line) for line in (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        state = work / folder.name
        state.mkdir(parents=True, exist_ok=True)
        self.store = Store.open(state / "toolyard.db")
        exchange.import_tools(ToolRecords(self.store), folder / "tools.jsonl")
        # The model's export is shared; the index generation is each set's own.
        self.service = SearchService(self.store, work / "cache" / folder.name, say=say)
        shared = work / "cache" / "model"
        _share_export(shared, work / "cache" / folder.name)
        self.service.open()
        self.service.prepare()
        _keep_export(work / "cache" / folder.name, shared)
        self.ids = exchange.imported_ids(self.service.records)
        self.ref_of = {tool: ref for ref, tool in self.ids.items()}

    @property
    def searcher(self) -> Searcher:
        return self.service.searcher

    def pairs(self) -> list[training.Pair]:
        """Its labels as feedback."""
        return [
            (query["query"], *self.ref_of[tool])
            for query in self.queries
            for tool in query["relevant"]
            if tool in self.ref_of
        ]

    def by_engine(self, *, adapt: Adapter | None = None, split: bool = True, vectors: bool = True) -> Rank:
        encoder = self.searcher.encoder if vectors else None
        engine = Searcher(self.searcher.index, encoder, adapt=adapt)

        def rank(request: str) -> list[str]:
            hits = engine.find(request, LIMIT, split=split, collapse=False).hits
            return [self.ids[hit.ref[:2]] for hit in hits]

        return rank

    def by_vectors(self) -> Rank:
        return lambda request: self._top(self._cosines(request))

    def by_ranks(self) -> Rank:
        """Reciprocal rank fusion (Cormack, Clarke, Büttcher, 2009), k = 60."""

        def rank(request: str) -> list[str]:
            lists = (self.searcher.index.words.dense_scores(query_terms(request)), self._cosines(request))
            total = np.zeros(self.searcher.index.slots)
            for scores in lists:
                places = np.empty(len(scores))
                places[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
                total += 1.0 / (60.0 + places)
            return self._top(total)

        return rank

    def _cosines(self, request: str) -> Any:
        index, encoder = self.searcher.index, self.searcher.encoder
        assert encoder is not None
        assert index.vectors is not None
        return index.vectors.scores(encoder.encode_queries([request]), index.slots)[0]

    def _top(self, scores: Any) -> list[str]:
        index = self.searcher.index
        best = np.argsort(-scores, kind="stable")[:LIMIT]
        return [self.ids[index.ref(int(slot))[:2]] for slot in best]

    def measure(self, rank: Rank, queries: Sequence[dict[str, Any]] | None = None) -> list[dict[str, float]]:
        return [
            score(query, rank(query["query"])) for query in (self.queries if queries is None else queries)
        ]


def _share_export(shared: Path, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    for model in shared.glob("model-*") if shared.is_dir() else ():
        if not (cache / model.name).exists():
            (cache / model.name).symlink_to(model.resolve())


def _keep_export(cache: Path, shared: Path) -> None:
    shared.mkdir(parents=True, exist_ok=True)
    for model in cache.glob("model-*"):
        if not (shared / model.name).exists():
            (shared / model.name).symlink_to(model.resolve())


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def row(
    label: str, results: dict[str, list[dict[str, float]]], queries: dict[str, Any], macro: list[str]
) -> None:
    """One line: the macro mean, then per set NDCG@10 / recall@10 / complete@10 / complete@10 of multi-tool requests."""
    cells = []
    for name, rows in results.items():
        whole = mean(rows)
        several = mean(r for r, q in zip(rows, queries[name], strict=True) if len(q["relevant"]) > 1)
        cells.append(
            f"{name[:12]} {whole['ndcg@10']:.1f}/{whole['recall@10']:.1f}/{whole['complete@10']:.1f}/{several['complete@10']:.1f}"
        )
    own = [mean(results[name])["ndcg@10"] for name in macro if name in results]
    print(
        f"{label:34s} macro {sum(own) / len(own):.2f}  " + "  ".join(cells)
        if own
        else f"{label:34s} " + "  ".join(cells),
        flush=True,
    )


@contextlib.contextmanager
def weights(**values: float) -> Iterator[None]:
    """Search with other weights of the fusion, for comparison."""
    before = {name: getattr(fusion, name) for name in values}
    for name, value in values.items():
        setattr(fusion, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(fusion, name, value)


def choose(cases: list[Case], adapters: dict[str, Adapter]) -> None:
    """The weights of servers over clauses, chosen for each set by the others alone, as its adapter was."""
    found: dict[tuple[float, float], dict[str, float]] = {}
    for steep, cover in ((1, 0.0), *itertools.product((5, 10, 20), (0.25, 0.5, 1.0))):
        with weights(STEEP=steep, COVER=cover):
            found[steep, cover] = {
                case.name: mean(case.measure(case.by_engine(adapt=adapters[case.name])))["ndcg@10"]
                for case in cases
            }
    picked = {}
    for case in cases:
        others = [other.name for other in cases if other is not case]
        best = max(found, key=lambda pair: sum(found[pair][name] for name in others))
        picked[case.name] = found[best][case.name]
        print(f"nested, {case.name}: power {best[0]}, weight {best[1]}, NDCG@10 {picked[case.name]:.2f}")
    print(f"nested: macro NDCG@10 {sum(picked.values()) / len(picked):.2f}", flush=True)


def quality(cases: list[Case], macro: list[str], save: Path | None, nested: bool = False) -> None:
    print("\nNDCG@10 / recall@10 / complete@10 / complete@10 of requests for several tools; macro: NDCG@10")
    queries = {case.name: case.queries for case in cases}

    def table(label: str, rank_of: Callable[[Case], Rank]) -> None:
        row(label, {case.name: case.measure(rank_of(case)) for case in cases}, queries, macro)

    table("words (BM25)", lambda case: case.by_engine(split=False, vectors=False))
    table("vectors (cosine)", Case.by_vectors)
    table("rank fusion (RRF 60)", Case.by_ranks)
    with weights(COVER=0.0):
        table("score fusion", lambda case: case.by_engine(split=False))
        table("+ clauses", lambda case: case.by_engine())
    table("+ servers over clauses", lambda case: case.by_engine())
    small = [case for case in cases if case.name in macro]
    if len(small) < 2:
        return
    lessons = {case.name: training.examples(case.searcher, case.pairs()) for case in small}
    model = small[0].searcher.encoder.model.split("/", 1)[0] if small[0].searcher.encoder else ""

    def trained(names: Sequence[str], scored: Case | None = None) -> Adapter:
        return general(model, [e for n in names if (e := lessons[n]) is not None], cases, scored)

    of_name = {case.name: case for case in small}
    without = {name: trained([o for o in macro if o != name], of_name[name]) for name in macro}
    results = {case.name: case.measure(case.by_engine(adapt=without[case.name])) for case in small}
    for case in cases:
        if case.name not in macro:
            # A large registry made of the sets: each request by the adapter that never saw its set.
            of_set = {query["id"]: c.name for c in small for query in c.queries}
            ranks = {name: case.by_engine(adapt=adapter) for name, adapter in without.items()}
            plain = case.by_engine()
            results[case.name] = [
                score(query, ranks.get(of_set.get(query["id"], ""), plain)(query["query"]))
                for query in case.queries
            ]
    row("+ adapter, leave one set out", results, queries, macro)
    if nested:
        choose(small, without)
    inside: dict[str, list[dict[str, float]]] = {}
    for case in small:
        learned, held = training.split(case.pairs())
        example = training.examples(case.searcher, learned)
        if example is None:
            continue
        adapter = Adapter(model, training.fit([example]))
        texts = {pair[0] for pair in held}
        part = [query for query in case.queries if query["query"] in texts]
        inside[case.name] = case.measure(case.by_engine(adapt=adapter), part)
        plain_part = mean(case.measure(case.by_engine(), part))["ndcg@10"]
        print(
            f"in-domain, {case.name}: {len(part)} held-back requests, NDCG@10 {plain_part:.2f} plain, "
            f"{mean(inside[case.name])['ndcg@10']:.2f} with an adapter of its own"
        )
    if save is not None:
        names = [name for name in macro if name in {"sealtools", "metatool", "toolbench"}]
        save.write_bytes(trained(names).dump())
        print(f"wrote {save}, trained on {', '.join(names)}")


def general(
    model: str, lessons: Sequence[training.Example], cases: Sequence[Case], scored: Case | None
) -> Adapter:
    """An adapter for catalogs it has not seen: told from tools of every catalog but the scored one, and
    taken half way, because what it learns is partly of the catalogs it learned from."""
    hidden = set() if scored is None else set(scored.ids.values())
    pool: dict[str, Any] = {}
    for case in cases:
        index = case.searcher.index
        if index.vectors is not None and case is not scored:
            fresh = {case.ids[ref[:2]]: index.vectors.vector(slot) for slot, ref in index.living()}
            pool |= {tool: vector for tool, vector in fresh.items() if tool not in hidden}
    vectors = np.stack(list(pool.values()))
    chosen = vectors[np.random.default_rng(0).permutation(len(vectors))[:3500]]
    wider = [training.Example(e.queries, e.targets, np.vstack([e.tools, chosen])) for e in lessons]
    return Adapter(model, np.float32(0.5) * training.fit(wider))


def latency(case: Case) -> None:
    engine = Searcher(case.searcher.index, case.searcher.encoder, adapt=case.searcher.adapt)
    wall: list[float] = []
    spent: list[float] = []
    for query in case.queries:
        started, before = time.perf_counter(), time.thread_time()
        engine.find(query["query"], 10)
        wall.append(1e3 * (time.perf_counter() - started))
        spent.append(1e3 * (time.thread_time() - before))
    p50, p95 = np.percentile(wall, [50, 95])
    cpu50, cpu95 = np.percentile(spent, [50, 95])
    print(
        f"search, {case.name}, {len(case.searcher.index)} tools, first time asked: p50 {p50:.2f} ms, "
        f"p95 {p95:.2f} ms; of CPU {cpu50:.2f} and {cpu95:.2f} ms"
    )


def enlarge(case: Case, count: int) -> None:
    """More tools for measuring time: copies under other servers, with vectors a little off."""
    index = case.searcher.index
    definitions = case.service.records.definitions()
    random = np.random.default_rng(0)
    for turn in range(1, 100):
        vectors = {}
        for ref, body in definitions:
            if len(index) >= count:
                break
            copied = document.read(f"{ref.server} {turn}", body)
            slot = index.slot(ref.server, ref.name)
            index.put(copied)
            if slot is not None and index.vectors is not None:
                noisy = index.vectors.vector(slot) + 0.02 * random.standard_normal(index.vectors.dimension)
                vectors[copied.key] = (noisy / np.linalg.norm(noisy)).astype(np.float32)
        index.put_vectors(vectors)


def sync_times(work: Path) -> None:
    tools = [
        json.dumps({"name": f"tool_{i}", "description": words_of(f"does_thing_{i}") * 20}).encode()
        for i in range(10_000)
    ]
    path = work / "sync.db"
    for old in work.glob("sync.db*"):
        old.unlink()
    with Store.open(path) as store:
        records = ToolRecords(store)
        sync_server(records, "s", tools)
        best = min(sync_server(records, "s", tools).seconds for _ in range(5))
        changed = [
            json.dumps({"name": f"tool_{i}", "description": "new"}).encode() for i in range(100)
        ] + tools[100:]
        report = sync_server(records, "s", changed)
    print(
        f"sync of 10,000 unchanged tools: {best:.3f} s; of 100 changed among them: {report.seconds:.3f} s, "
        f"{len(report.updated)} to embed, {report.unchanged} untouched"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/retrieval"))
    parser.add_argument("--sets", nargs="*", help="only these sets")
    parser.add_argument("--not-in-macro", nargs="*", default=["mixed"], help="sets made of the others")
    parser.add_argument(
        "--tools", type=int, default=15_000, help="size of the catalog that search is timed on"
    )
    parser.add_argument("--only", choices=["quality", "time"])
    parser.add_argument(
        "--nested", action="store_true", help="choose weights for each set by the others, too; takes long"
    )
    parser.add_argument("--save-adapter", type=Path, help="write the general adapter there")
    given = parser.parse_args()
    folders = sorted(p.parent for p in given.folder.glob("*/queries.jsonl"))
    cases = [Case(folder, given.work) for folder in folders if not given.sets or folder.name in given.sets]
    if not cases:
        raise SystemExit(f"{given.folder} holds no set")
    macro = [case.name for case in cases if case.name not in given.not_in_macro]
    if given.only != "time":
        quality(cases, macro, given.save_adapter, given.nested)
    if given.only != "quality":
        largest = max(cases, key=lambda case: len(case.searcher.index))
        enlarge(largest, given.tools)
        latency(largest)
        sync_times(given.work)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak memory of this program: {peak:.0f} MiB; measures: {', '.join(NAMES)}")
    for case in cases:
        case.store.close()


if __name__ == "__main__":
    main()
