"""A small service, really converted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

CODE = '''
import time


def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return a + b


def slow(seconds: float = 0.1) -> float:
    """Take a while."""
    time.sleep(seconds)
    return seconds


class Counter:
    """Counts."""

    def __init__(self, start: int = 0) -> None:
        self.count = start

    def up(self) -> int:
        """One more."""
        self.count += 1
        return self.count
'''


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a converted package."""
    from trap_packages import convert, wheel

    from servers.sandbox import levels

    if levels.report().level not in ("L2", "L3"):
        pytest.skip("this machine has no sandbox L2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_OFFLINE", "1")
        folder = tmp_path_factory.mktemp("counting")
        patch.setenv("TOOLYARD_ENVIRONMENTS_DIR", str(folder / "environments"))
        made = wheel(folder, "counting", {"counting.py": CODE})
        done = convert(str(made), folder / "out")
        assert done.returncode == 0, done.stderr
        yield folder / "out"


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where environments go that were never built, with no network."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("TOOLYARD_ENVIRONMENTS_DIR", str(tmp_path / "environments"))
    return tmp_path / "environments"
