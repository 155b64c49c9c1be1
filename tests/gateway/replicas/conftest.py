"""Two gateways, each with a state directory of its own, on one real Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from postgres_server import PostgresServer, postgres
from replica_parts import Pair, gateway
from task_parts import Client, fixture_http


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    pytest.importorskip("psycopg", reason="the driver is missing: install toolyard[postgres]")
    with postgres() as running:
        if running is None:
            pytest.skip("Postgres is not installed: its `initdb` was not found")
        yield running


@pytest.fixture
def pair(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setenv("TOOLYARD_STORE", server.database())
    with ExitStack() as stack:
        new, _ = stack.enter_context(fixture_http("stateless"))
        old, _ = stack.enter_context(fixture_http("handshake"))
        servers = {"new": {"type": "http", "url": new}, "old": {"type": "http", "url": old}}
        one = stack.enter_context(gateway(tmp_path / "one", servers))
        other = stack.enter_context(gateway(tmp_path / "other", servers))
        for yard in (one, other):
            Client(yard.url).ready(of=2)
        yield Pair(one, other, servers)
