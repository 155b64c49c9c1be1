"""Which servers keep state of their callers, so that each session needs a process of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.errors import ConfigError
from registry.model import ServerSpec

SHARED: Final = "shared"
SESSION: Final = "session"
KEY: Final = "isolation"
"""The key of a server's entry that says which."""

_STATEFUL: Final = re.compile(
    r"(?:.*[-_])?(?:playwright|puppeteer|browser-use|browser_use|browsermcp|chrome-devtools|selenium)(?:[-_].*)?",
    re.IGNORECASE,
)
"""Names of packages and programs that drive a browser: pages, cookies and log-ins are their state."""
_RUNS_IMAGES: Final = frozenset({"docker", "podman", "nerdctl"})


def isolated(spec: ServerSpec) -> bool:
    """Whether each session gets a connection of its own: as the entry says, else as the server is known.

    Raises ConfigError for a value that means neither.
    """
    said = spec.extra.get(KEY)
    if said is None:
        return known_stateful(spec.command, spec.args)
    if said not in (SHARED, SESSION):
        raise ConfigError(
            f"Server '{spec.name}' has the isolation {said!r}.", f'Write "{SHARED}" or "{SESSION}".'
        )
    return bool(said == SESSION)


def known_stateful(command: str | None, args: tuple[str, ...]) -> bool:
    """Whether a command starts a server that is known to drive a browser."""
    if command is None:
        return False
    program = re.split(r"[/\\]", command)[-1]
    if _matches(program):
        return True
    images = program.lower().removesuffix(".exe") in _RUNS_IMAGES
    return any(_names_package(word, images) for word in args)


def _names_package(word: str, images: bool) -> bool:
    """Whether a word of a command line is a package like ``@playwright/mcp@latest``, and one of those."""
    if not word or word[0] in "-./~" or "\\" in word or "=" in word:
        return False
    name = re.split(r"[\[:]|(?<=.)@", word)[0]
    if "/" in name and not (images or name.startswith("@")):
        return False  # a path
    return any(_matches(part) for part in name.removeprefix("@").split("/"))


def _matches(name: str) -> bool:
    return _STATEFUL.fullmatch(name) is not None


def number(extra: Mapping[str, Any], key: str, default: int) -> int:
    """A number of an entry that is ours, under ``extra`` because other clients do not know it."""
    value = extra.get(key, default)
    return (
        int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
        else default
    )
