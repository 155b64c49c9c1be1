"""Gateways in front of the fixture server, and a client of 2026-07-28 that shows everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from task_parts import Client, entry_of, fixture_http
from yard import Yard, serving

KINDS = ("http handshake", "stdio stateless", "stdio handshake", "http stateless")


@pytest.fixture(scope="package")
def yards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Yard]]:
    """A gateway for each kind of server, started when it is first asked for."""
    with ExitStack() as stack:
        running: dict[str, Yard] = {}

        def yard(kind: str) -> Yard:
            if kind not in running:
                transport, era = kind.split()
                entry: dict[str, Any] = entry_of(era)
                if transport == "http":
                    entry = {"type": "http", "url": stack.enter_context(fixture_http(era))[0]}
                root = tmp_path_factory.mktemp("tasks")
                flags = ("--names", "on-collision", "--no-auth")
                running[kind] = stack.enter_context(serving(root, {"fixture": entry}, *flags))
                Client(running[kind].url).ready()
            return running[kind]

        yield yard


@pytest.fixture(params=KINDS)
def any_client(request: pytest.FixtureRequest, yards: Callable[[str], Yard]) -> Client:
    """A client of a gateway, whose server speaks one era over one transport."""
    return Client(yards(request.param).url)


@pytest.fixture(params=KINDS[:2])
def client(request: pytest.FixtureRequest, yards: Callable[[str], Yard]) -> Client:
    """The same, where era and transport do not depend on each other: each once."""
    return Client(yards(request.param).url)


@pytest.fixture
def one_client(yards: Callable[[str], Yard]) -> Client:
    """A client where it makes no difference what the server speaks."""
    return Client(yards("http handshake").url)
