"""``planner``: which planner makes plans, and our engine behind it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gateway.admin.run_client import RunClient
from gateway.cli import checks, render
from gateway.cli.shared import JsonFlag, StateFlag, verb
from gateway.paths import StateDir


def add_to(app: typer.Typer) -> None:
    """Add the verb of this file."""
    verb(app, "", planner)


def planner(
    restart: Annotated[
        bool,
        typer.Option("--restart", help="End the engine and forget its failures; the next plan starts it."),
    ] = False,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Show which planner makes plans, why, and how its engine stands."""
    gateway = RunClient(StateDir.at(state_dir))
    found = gateway.restart_engine() if restart else gateway.planner(probe=True)
    if json_:
        render.as_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    render.out(f"Plans are made by {checks.planner_words(found)}.")
    engine = found.get("engine")
    if engine is not None:
        rows = [("model", engine["model"]), ("starts", str(engine["starts"])), ("log", engine["log"] or "")]
        render.pairs([*rows, ("failures in a row", str(engine["failures"] or ""))])
    if mend := found.get("mend") or (engine or {}).get("mend"):
        render.paragraph(f"-> {mend}")
