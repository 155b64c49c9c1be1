"""``enable``, ``disable`` and ``restart``: the verbs that switch a server that is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.admin.client import Line, NotRunning
from gateway.cli import offline, render
from gateway.cli.exits import Exit
from gateway.cli.shared import JsonFlag, StateFlag, client, started, unknown, verb
from gateway.cli.status import servers_table
from gateway.errors import GatewayError
from registry.model import Origin

NameArgument = Annotated[str, typer.Argument(metavar="NAME", hidden=True)]


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    for function in (enable, disable, restart):
        verb(app, "NAME", function)


def enable(name: NameArgument, json_: JsonFlag = False, state_dir: StateFlag = None) -> None:
    """Switch the server NAME on again, for good, and start it.

    A server of the servers file is switched there, with "disabled".
    """
    try:
        _start(client(state_dir).enable(name), f"starting {name}", as_json=json_)
    except NotRunning:
        _switch_stored(state_dir, name, True, as_json=json_)


def disable(name: NameArgument, json_: JsonFlag = False, state_dir: StateFlag = None) -> None:
    """Switch the server NAME off, for good: its tools are listed no more, calls in flight may finish.

    A server of the servers file is switched there, with "disabled".
    """
    gateway = client(state_dir)
    try:
        gateway.disable(name)
        row = gateway.server(name)
    except NotRunning:
        _switch_stored(state_dir, name, False, as_json=json_)
    else:
        _show(row, as_json=json_)


def restart(name: NameArgument, json_: JsonFlag = False, state_dir: StateFlag = None) -> None:
    """End the server NAME and start it anew; a server that has failed is tried again."""
    _start(client(state_dir).restart(name), f"restarting {name}", as_json=json_)


def _start(lines: Iterator[Line], what: str, *, as_json: bool) -> None:
    done = started(lines, what)
    row = done.get("server") or {}
    _show(row, as_json=as_json)
    if row.get("error"):
        raise typer.Exit(Exit.FAILED)


def _show(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        render.as_json({"server": row})
    else:
        servers_table([row])


def _switch_stored(state_dir: Path | None, name: str, enabled: bool, *, as_json: bool) -> None:
    from gateway.paths import config_dir

    with offline.writing(state_dir) as store:
        known = {server.name: server for server in store.servers()}
        if name not in known:
            raise unknown("server", name, known, "toolyard status")
        server = known[name]
        if server.origin is Origin.CONFIG and server.spec.disabled is enabled:
            raise GatewayError(
                f"The server {name!r} is set by the servers file.",
                f'Write "disabled": {str(not enabled).lower()} into its entry there: '
                f"{config_dir() / 'mcp.json'}, or what `serve --config` names.",
            )
        store.put_server(
            dataclasses.replace(server, spec=dataclasses.replace(server.spec, disabled=not enabled))
        )
    if not as_json:
        render.note("No gateway is running: the next one goes by this.")
    _show(offline.server(state_dir, name), as_json=as_json)
