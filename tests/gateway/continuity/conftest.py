"""The parts these tests share lie one folder up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop the gateway runs on."""
    return "asyncio", {"use_uvloop": True}
