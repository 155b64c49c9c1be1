"""Static facts, read by griffe: stub files, and the sources that compiled modules carry beside them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import griffe

from servers.worker import wording
from servers.worker.hints import ANY, Type

log = logging.getLogger("toolyard.convert")

_KINDS: Final = {
    "positional-only": "positional",
    "positional or keyword": "normal",
    "keyword-only": "keyword",
    "variadic positional": "varargs",
    "variadic keyword": "varkw",
}


@cache
def _module(path: str) -> Any:
    """The module object of one file, or None where it does not parse."""
    file = Path(path)
    try:
        return griffe.visit(file.stem, filepath=file, code=file.read_text("utf-8"))
    except (OSError, SyntaxError, ValueError, UnicodeDecodeError, RecursionError) as error:
        log.debug("no static facts from %s: %s", path, error)
        return None


def _files(site: Path, module: str, file: str, compiled: bool) -> Iterator[Path]:
    base = site / module.replace(".", "/")
    endings = (".pyi", ".py") if compiled else (".pyi",)
    for ending in endings:
        yield base.with_name(base.name + ending)
        yield base / f"__init__{ending}"
    if file:
        place = Path(file)
        for ending in endings:
            yield place.with_name(place.name.split(".")[0] + ending)


def facts(site: Path, paths: Iterable[str], file: str) -> tuple[list[dict[str, Any]], Type]:
    """Parameters and return type as a stub, or a compiled module's source, declares them.

    :param paths: the import paths of the object, any of which may lead to its declaration.
    :returns: parameters as a survey records them, and the return type; empty where nothing declares it.
    """
    compiled = not file.endswith(".py")
    for path in paths:
        module, _, name = path.partition(":")
        for place in _files(site, module, file, compiled):
            if not place.is_file():
                continue
            found = _inside(_module(str(place)), name)
            if found is not None:
                returns = wording.describe(str(found.returns)) if found.returns is not None else ANY
                return [
                    _parameter(each) for each in found.parameters if each.name not in ("self", "cls")
                ], returns
    return [], ANY


def _inside(module: Any, name: str) -> Any:
    found = module
    for part in name.split("."):
        found = getattr(found, "members", {}).get(part) if found is not None and not found.is_alias else None
    if found is None or found.is_alias or not found.is_function:
        return None
    return found


def _parameter(each: Any) -> dict[str, Any]:
    kind = _KINDS.get(each.kind.value if each.kind is not None else "", "normal")
    made: dict[str, Any] = {
        "name": each.name.lstrip("*"),
        "kind": kind,
        "type": wording.describe(str(each.annotation)) if each.annotation is not None else ANY,
    }
    if kind not in ("varargs", "varkw"):
        made["required"] = each.default is None
        if each.default is not None:
            made["default"] = str(each.default)[:200]
    return made
