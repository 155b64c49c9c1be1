"""Flags that several verbs share, and the gateway or the store behind them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from typer.core import TyperCommand

from gateway.admin.client import ControlClient
from gateway.errors import NotFound
from gateway.paths import StateDir

StateFlag: TypeAlias = Annotated[
    Path | None,
    typer.Option("--state-dir", metavar="DIR", help="Which gateway: there is one per state directory."),
]
JsonFlag: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

LAST_KNOWN = "No gateway is running; this is the last known state."


def verb(app: typer.Typer, usage: str, function: Callable[..., None], **settings: Any) -> None:
    """Add a command. Its page begins with its usage as a person would write it.

    :param usage: the arguments; the docstring says what they are.
    """

    class Verb(TyperCommand):
        def collect_usage_pieces(self, ctx: Any) -> list[str]:
            return [part for part in (usage, "" if "[FLAGS]" in usage else "[FLAGS]") if part]

    app.command(cls=Verb, **settings)(function)


def client(state: Path | None) -> ControlClient:
    """The client of the gateway that holds a state directory; connects with the first verb."""
    return ControlClient(StateDir.at(state))


def unknown(kind: str, name: str, known: Iterable[str], listing: str) -> NotFound:
    """The error for a name that does not exist, with the names it may have meant.

    :param listing: the verb that shows them all.
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    near += [n for n in names if name.lower() in n.lower() and n not in near][: 3 - len(near)]
    hint = f"Did you mean {' or '.join(near)}?" if near else f"`{listing}` shows what there is."
    return NotFound(f"There is no {kind} {name!r}.", hint)
