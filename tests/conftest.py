"""What every test shares."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# On a slow machine an example may take any time, and so may making one up.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

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


@pytest.fixture(scope="session", autouse=True)
def _environments_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where gateways under test build the services they start with: never among the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLYARD_ENVIRONMENTS_DIR", str(tmp_path_factory.mktemp("environments")))
        yield


@pytest.fixture
def anyio_backend() -> str:
    """The gateway runs on asyncio, and so do its tests."""
    return "asyncio"
