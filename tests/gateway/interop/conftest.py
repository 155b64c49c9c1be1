"""One gateway for all tests that only use it, with a server of everything behind every transport."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from npm_packages import Npm, Unavailable, installed
from yard import Yard, everything, everything_stdio, over_http, over_stdio, raw_client, serving, until

UPSTREAMS = ("stdio", "http", "json", "sse")


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A gateway with an everything server over stdio, HTTP with SSE or JSON answers, and HTTP+SSE."""
    with ExitStack() as stack:
        servers = {
            "stdio": everything_stdio("stdio"),
            "http": {"url": stack.enter_context(everything("http", "http"))},
            "json": {"url": stack.enter_context(everything("json", "http", "--json"))},
            "sse": {"url": stack.enter_context(everything("sse", "sse")), "type": "sse"},
        }
        yard = stack.enter_context(serving(tmp_path_factory.mktemp("house"), servers))
        with raw_client(yard) as client:
            until("tools of every server", lambda: True if len(client.names()) >= 48 else None)
        yield yard


@pytest.fixture(params=UPSTREAMS)
def upstream(request: pytest.FixtureRequest) -> str:
    """The name of a server; it says by which transport the gateway reaches it."""
    return str(request.param)


@pytest.fixture(params=["legacy", "2026-07-28"])
def era(request: pytest.FixtureRequest) -> str:
    """The SDK client's mode."""
    return str(request.param)


@pytest.fixture(params=["http", "stdio"])
def connect(request: pytest.FixtureRequest) -> Callable[..., object]:
    """How the SDK's client reaches the gateway."""
    return {"http": over_http, "stdio": over_stdio}[request.param]


@pytest.fixture(scope="session")
def npm() -> Npm:
    """The npm reference servers; without npm the test is skipped, loudly."""
    try:
        return installed()
    except Unavailable as reason:
        warnings.warn(f"tests with npm servers are skipped: {reason}", stacklevel=1)
        pytest.skip(str(reason))
