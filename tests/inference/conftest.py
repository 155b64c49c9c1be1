"""Fixtures: tiny checkpoints, one for each family."""

from __future__ import annotations

import pytest
from tiny_checkpoints import FAMILIES, Reference, make_checkpoint


@pytest.fixture(scope="session", params=FAMILIES)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return make_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return make_checkpoint(tmp_path_factory.mktemp("qwen3-alone"), "qwen3")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
