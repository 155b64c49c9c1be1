"""``runs promote``, ``promoted``, ``demote``: plans that worked as tools of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.admin.run_client import RunClient
from gateway.cli import render
from gateway.cli.shared import JsonFlag, StateFlag, verb
from gateway.paths import StateDir


def add_to(group: typer.Typer) -> None:
    """Add the verbs of this file to ``runs``."""
    verb(group, "ID NAME", promote)
    verb(group, "", promoted)
    verb(group, "NAME", demote)


def _client(state_dir: Path | None) -> RunClient:
    return RunClient(StateDir.at(state_dir))


def promote(
    run_: Annotated[str, typer.Argument(metavar="ID", hidden=True)],
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    describe: Annotated[
        str, typer.Option("--describe", metavar="TEXT", help="What clients are told that it does.")
    ] = "",
    fix: Annotated[
        list[str] | None,
        typer.Option("--fix", metavar="PARAMETER", help="Keep this run's value; may be given several times."),
    ] = None,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Make a tool NAME of the run ID: the same calls, with values of the caller's.

    It is listed, searched and called like any other tool. Its steps ask for consent as they would anyway.
    """
    body = {"run": run_, "name": name, "description": describe, "fixed": fix or []}
    found = _client(state_dir).promote(body)
    if json_:
        render.as_json(found)
        return
    render.out(f"{found['tool'] or found['name']}: {found['description']}")
    _parameters(found)


def promoted(json_: JsonFlag = False, state_dir: StateFlag = None) -> None:
    """List the tools that were made of runs."""
    found = _client(state_dir).composites()
    if json_:
        render.as_json({"composites": found})
        return
    if not found:
        render.out("No run was made a tool yet. As in: toolyard runs promote ID NAME")
        return
    cells = [
        (
            one["name"],
            one["tool"] or "not listed",
            ", ".join(one["parameters"]["properties"]),
            ", ".join(one["calls"]),
            str(one["uses"]),
        )
        for one in found
    ]
    render.table(("name", "listed as", "parameters", "calls", "uses"), cells, right=("uses",))
    for one in found:
        if one["broken"]:
            render.problem(f"{one['name']}: {one['broken']}")


def demote(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Take the tool NAME away again; its runs stay."""
    found = _client(state_dir).demote(name)
    render.as_json(found) if json_ else render.out(f"{name} is no tool any more.")


def _parameters(found: dict[str, Any]) -> None:
    schema = found["parameters"]
    for key, rule in schema["properties"].items():
        needed = "required" if key in schema["required"] else "optional"
        kind = rule.get("type", "any")
        about = f": {rule['description']}" if isinstance(rule.get("description"), str) else ""
        render.out(f"  {key} ({kind if isinstance(kind, str) else ' or '.join(kind)}, {needed}){about}")
    for key, value in found["fixed"].items():
        render.out(f"  {key} is always {json.dumps(value, ensure_ascii=False)}")
