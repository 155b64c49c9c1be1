"""The adapter learns what was chosen, is kept only where search gets better, and survives damage loudly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from registry_parts import WordEncoder, definition

from registry import document
from registry.errors import IndexDamaged
from registry.feedback import training
from registry.feedback.adapter import Adapter
from registry.feedback.records import AdapterRecords
from registry.search.engine import Searcher
from registry.search.index import ToolIndex
from registry.search.service import embed
from registry.store import Store
from registry.vector.index import VectorIndex

NAMES = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
SLANG = ["jig", "bop", "wug", "dax", "fep", "zorp", "mib", "tove"]


def searcher() -> Searcher:
    index, encoder = ToolIndex(VectorIndex(WordEncoder.dimension)), WordEncoder()
    documents = [document.read("s", definition(name, f"Does {name}")) for name in NAMES]
    index.extend(documents)
    rows = embed(encoder, documents)
    index.put_vectors({one.key: row for one, row in zip(documents, rows, strict=True)})
    return Searcher(index, encoder)


def slang(count: int) -> list[training.Pair]:
    """Requests in words of this deployment's own, which no tool's text has."""
    random = np.random.default_rng(1)
    return [
        (f"{SLANG[n]} {SLANG[n]} case {random.integers(10**6)}", "s", NAMES[n])
        for n in random.integers(0, len(NAMES), count)
    ]


def test_a_deployments_own_words_are_learned_and_the_better_adapter_is_kept() -> None:
    learned = training.learn(searcher(), slang(600), None, version=3)
    assert learned.kept
    assert learned.adapter is not None
    assert learned.adapter.version == 3
    assert learned.trained > learned.plain + 0.1
    again = training.learn(searcher(), slang(600), learned.adapter, version=4)
    assert not again.kept


def test_noise_teaches_nothing_that_is_kept() -> None:
    random = np.random.default_rng(0)
    noise = [(f"please {name} {n}", "s", name) for n, name in enumerate(random.choice(NAMES, 300))]
    assert not training.learn(searcher(), noise, None, version=1).kept


@pytest.mark.parametrize("pairs", [[], slang(10), [("x", "gone", "gone")] * 200])
def test_too_little_feedback_is_no_lesson(pairs: list[training.Pair]) -> None:
    assert not training.learn(searcher(), pairs, None, version=1).kept


def test_the_same_request_is_held_back_or_learned_from_never_both() -> None:
    learn, held = training.split([*slang(300), *slang(300)])
    assert not {pair[0] for pair in learn} & {pair[0] for pair in held}
    assert 0.1 < len(held) / 600 < 0.3


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    random = np.random.default_rng(2)

    def unit(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        made = random.standard_normal((count, 6))
        return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True))

    queries, tools, targets = unit(5), unit(4), np.array([0, 1, 2, 3, 0])
    weights = 0.1 * random.standard_normal((6, 6))

    def loss(w: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
        moved = queries + queries @ w
        logits = moved / np.linalg.norm(moved, axis=1, keepdims=True) @ tools.T / training.TEMPERATURE
        return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(5), targets]))

    example = training.Example(queries, targets, tools)  # type: ignore[arg-type]  # float64 for the check
    slope = training._slope(weights, example, np.arange(5), random)  # type: ignore[arg-type]
    for i, j in ((0, 0), (2, 5), (4, 1)):
        step = np.zeros((6, 6))
        step[i, j] = 1e-6
        assert slope[i, j] == pytest.approx(
            (loss(weights + step) - loss(weights - step)) / 2e-6, rel=1e-3, abs=1e-6
        )


def test_adapters_are_versioned_and_the_latest_of_the_model_is_used(store: Store) -> None:
    records = AdapterRecords(store)
    assert records.current("m@1/text1") is None
    for version in (1, 2):
        assert records.next_version() == version
        records.put(Adapter("m@1", np.full((4, 4), version, dtype=np.float32), version), {"kept": True})
    current = records.current("m@1/text1/onnx1")
    assert current is not None
    assert current.version == 2
    assert (current.matrix == 2).all()
    assert records.drop(2)
    assert not records.drop(2)
    back = records.current("m@1")
    assert back is not None
    assert back.version == 1
    assert records.current("m@2") is None


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: b"", lambda d: d[:40] + b"\xff" + d[41:]])
def test_a_damaged_adapter_is_told(change: object) -> None:
    data = Adapter("m", np.eye(4, dtype=np.float32), 1).dump()
    assert callable(change)
    with pytest.raises(IndexDamaged, match="without it"):
        Adapter.load(change(data))


def test_the_shipped_adapter_is_sound_and_small() -> None:
    path = Path(training.__file__).parent / "general.adapter"
    if not path.is_file():
        pytest.skip("no general adapter is shipped in this tree")
    adapter = Adapter.load(path.read_bytes())
    assert adapter.matrix.shape == (384, 384)
    assert adapter.version == 0
    assert path.stat().st_size < 400_000
