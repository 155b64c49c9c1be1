"""What the tests of planning in a gateway share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder, with random weights: what it writes is noise."""
    pytest.importorskip("torch", reason="torch is missing: install toolyard[inference]")
    pytest.importorskip("llguidance", reason="llguidance is missing: install toolyard[inference]")
    from tiny_checkpoints import make_checkpoint

    folder = tmp_path_factory.mktemp("noise") / "tiny"
    make_checkpoint(folder, "qwen3", max_position_embeddings=16_384)
    return folder
