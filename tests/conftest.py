"""What every test shares."""

from __future__ import annotations

import signal

import pytest

# A shell starts what runs in the background with SIGINT ignored, and children inherit that: Ctrl-C
# could not be tested from there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run it with pytest --slow"))


@pytest.fixture
def anyio_backend() -> str:
    """The gateway runs on asyncio, and so do its tests."""
    return "asyncio"
