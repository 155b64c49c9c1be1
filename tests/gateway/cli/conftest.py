"""A place of its own for every test of the command line, and a gateway where one is wanted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_parts import PEER, Place, end


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place whose gateway runs, with the echo peer in it."""
    place = Place(tmp_path_factory.mktemp("served"))
    process = place.serve()
    added = place.run("add", "peer", "--", sys.executable, PEER)
    assert added.returncode == 0, added.stderr
    # One of its tools tries to steer the terminal, and waits for a person.
    assert place.run("registry", "approve", "peer/mixed").returncode == 0
    yield place
    assert end(process) == 0
