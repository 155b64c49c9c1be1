"""``doctor``: everything that can be wrong with an installation, and how to mend it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.admin.client import NotRunning
from gateway.cli import checks, offline, render, sandboxing, supervision
from gateway.cli.checks import Check
from gateway.cli.exits import Exit
from gateway.cli.level import search_level
from gateway.cli.shared import JsonFlag, StateFlag, client, verb
from gateway.config.options import ServeOptions
from gateway.config.settings import Settings
from gateway.errors import ConfigError, GatewayError
from gateway.paths import StateDir
from registry.errors import RegistryError, StoreMissing
from registry.model import ServerSpec


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    verb(app, "", doctor)


def doctor(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check this servers file as well.")
    ] = None,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Check this installation, and say how to mend it.

    Exit code 1 when anything fails; a warning is no failure.
    """
    found = list(_checks(state_dir, config))
    failed = sum(check.level == "fail" for check in found)
    if json_:
        render.as_json({"checks": [dataclasses.asdict(check) for check in found], "failed": failed})
    else:
        render.table(("check", "", "found"), [(c.name, c.level, c.found) for c in found])
        _mend(found)
    raise typer.Exit(Exit.FAILED if failed else Exit.OK)


def _mend(found: list[Check]) -> None:
    for check in found:
        if check.level != "ok":
            render.out()
            render.out(f"{check.name}:")
            render.paragraph(check.found, "  ")
            render.paragraph(f"-> {check.mend}" if check.mend else "", "  ")


def _checks(state_dir: Path | None, config: Path | None) -> Iterator[Check]:
    state = StateDir.at(state_dir)
    yield checks.python()
    yield checks.state_directory(state)
    yield checks.token(state)
    yield checks.sockets(state)
    status, error = _status(state_dir)
    yield from checks.gateway(status, error)
    check, settings = checks.settings(lambda: Settings.load(ServeOptions()))
    yield check
    if status is None and error is None and settings is not None:
        yield checks.port(settings)
    file = config or _file_of(status)
    yield from checks.servers_file(file)
    check, specs = _known(state)
    yield check
    specs |= {spec.name: spec for spec in _specs_of(file)}
    yield from checks.commands(specs.values())
    yield from checks.helpers(specs.values())
    yield from sandboxing.checks(specs.values())
    yield from supervision.servers(_rows(state_dir, status))
    yield checks.pins(_registry(state_dir, status))
    level = search_level(state_dir, verify=True)
    yield checks.search(level)
    yield checks.planner(_planner(state) if status is not None else None, level, settings)
    yield supervision.logs(state)
    yield from supervision.assistants(state, ((status or {}).get("gateway") or {}).get("url"))
    yield checks.speed()
    yield checks.clock(state)


def _status(state_dir: Path | None) -> tuple[dict[str, Any] | None, GatewayError | None]:
    try:
        return client(state_dir).status(), None
    except NotRunning:
        return None, None
    except GatewayError as error:
        return None, error


def _planner(state: StateDir) -> dict[str, Any] | None:
    from gateway.admin.run_client import RunClient

    try:
        return RunClient(state).planner(probe=True)
    except GatewayError:
        return None  # it has just ended, or is of an earlier version


def _rows(state_dir: Path | None, status: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Every server as the gateway has it, or as the next one would begin with it."""
    try:
        rows = (status or offline.status(state_dir))["servers"]
    except (GatewayError, RegistryError):
        return []  # the checks of the store and of the settings say so
    return rows if isinstance(rows, list) else []


def _registry(state_dir: Path | None, status: dict[str, Any] | None) -> dict[str, Any]:
    try:
        found = (status or offline.status(state_dir)).get("registry")
    except (GatewayError, RegistryError):
        return {}  # the checks of the store and of the settings say so
    return found if isinstance(found, dict) else {}


def _file_of(status: dict[str, Any] | None) -> Path | None:
    """The servers file that the running gateway goes by, or that the next one would."""
    from gateway.serve import Configuration

    named = ((status or {}).get("gateway") or {}).get("config") or {}
    path = Path(named["file"]) if named.get("file") else Configuration(ServeOptions()).path
    return path if named.get("file") or path.exists() else None


def _specs_of(file: Path | None) -> tuple[ServerSpec, ...]:
    from gateway.config.servers import read

    if file is None:
        return ()
    try:
        return read(file).specs
    except ConfigError:
        return ()  # the check of the file itself says so


def _known(state: StateDir) -> tuple[Check, dict[str, ServerSpec]]:
    from registry.store import Store

    try:
        place = Settings.load(ServeOptions()).store_at(state)
    except ConfigError:
        place = str(state.database)  # the check of config.toml itself says what is wrong with it
    try:
        with Store.open(place, readonly=True) as store:
            specs = {server.name: server.spec for server in store.servers()}
    except StoreMissing:
        return Check("store", "ok", "none yet (the first start makes it)"), {}
    except RegistryError as error:
        return Check("store", "fail", error.message, error.hint or ""), {}
    return Check("store", "ok", f"{store.shown}, {render.count(len(specs), 'server')}"), specs
