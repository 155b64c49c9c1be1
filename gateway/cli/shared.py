"""Flags that several verbs share, and the gateway or the store behind them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from typer.core import TyperCommand

from gateway.admin.client import ControlClient, Line
from gateway.cli.waiting import Waiting
from gateway.errors import GatewayError, NotFound
from gateway.paths import StateDir

StateFlag: TypeAlias = Annotated[
    Path | None,
    typer.Option("--state-dir", metavar="DIR", help="Which gateway: there is one per state directory."),
]
JsonFlag: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

# Typer carries its own Click, or uses the one that is installed: the family of errors is found by its child.
_UsageError: Any = typer.BadParameter.__mro__[1]

LAST_KNOWN = "No gateway is running; this is the last known state."


def verb(app: typer.Typer, usage: str, function: Callable[..., None], **settings: Any) -> None:
    """Add a command. Its page begins with its usage as a person would write it.

    :param usage: the arguments; the docstring says what they are.
    """
    takes_command = "-- CMD" in usage

    class Verb(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            given = list(args)
            try:
                return super().parse_args(ctx, args)
            except _UsageError as error:
                flag = getattr(error, "option_name", None)
                if takes_command and type(error).__name__ == "NoSuchOption" and "--" not in given:
                    raise _UsageError(
                        f"{flag} is no flag of this verb. If it belongs to the server's command, that "
                        f"command belongs behind `--`, as in: {ctx.command_path} NAME -- CMD {flag}",
                        ctx,
                    ) from None
                raise

        def collect_usage_pieces(self, ctx: Any) -> list[str]:
            return [part for part in (usage, "" if "[FLAGS]" in usage else "[FLAGS]") if part]

    app.command(cls=Verb, **settings)(function)


def client(state: Path | None) -> ControlClient:
    """The client of the gateway that holds a state directory; connects with the first verb."""
    return ControlClient(StateDir.at(state))


def started(lines: Iterator[Line], what: str) -> dict[str, Any]:
    """Follow a server's start to its end: ``{"server": row, "tools": [names]}``. Raises GatewayError.

    :param what: what a terminal shows meanwhile.
    """
    done: dict[str, Any] = {}
    with Waiting(what):
        for line in lines:
            error = line.body.get("error")
            if isinstance(error, dict):
                hint = error.get("hint")
                raise GatewayError(str(error.get("message")), hint if isinstance(hint, str) else None)
            done = line.body
    return done


def unknown(kind: str, name: str, known: Iterable[str], listing: str) -> NotFound:
    """The error for a name that does not exist, with the names it may have meant.

    :param listing: the verb that shows them all.
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    near += [n for n in names if name.lower() in n.lower() and n not in near][: 3 - len(near)]
    hint = f"Did you mean {' or '.join(near)}?" if near else f"`{listing}` shows what there is."
    return NotFound(f"There is no {kind} {name!r}.", hint)
