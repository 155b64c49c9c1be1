"""Search by words: how text becomes terms, and that the index ranks as BM25 says at every moment."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import document
from registry.lexical import BM25Index, document_terms, query_terms
from registry.lexical.bm25 import K1, B

WORDS = st.sampled_from(["mail", "send", "file", "read", "city", "weather", "x"])
DOCUMENTS = st.dictionaries(WORDS, st.integers(1, 4).map(float), max_size=5)


def tool(name: str, description: str = "", server: str = "s", **properties: object) -> document.ToolDocument:
    schema = {"type": "object", "properties": properties}
    data = {"name": name, "description": description, "inputSchema": schema}
    return document.read(server, json.dumps(data).encode())


def test_a_document_reads_names_titles_and_nested_parameters() -> None:
    nested = {"type": "object", "properties": {"zip": {"description": "postal code"}}}
    found = tool("getWeather", "Weather now.", address=nested, when={"type": "string"})
    assert found.parameters == (("address", ""), ("when", ""), ("zip", "postal code"))
    assert document.embedding_texts(found) == (
        "s: get Weather. Weather now.",
        "s: get Weather. Weather now. Parameters: address, when, zip (postal code)",
    )
    assert document.embedding_texts(tool("ping")) == ("s: ping.",)


@pytest.mark.parametrize("schema", [None, 3, [], {"properties": []}, {"properties": {"a": 1}}, {"items": 2}])
def test_a_schema_of_any_shape_is_read_for_what_it_gives(schema: object) -> None:
    data = json.dumps({"name": "t", "inputSchema": schema, "description": 7, "annotations": []}).encode()
    assert document.read("s", data).name == "t"


@pytest.mark.parametrize("data", [b"[]", b"{}", b'{"name": 1}', b"nope", b"\xff"])
def test_what_is_no_tool_definition_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        document.read("s", data)


def test_identifiers_are_found_by_their_words_and_as_a_whole() -> None:
    terms = document_terms(tool("getUserByID", "Looks in arXiv"))
    for request in ("get the user", "users by id", "getuserbyid", "arxiv", "ar xiv", "get_user"):
        assert set(query_terms(request)) & set(terms), request


def test_a_word_finds_its_other_forms_but_itself_first() -> None:
    index = BM25Index()
    booked, book = index.add(document_terms(tool("booked"))), index.add(document_terms(tool("book")))
    scores = index.scores(query_terms("book"))
    assert scores[book] > scores[booked] > 0


def test_scripts_without_spaces_and_accents_are_found() -> None:
    assert set(query_terms("天气预报")) & set(document_terms(tool("w", "查询天气")))
    assert "cafe" in document_terms(tool("t", "Café"))


def test_a_request_of_stop_words_alone_keeps_them() -> None:
    assert "who" in query_terms("who are you")
    assert "the" not in query_terms("the weather")
    assert query_terms("") == query_terms("…!") == []


def expected(documents: Mapping[int, Mapping[str, float]], terms: list[str]) -> dict[int, float]:
    """BM25 written down as the paper has it."""
    lengths = {slot: sum(counts.values()) for slot, counts in documents.items()}
    average = sum(lengths.values()) / len(documents) if documents and any(lengths.values()) else 1.0
    scores: dict[int, float] = {}
    for slot, counts in documents.items():
        for term in terms:
            if term in counts:
                df = sum(term in other for other in documents.values())
                idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
                tf = counts[term]
                norm = K1 * (1 - B + B * lengths[slot] / average)
                scores[slot] = scores.get(slot, 0.0) + idf * tf * (K1 + 1) / (tf + norm)
    return scores


@settings(max_examples=150)
@given(st.lists(st.one_of(DOCUMENTS, st.integers(0, 9)), max_size=14), st.lists(WORDS, max_size=4))
def test_after_any_additions_and_removals_scores_are_those_of_a_new_index(
    steps: list[dict[str, float] | int], terms: list[str]
) -> None:
    index = BM25Index()
    living: dict[int, dict[str, float]] = {}
    for step in steps:
        if isinstance(step, dict):
            living[index.add(step)] = step
        elif step in living:
            index.remove(step)
            del living[step]
    wanted = expected(living, terms)
    assert index.scores(terms) == pytest.approx(wanted, rel=1e-4)
    dense = index.dense_scores(terms)
    assert dense.dtype == np.float32
    assert {slot: float(s) for slot, s in enumerate(dense) if s} == pytest.approx(wanted, rel=1e-4)
    assert len(index) == len(living)


def test_a_slot_is_removed_once() -> None:
    index = BM25Index()
    slot = index.add({"a": 1.0})
    index.remove(slot)
    for gone in (slot, 7, -1):
        with pytest.raises(KeyError):
            index.remove(gone)


def test_why_a_tool_matched_names_its_rarest_term_first() -> None:
    index = BM25Index()
    for name in ("mail", "mail", "mail weather"):
        slot = index.add(dict.fromkeys(name.split(), 1.0))
    assert index.matched(slot, ["mail", "weather", "city"]) == ["weather", "mail"]
