"""Vectors in the store and in generation files: sound or missing, never wrong."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from registry_parts import WordEncoder, definition

from registry.errors import IndexDamaged
from registry.search.service import SearchService, embed
from registry.store import Store
from registry.sync import sync_server
from registry.tools import ToolRecords
from registry.vector import generation
from registry.vector.records import Key, VectorRecords

KEYS: list[Key] = [(f"s{n % 3}", f"{n:064d}") for n in range(2500)]


def rows(count: int, dimension: int = 8) -> NDArray[np.float32]:
    made = np.random.default_rng(0).standard_normal((count, dimension)).astype(np.float32)
    unit: NDArray[np.float32] = made / np.linalg.norm(made, axis=1, keepdims=True)
    return unit


def test_vectors_come_back_as_they_were_put_and_belong_to_their_model(store: Store) -> None:
    records = VectorRecords(store, "m@1", 8)
    records.put(KEYS, rows(2500))
    for keys in (KEYS, KEYS[:300]):  # read as a whole, and by key
        found, damaged = records.get([*keys, ("s", "unknown")])
        assert damaged == []
        assert list(found) == keys or set(found) == set(keys)
        assert all(np.array_equal(found[key], row) for key, row in zip(keys, rows(2500), strict=False))
    assert VectorRecords(store, "m@2", 8).get(KEYS[:5]) == ({}, [])


@pytest.mark.parametrize("bad", [np.zeros((1, 8)), np.full((1, 8), np.nan), np.ones((1, 7)), np.ones((2, 8))])
def test_null_infinite_and_wrong_sized_vectors_are_refused(store: Store, bad: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="vector"):
        VectorRecords(store, "m", 8).put(KEYS[:1], bad.astype(np.float32))


def test_a_damaged_vector_counts_as_missing(store: Store) -> None:
    records = VectorRecords(store, "m", 8)
    records.put(KEYS[:3], rows(3))
    other = sqlite3.connect(store.place)
    with other:
        other.execute("update vectors set vector = zeroblob(32) where hash = ?", (KEYS[0][1],))
        other.execute("update vectors set dimension = 9 where hash = ?", (KEYS[1][1],))
    other.close()
    found, damaged = records.get(KEYS[:3])
    assert list(found) == [KEYS[2]]
    assert sorted(damaged) == sorted(KEYS[:2])


def test_vectors_of_versions_that_are_gone_are_pruned(store: Store) -> None:
    report = sync_server(ToolRecords(store), "s", [definition("a")])
    records = VectorRecords(store, "m", 8)
    kept = ("s", report.created[0].after or "")
    records.put([kept, KEYS[1]], rows(2))
    assert records.prune() == 1
    assert list(records.get([kept, KEYS[1]])[0]) == [kept]


def test_a_generation_is_a_faiss_file_and_comes_back_whole(tmp_path: Path) -> None:
    for number in range(1, 5):
        assert generation.write(tmp_path, "m", KEYS[:number], rows(number)) == number
    assert generation.numbers(tmp_path) == [3, 4]
    found = generation.read(tmp_path, "m")
    assert found is not None
    assert found.keys == KEYS[:4]
    assert np.array_equal(found.rows, rows(4))
    assert generation.read(tmp_path, "another model") is None
    faiss = pytest.importorskip("faiss")
    index = faiss.read_index(str(tmp_path / "index-4" / "vectors.faiss"))
    assert (index.ntotal, index.d, index.metric_type) == (4, 8, faiss.METRIC_INNER_PRODUCT)
    assert np.array_equal(index.reconstruct_n(0, 4), rows(4))


@pytest.mark.parametrize("file", ["vectors.faiss", "tools.json", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "empty"])
def test_a_damaged_generation_is_told_and_never_used(tmp_path: Path, file: str, damage: str) -> None:
    generation.write(tmp_path, "m", KEYS[:20], rows(20))
    path = tmp_path / "index-1" / file
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    with pytest.raises(IndexDamaged, match="built again"):
        generation.read(tmp_path, "m")


def test_what_a_killed_writer_left_is_cleaned_and_never_read(tmp_path: Path) -> None:
    (tmp_path / ".writing-x").mkdir(parents=True)
    assert generation.read(tmp_path, "m") is None
    generation.clean(tmp_path)
    assert list(tmp_path.iterdir()) == []


class Words(SearchService):
    """The service with a small encoder that needs no model."""

    def ready(self) -> SearchService:
        self._name = None
        self.open()
        self._name = "words"
        self._use(WordEncoder())
        return self


def texts(count: int, word: str = "thing") -> list[bytes]:
    return [definition(f"tool_{n}", f"Does {word} number {n}") for n in range(count)]


def test_only_what_changed_is_embedded_again(store: Store, tmp_path: Path) -> None:
    records = ToolRecords(store)
    sync_server(records, "s", texts(300))
    service = Words(store, tmp_path / "cache").ready()
    assert service.check().lacking == 300
    done: list[tuple[int, int]] = []
    assert service.prepare(lambda at, total: done.append((at, total)))
    assert done[-1] == (300, 300)
    changed = [*texts(10, "other"), *texts(300)[10:290]]
    report = sync_server(records, "s", changed)
    assert service.apply(report) == len(report.created) + len(report.updated) == 10
    done.clear()
    service.prepare(lambda at, total: done.append((at, total)))
    assert done == [(10, 10)]
    health = service.check()
    assert (health.mode, health.tools, health.vectors, health.problems) == ("hybrid", 290, 290, ())
    # Back to what it was: nothing is embedded, the vectors are still stored.
    assert service.apply(sync_server(records, "s", texts(300))) == 0


def test_a_damaged_index_file_is_said_and_rebuilt_from_the_store(store: Store, tmp_path: Path) -> None:
    sync_server(ToolRecords(store), "s", texts(50))
    Words(store, tmp_path).ready().prepare()
    for path in (tmp_path / "index").glob("*/vectors.faiss"):
        path.write_bytes(b"nonsense")
    said: list[str] = []
    service = Words(store, tmp_path, say=said.append).ready()
    assert any("damaged" in line and "built again" in line for line in said)
    assert service.check().vectors == 50
    assert service.find("thing number 7", 1).hits[0].ref.name == "tool_7"
    service.write_generation()
    said.clear()
    Words(store, tmp_path, say=said.append).ready()
    assert said == []


def test_two_processes_on_one_store_agree_after_following(tmp_path: Path) -> None:
    with Store.open(tmp_path / "t.db") as store, Store.open(tmp_path / "t.db", readonly=True) as other:
        writer, reader = Words(store, tmp_path / "a").ready(), Words(other, tmp_path / "b").ready()
        assert not reader.follow()
        report = sync_server(writer.records, "s", texts(5))
        writer.apply(report)
        writer.prepare()
        assert reader.follow()
        assert not reader.follow()
        for service in (writer, reader):
            found = service.find("thing number 3", 1)
            assert (found.mode, found.hits[0].ref.name) == ("hybrid", "tool_3")


def test_the_self_check_tells_of_tools_and_vectors_that_are_wrong(store: Store, tmp_path: Path) -> None:
    sync_server(ToolRecords(store), "s", texts(5))
    service = Words(store, tmp_path).ready()
    service.prepare()
    index = service.searcher.index
    assert index.vectors is not None
    index.vectors.put([1], np.zeros((1, WordEncoder.dimension), dtype=np.float32))
    index.remove("s", "tool_0")
    problems = " ".join(service.check().problems)
    assert "1 vectors are null" in problems
    assert "lacks 1 tools" in problems
    service.reindex()
    assert service.check().problems == ()


def test_a_tool_vector_is_the_unit_mean_of_its_texts() -> None:
    from registry import document

    one = document.read("s", definition("a", "b", c={"description": "d"}))
    made = embed(WordEncoder(), [one])[0]
    mean = WordEncoder().encode_documents(document.embedding_texts(one)).mean(axis=0)
    assert np.allclose(made, mean / np.linalg.norm(mean), atol=1e-5)
    assert json.loads(definition("a"))["name"] == "a"
