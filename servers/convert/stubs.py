"""Stub files next to a module, read by griffe: the annotations that compiled and untyped code lacks."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

import griffe

from servers.worker import wording
from servers.worker.hints import ANY, Type

log = logging.getLogger("toolyard.convert")


@cache
def _module(path: str) -> Any:
    """The module object of one file, or None where it is not there or does not parse."""
    file = Path(path)
    try:
        code = file.read_text("utf-8")
        return griffe.visit(file.stem, filepath=file, code=code)
    except (OSError, SyntaxError, ValueError, UnicodeDecodeError, RecursionError) as error:
        log.debug("no static facts from %s: %s", path, error)
        return None


def candidates(site: Path, qualname: str, file: str) -> list[str]:
    """The stub files that may describe an object."""
    module = qualname.partition(":")[0]
    made = [site / (module.replace(".", "/") + ".pyi"), site / module.replace(".", "/") / "__init__.pyi"]
    if file:
        place = Path(file)
        made.append(place.with_name(place.name.split(".")[0] + ".pyi"))
    found = [str(path) for path in made if path.is_file()]
    if not found and not file.endswith(".py"):
        top = site / module.split(".")[0]
        found = [str(path) for path in sorted(top.glob("*.pyi"))[:4]]
    return found


def facts(site: Path, qualname: str, file: str) -> tuple[dict[str, tuple[Type, bool]], Type]:
    """Parameters and return type as a stub declares them.

    :returns: name -> (type, whether required), and the return type; empty where no stub knows the object.
    """
    path = qualname.partition(":")[2]
    for stub in candidates(site, qualname, file):
        found = _module(stub)
        for part in path.split("."):
            members = getattr(found, "members", {}) if found is not None else {}
            found = members.get(part)
        if found is None or not getattr(found, "is_function", False):
            continue
        kinds = {
            each.name.lstrip("*"): (
                wording.describe(str(each.annotation)) if each.annotation is not None else ANY,
                each.default is None,
            )
            for each in found.parameters
            if each.name not in ("self", "cls")
        }
        returns = wording.describe(str(found.returns)) if found.returns is not None else ANY
        return kinds, returns
    return {}, ANY
