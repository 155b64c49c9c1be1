"""Search measured on one's own tools: where requests come from, and what is reported of each way."""

from __future__ import annotations

import time
from pathlib import Path

from registry_parts import WordEncoder, definition

from registry.feedback.heldback import held_back
from registry.search import bench
from registry.search.engine import Searcher
from registry.search.index import ToolIndex
from registry.search.service import SearchService
from registry.store import Store
from registry.sync import sync_server
from registry.tools import ToolRecords
from registry.vector.index import VectorIndex

TOOLS = {
    "forecast": "Tell how warm and how rainy it will be in a town tomorrow.",
    "dispatch": "Deliver a written message to somebody's mailbox at once. Supports attachments.",
    "exchange": "Compute what an amount of money is worth in another currency.",
    "ping": "Ping.",
}


def opened(store: Store, folder: Path) -> SearchService:
    sync_server(ToolRecords(store), "one", [definition(name, text) for name, text in TOOLS.items()])
    sync_server(ToolRecords(store), "two", [definition("exchange", TOOLS["exchange"])])
    service = SearchService(store, folder, model=None)
    service.open()
    return service


def with_vectors(service: SearchService) -> None:
    """Give the service a real encoder, small enough for a test."""
    from registry.document import read
    from registry.search.service import embed

    encoder = WordEncoder()
    index = service.searcher.index
    index.vectors = VectorIndex(encoder.dimension)
    read_all = [read(ref.server, body) for ref, body in service.records.definitions()]
    rows = embed(encoder, read_all)
    index.put_vectors({one.key: row for one, row in zip(read_all, rows, strict=True)})
    service.searcher.encoder = encoder


def test_requests_from_descriptions_leave_out_the_names_and_what_says_too_little(
    store: Store, tmp_path: Path
) -> None:
    service = opened(store, tmp_path)
    made = {one.relevant[0]: one for one in bench.from_descriptions(service.records, service.searcher)}
    assert made.keys() == {"one/forecast", "one/dispatch", "one/exchange", "two/exchange"}
    assert made["one/dispatch"].text == "Deliver a written message to somebody's mailbox at once"
    assert made["one/exchange"].alternatives == {"one/exchange": ["two/exchange"]}


def test_requests_from_feedback_are_those_whose_tools_are_still_there(store: Store, tmp_path: Path) -> None:
    service = opened(store, tmp_path)
    rows = [("rain?", "one", "forecast"), ("rain?", "one", "ping"), ("gone", "one", "removed")]
    service.records.put_feedback(rows, now=time.time())
    (made,) = bench.from_feedback(service.records, service.searcher)
    assert (made.text, made.relevant) == ("rain?", ("one/forecast", "one/ping"))


def test_feedback_that_the_adapter_learned_from_is_not_measured_on(store: Store, tmp_path: Path) -> None:
    service = opened(store, tmp_path)
    rows = [(f"request {number}", "one", "forecast") for number in range(100)]
    service.records.put_feedback(rows, now=time.time())
    assert len(bench.from_feedback(service.records, service.searcher)) == 100

    class Learned:
        version = 3

    learned = Searcher(ToolIndex(), adapt=Learned())  # type: ignore[arg-type]  # only its version is asked for
    learned.index = service.searcher.index
    kept = bench.from_feedback(service.records, learned)
    assert 0 < len(kept) < 50
    assert all(held_back(one.text) for one in kept)


def test_each_way_is_measured_on_the_same_requests(store: Store, tmp_path: Path) -> None:
    service = opened(store, tmp_path)
    with_vectors(service)
    requests = bench.from_descriptions(service.records, service.searcher)
    done: list[tuple[int, int]] = []
    report = bench.measure(service, bench.DESCRIPTIONS, requests, lambda *at: done.append(at))
    assert [row.way for row in report.rows] == ["words (BM25)", "vectors (cosine)", "fusion", "as served"]
    assert (report.requests, report.tools, report.mode) == (4, 5, "hybrid")
    for row in report.rows:
        assert 0 < row.ndcg <= 100
        assert 0 < row.recall <= 100
        assert 0 < row.p50 <= row.p95
    assert done[-1] == (16, 16)


def test_without_vectors_only_words_are_measured_and_it_is_said(store: Store, tmp_path: Path) -> None:
    service = opened(store, tmp_path)
    requests = bench.from_descriptions(service.records, service.searcher)
    report = bench.measure(service, bench.DESCRIPTIONS, requests)
    assert report.mode == "lexical"
    assert [row.way for row in report.rows] == ["words (BM25)", "as served"]


def test_a_wrong_answer_costs_points(store: Store, tmp_path: Path) -> None:
    service = opened(store, tmp_path)
    wrong = bench.Request("how warm and rainy in a town", ("one/ping",), {})
    right = bench.Request("how warm and rainy in a town", ("one/forecast",), {})
    assert bench.measure(service, bench.FEEDBACK, [right]).rows[0].ndcg == 100
    assert bench.measure(service, bench.FEEDBACK, [wrong]).rows[0].ndcg < 70
