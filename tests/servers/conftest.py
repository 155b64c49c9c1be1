"""One converted package of traps, shared by the tests that only call it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trap_source as traps
from trap_packages import Client, convert, wheel

from servers.manifest import files
from servers.manifest.records import Manifest
from servers.sandbox import levels


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Environments of the tests' own, and no network."""
    patch = pytest.MonkeyPatch()
    patch.setenv("TOOLYARD_ENVIRONMENTS_DIR", str(tmp_path_factory.mktemp("environments")))
    patch.setenv("UV_OFFLINE", "1")
    yield
    patch.undo()


@pytest.fixture(scope="session")
def needs_l2() -> None:
    """Skip where the machine has no landlock."""
    if levels.report().level not in ("L2", "L3"):
        pytest.skip("this machine has no sandbox L2")


@pytest.fixture(scope="session")
def converted(needs_l2: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the converted trap package."""
    folder = tmp_path_factory.mktemp("traps")
    made = wheel(folder, "traps", traps.FILES, scripts=traps.SCRIPTS, readme=traps.README)
    done = convert(str(made), folder / "out", "--review-seconds", "120")
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture(scope="session")
def manifest(converted: Path) -> Manifest:
    return files.read(converted)


@pytest.fixture(scope="module")
def service(converted: Path) -> Iterator[Client]:
    """The trap package, hosted."""
    with Client(converted) as client:
        yield client
