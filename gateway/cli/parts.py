"""Verbs of other parts of the product, imported when they are called and not before."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from gateway.cli import render
from gateway.cli.exits import Exit


class Part(NamedTuple):
    """Where a verb lives.

    :param module: it has a typer application called ``app``.
    :param extra: what to install for it.
    :param group: whether the verb names the application, and its own verbs follow.
    :param errors: ``module:name`` of the errors it raises on purpose; each has a ``message`` and a ``hint``.
    """

    module: str
    extra: str
    group: bool = False
    errors: str = ""


_SERVERS: Final = Part("servers.cli", "convert", errors="servers.errors:ServersError")


VERBS: Final = {
    "convert": _SERVERS,
    "host": _SERVERS,
    "warm": _SERVERS,
    "document": _SERVERS,
    "sandbox": _SERVERS,
    "plan": Part("gateway.cli.planning", "search"),
    "infer": Part("inference.cli", "inference", group=True),
}


def run(arguments: Sequence[str]) -> int:
    """Run a verb of VERBS. Returns its exit code; SystemExit passes through."""
    verb, *rest = arguments
    part = VERBS[verb]
    try:
        application = importlib.import_module(part.module).app
    except ImportError as error:
        render.problem(
            f"{verb} needs a part that is not installed ({error.name}).",
            f"Install it: pip install 'toolyard[{part.extra}]'.",
        )
        return Exit.FAILED
    try:
        if part.group:
            application(rest, prog_name=f"toolyard {verb}")
        else:
            application([verb, *rest], prog_name="toolyard")
    except Exception as error:
        if not isinstance(error, _expected(part)):
            raise
        render.problem(error.message, error.hint)
        return Exit.FAILED
    return Exit.OK


def _expected(part: Part) -> tuple[type[Any], ...]:
    """The errors that a part raises on purpose."""
    module, _, name = part.errors.partition(":")
    return (getattr(importlib.import_module(module), name),) if module else ()
