"""Search: the right tool first, inside what the caller may see, with and without vectors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_parts import WordEncoder, definition

from registry import document
from registry.errors import BadFilter
from registry.search import evidence
from registry.search.clauses import MAX_CLAUSES, split
from registry.search.engine import Searcher
from registry.search.index import ToolIndex
from registry.search.scope import Scope
from registry.search.service import embed
from registry.tools import Statistics, ToolRef
from registry.vector.index import VectorIndex, inverted

TOOLS = [
    ("mail", "send_message", "Send an e-mail to a person"),
    ("mail", "read_inbox", "List the letters in the inbox"),
    ("files", "read_file", "Read the contents of a file"),
    ("files", "delete_file", "Delete a file for ever"),
    ("sky", "get_weather", "The weather forecast of a city"),
    ("trips", "book_flight", "Book a flight from one city to another"),
]


def searcher(*, vectors: bool, tools: list[tuple[str, str, str]] = TOOLS) -> Searcher:
    encoder = WordEncoder() if vectors else None
    index = ToolIndex(VectorIndex(WordEncoder.dimension) if vectors else None)
    documents = [document.read(server, definition(name, text)) for server, name, text in tools]
    index.extend(documents)
    if encoder is not None:
        rows = embed(encoder, documents)
        index.put_vectors({one.key: row for one, row in zip(documents, rows, strict=True)})
    return Searcher(index, encoder)


both = pytest.mark.parametrize("vectors", [False, True], ids=["words", "hybrid"])


def names(searcher: Searcher, request: str, limit: int = 10, scope: Scope | None = None) -> list[str]:
    return [hit.ref.name for hit in searcher.find(request, limit, scope).hits]


@both
def test_the_tool_that_is_asked_for_comes_first_and_says_why(vectors: bool) -> None:
    found = searcher(vectors=vectors).find("what is the weather in this city?", 3)
    assert found.mode == ("hybrid" if vectors else "lexical")
    first = found.hits[0]
    assert first.ref[:2] == ("sky", "get_weather")
    assert "weather" in first.words
    assert first.clause == "what is the weather in this city?"
    assert (first.cosine is not None) == vectors
    assert [hit.score for hit in found.hits] == sorted((h.score for h in found.hits), reverse=True)


def test_a_word_that_is_shared_in_another_form_is_a_reason_too() -> None:
    found = searcher(vectors=False).find("forecasting", 1)
    assert [hit.words for hit in found.hits] == [("forecast",)]


@both
def test_each_wish_of_a_request_brings_its_own_tool(vectors: bool) -> None:
    found = searcher(vectors=vectors).find("Book a flight to Rome and tell me the weather there", 2)
    assert {hit.ref.name for hit in found.hits} == {"book_flight", "get_weather"}
    clause = {hit.ref.name: hit.clause for hit in found.hits}
    assert clause["book_flight"].startswith("Book a flight")
    assert "weather" in clause["get_weather"]


@both
def test_a_server_that_answers_every_wish_comes_before_those_that_answer_one(vectors: bool) -> None:
    tools = [
        *[(f"a{i}", f"radical_{i}", "Read the kanji radical") for i in range(3)],
        ("kanji", "radical", "Read the kanji radical, please"),
        ("kanji", "strokes", "The stroke number of a character"),
        *[(f"b{i}", f"letters_{i}", "The letter number of a word") for i in range(3)],
    ]
    found = searcher(vectors=vectors, tools=tools).find(
        "read the kanji radical and then tell me the stroke number of it", 2
    )
    assert {hit.ref.server for hit in found.hits} == {"kanji"}


@both
def test_the_best_tool_of_every_wish_has_a_place_beside_a_server_that_fills_the_page(vectors: bool) -> None:
    loud = [("loud", f"flight_{i}", f"Book a flight in the city {'weather ' * (i % 2)}") for i in range(30)]
    engine = searcher(vectors=vectors, tools=[*loud, *TOOLS])
    found = engine.find("Book a flight to the city and then delete the file for ever", 5)
    assert len(found.hits) == 5
    assert "delete_file" in [hit.ref.name for hit in found.hits]
    assert [hit.score for hit in found.hits] == sorted((h.score for h in found.hits), reverse=True)


@both
def test_a_scope_is_applied_inside_the_search_so_the_page_is_never_emptied_after(vectors: bool) -> None:
    many = [("loud", f"read_file_{i}", "Read the contents of a file") for i in range(300)]
    engine = searcher(vectors=vectors, tools=[*many, *TOOLS])
    found = names(engine, "read a file", 2, Scope.of(servers={"files"}))
    assert found == ["read_file", "delete_file"]
    assert names(engine, "read a file", 2, Scope.of(include=["nothing/*"])) == []


@both
@settings(max_examples=30)
@given(
    allowed=st.sets(st.sampled_from([t[1] for t in TOOLS])), request=st.sampled_from([t[2] for t in TOOLS])
)
def test_nothing_outside_the_scope_is_ever_found(vectors: bool, allowed: set[str], request: str) -> None:
    found = names(searcher(vectors=vectors), request, 10, Scope(lambda ref: ref.name in allowed))
    assert set(found) <= allowed
    if vectors:
        assert len(found) == len(allowed)


def test_a_scope_follows_the_index() -> None:
    engine = searcher(vectors=False)
    scope = Scope.of(include=["files", "read_inbox"], exclude=["*/delete_*"])
    assert set(names(engine, "read delete file letters", 10, scope)) == {"read_file", "read_inbox"}
    engine.index.put(document.read("files", definition("read_all", "Read every file")))
    engine.index.remove("files", "read_file")
    assert set(names(engine, "read delete file letters", 10, scope)) == {"read_all", "read_inbox"}
    with pytest.raises(BadFilter):
        Scope.of(include=["x" * 1000])


@both
def test_a_removed_tool_is_gone_and_a_changed_one_is_found_by_what_it_says_now(vectors: bool) -> None:
    engine = searcher(vectors=vectors)
    engine.index.remove("sky", "get_weather")
    changed = document.read("files", definition("read_file", "Forecast of the weather"))
    engine.index.put(changed)
    assert "get_weather" not in names(engine, "weather forecast")
    found = engine.find("weather forecast", 1)
    assert found.hits[0].ref == ToolRef("files", "read_file", changed.hash)
    assert found.pending == (1 if vectors else 0)


@both
def test_the_same_tool_on_several_servers_is_listed_once(vectors: bool) -> None:
    twins = [(server, "read_file", "Read the contents of a file") for server in ("a", "b", "c")]
    found = searcher(vectors=vectors, tools=[*twins, *TOOLS]).find("read a file", 10)
    first = found.hits[0]
    assert len({first.ref.server, *(ref.server for ref in first.alike)}) == 4
    assert [hit.ref.name for hit in found.hits].count("read_file") == 1


def test_evidence_parts_equals_and_lifts_nothing_that_fits_worse() -> None:
    twins = [("a", "read_file", "Read a file"), ("b", "read_files", "Read a file")]
    engine = searcher(vectors=False, tools=[*TOOLS, *twins])
    known = {("b", "read_files"): Statistics(50, 0, 5.0), ("mail", "send_message"): Statistics(50, 50, 5.0)}
    engine = Searcher(engine.index, known=lambda: known)
    found = names(engine, "read a file")
    assert found.index("read_file") < found.index("read_files")
    assert "send_message" not in found[:2]


def test_evidence_is_bounded_and_wants_success_before_speed() -> None:
    assert evidence.worth(None) == evidence.worth(Statistics()) == 0
    good, slow = evidence.worth(Statistics(100, 100, 10)), evidence.worth(Statistics(100, 100, 3000))
    assert 1 >= good > slow > evidence.worth(Statistics(100, 20, 1)) >= -1
    assert evidence.worth(Statistics(1, 0)) > evidence.worth(Statistics(100, 0))


def test_limits_are_checked_and_an_empty_request_finds_nothing() -> None:
    engine = searcher(vectors=True)
    for limit in (0, -1, 1000):
        with pytest.raises(BadFilter):
            engine.find("x", limit)
    assert engine.find("   ").hits == ()
    assert Searcher(ToolIndex()).find("anything").hits == ()


@pytest.mark.parametrize(
    ("request_", "parts"),
    [
        ("What is the weather in Rome?", ["What is the weather in Rome?"]),
        ("Book a flight to Rome and tell me the weather.", ["Book a flight to Rome", "tell me the weather."]),
        ("Get bread and butter for the table", ["Get bread and butter for the table"]),
        ('Send "buy milk. and find eggs" to Bob', ['Send "buy milk. and find eggs" to Bob']),
        (
            "First, list the files in /tmp. Then delete the largest one; finally send me a report.",
            ["list the files in /tmp.", "delete the largest one", "send me a report."],
        ),
        ("Open a.b.com at 3.5 percent", ["Open a.b.com at 3.5 percent"]),
        ("", [""]),
    ],
)
def test_a_request_is_cut_where_a_new_wish_begins(request_: str, parts: list[str]) -> None:
    assert split(request_) == parts


def test_a_clause_may_begin_with_a_verb_that_is_given() -> None:
    request = "Get the forecast for Paris, and sound the alarm in London"
    assert split(request) == [request]
    assert split(request, frozenset(("sound",))) == [
        "Get the forecast for Paris",
        "sound the alarm in London",
    ]


@given(st.text(max_size=300))
def test_any_text_is_split_in_bounds(text: str) -> None:
    assert 1 <= len(split(text)) <= MAX_CLAUSES


@settings(max_examples=40)
@given(st.text(max_size=100))
def test_any_request_is_answered(text: str) -> None:
    for vectors in (False, True):
        assert len(searcher(vectors=vectors).find(text, 3).hits) <= 3


def test_an_inverted_file_finds_what_exact_search_finds_also_after_changes() -> None:
    pytest.importorskip("faiss")
    generator = np.random.default_rng(1)
    centres = generator.standard_normal((40, 32))
    rows = (centres[generator.integers(0, 40, 3000)] + 0.4 * generator.standard_normal((3000, 32))).astype(
        "f4"
    )
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    exact, near = VectorIndex(32), VectorIndex(32, flat_limit=1000)
    for index in (exact, near):
        index.put(range(2900), rows[:2900])
        wanting = index.wanting()
        assert (wanting is not None) == (index is near)
        if wanting is not None:
            index.adopt(inverted(*wanting), wanting[0])
            assert index.wanting() is None
        index.put(range(2900, 3000), rows[2900:])
        index.remove(range(50))
    allowed = np.ones(3000, dtype=np.bool_)
    allowed[::2] = False
    hits = 0
    for query in rows[2000:2040]:
        want, got = (index.scores(query[None], 3000, allowed)[0] for index in (exact, near))
        best = np.argsort(-np.where(allowed, want, -2))[:10]
        hits += len(set(best) & set(np.argsort(-np.where(allowed, got, -2))[:10]))
        assert got[2950] == pytest.approx(want[2950], abs=1e-5)
    assert hits >= 0.95 * 400


@pytest.mark.parametrize("approximate", [False, True])
def test_the_cosines_to_a_mean_of_requests_are_those_to_its_vector(approximate: bool) -> None:
    random = np.random.default_rng(2)
    rows = random.standard_normal((400, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = VectorIndex(32, flat_limit=100 if approximate else 1000)
    index.put(range(400), rows)
    if approximate and (wanting := index.wanting()) is not None:
        index.adopt(inverted(*wanting), wanting[0])
    queries, weights = rows[:3], np.array([3.0, 1.0, 2.0], dtype=np.float32)
    mean = weights @ queries
    alone = index.scores((mean / np.linalg.norm(mean))[None], 400)[0]
    beside = index.scores(queries, 400, mean=weights)
    assert index.approximate == approximate
    assert beside.shape == (4, 400)
    assert beside[0] == pytest.approx(alone, abs=1e-5)
    assert beside[1:] == pytest.approx(index.scores(queries, 400), abs=1e-5)


def test_the_process_that_searches_by_words_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from registry.store import Store; from registry.search.service import SearchService\n"
        f"store = Store.open({str(tmp_path / 't.db')!r}); service = SearchService(store, None, model=None)\n"
        "service.open(); service.find('x'); store.close()\n"
        "heavy = {'torch', 'sentence_transformers', 'onnxruntime', 'faiss', 'numpy', 'tokenizers'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
