"""Importing a package with all its public modules, in bounds, and seeing what it asked for in vain."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

from . import contain

_SKIPPED = {
    "tests", "test", "testing", "conftest", "__main__", "_vendor", "vendor", "vendored", "_vendored",
    "examples", "example", "docs", "benchmarks", "benchmark", "setup", "site", "_version",
}  # fmt: skip
_TESTS = re.compile(r"^(test|tests|testing|testsuite|conftest)(_|$)|_tests?$")


class Missing:
    """The last finder asked: whatever reaches it is not installed."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages
        self.missing: list[dict[str, str]] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Note who asked for what; find nothing."""
        if path is not None:
            return
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None:
            asker = str(frame.f_globals.get("__name__", ""))
            if asker.split(".")[0] in self._packages:
                self.missing.append({"module": name, "by": asker})
                return
            frame = frame.f_back


def all_of(request: dict[str, Any]) -> tuple[list[types.ModuleType], dict[str, str], float]:
    """Import every public module of some packages: the modules, what failed and why, the seconds of the first."""
    skip = set(request.get("skip", ()))
    one, deadline = request["import_seconds"], time.monotonic() + request["total_seconds"]
    failed: dict[str, str] = {}
    modules: list[types.ModuleType] = []
    main = 0.0

    def load(name: str) -> types.ModuleType | None:
        if name in skip:
            failed[name] = "it hung or ended the process when it was imported"
            return None
        if time.monotonic() > deadline:
            failed[name] = "there was no time left to import it"
            return None
        with open(request["progress"], "w") as file:
            file.write(name)
        try:
            with contain.limit(one):
                return importlib.import_module(name)
        except contain.TooSlow:
            failed[name] = f"importing it took longer than {one:g} s"
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # foreign code
            failed[name] = contain.describe(error)
        return None

    queue = list(request["packages"])
    while queue:
        name = queue.pop(0)
        start = time.perf_counter()
        module = load(name)
        if name == request["packages"][0]:
            main = time.perf_counter() - start
        if module is None:
            continue
        modules.append(module)
        queue += sorted(_inside(module))
    return modules, failed, main


def _inside(module: types.ModuleType) -> Iterator[str]:
    for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if not info.name.startswith("_") and info.name not in _SKIPPED and not _TESTS.search(info.name):
            yield f"{module.__name__}.{info.name}"
