"""``approve-call``: a person's word on calls of clients that cannot ask one themselves."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.admin.toolset_client import ToolsetClient
from gateway.cli import render
from gateway.cli.shared import JsonFlag, StateFlag, verb
from gateway.paths import StateDir


def add_to(app: typer.Typer) -> None:
    """Add the verb of this file."""
    verb(app, "[ID]", approve_call, name="approve-call")


def approve_call(
    ident: Annotated[str | None, typer.Argument(metavar="ID", hidden=True)] = None,
    deny: Annotated[bool, typer.Option("--deny", help="Deny it instead.")] = False,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Allow the call ID, once; without ID, list the calls that wait.

    A tool that may change something is not run for a model unasked. A client that can ask you does so;
    for one that cannot, the call waits here ten minutes, and is made when the client tries again.
    """
    gateway = ToolsetClient(StateDir.at(state_dir))
    if ident is not None:
        done = gateway.decide(ident, not deny)
        if json_:
            render.as_json(done)
        else:
            then = "may be made once" if done["allowed"] else "is denied"
            render.out(f"The call of {done['tool']} {then}.")
        return
    rows = gateway.approvals()
    if json_:
        render.as_json({"approvals": rows})
        return
    if not rows:
        render.out("No call waits.")
        return
    render.table(
        ("id", "tool", "client", "seconds left", "arguments"),
        [(r["id"], r["tool"], r["client"], str(r["expires_in"]), r["arguments"]) for r in rows],
        right=("seconds left",),
    )
