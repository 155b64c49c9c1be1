"""Verbs of other parts of the product, imported when they are called and not before."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.cli import render
from gateway.cli.exits import Exit


class Part(NamedTuple):
    """Where a verb lives.

    :param module: it has a typer application called ``app``.
    :param extra: what to install for it.
    :param group: whether the verb names the application, and its own verbs follow.
    """

    module: str
    extra: str
    group: bool = False


VERBS: Final = {
    "convert": Part("servers.cli", "convert"),
    "host": Part("servers.cli", "convert"),
    "warm": Part("servers.cli", "convert"),
    "document": Part("servers.cli", "convert"),
    "sandbox": Part("servers.cli", "convert"),
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
    if part.group:
        application(rest, prog_name=f"toolyard {verb}")
    else:
        application([verb, *rest], prog_name="toolyard")
    return Exit.OK
