"""What the tests of the gateway share; being here, it also puts the parts beside it on the path."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop the gateway runs on."""
    return "asyncio", {"use_uvloop": True}
