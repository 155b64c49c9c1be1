"""The gateways of these tests, each started once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from crossing_parts import CLIENTS, SERVERS, Houses
from yard import Yard


@pytest.fixture(scope="session")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    """Every gateway there is."""
    with ExitStack() as stack:
        yield Houses(stack, tmp_path_factory.mktemp)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    """The server's era and transport."""
    return str(request.param)


@pytest.fixture(params=CLIENTS)
def era(request: pytest.FixtureRequest) -> str:
    """The SDK client's mode."""
    return str(request.param)


@pytest.fixture
def yard(houses: Houses, server: str) -> Yard:
    """The gateway before that server."""
    return houses.before(server)
