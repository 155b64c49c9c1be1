"""``use`` and ``manifests``: converted services as servers of this gateway."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.admin.client import NotRunning
from gateway.cli import offline, render
from gateway.cli.servers import add_running, add_stored
from gateway.cli.shared import JsonFlag, StateFlag, client, unknown, verb
from gateway.errors import GatewayError
from gateway.hosted.entry import LEVELS, MANIFEST, approval_of, from_manifest, manifest_of
from registry.model import ServerSpec


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    verb(app, "NAME|DIR [FLAGS]", use)
    verb(app, "", manifests)


def use(
    which: Annotated[str, typer.Argument(metavar="NAME|DIR", hidden=True)],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="What to call the server [the service's name]."),
    ] = None,
    require_sandbox: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="Refuse to run it in less than this: L1, L2 or L3 [L2]."),
    ] = None,
    allow_weak_sandbox: Annotated[
        bool, typer.Option("--allow-weak-sandbox", help="Accept sandbox L1 where the machine has no more.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0.001, help="How long one call may take.")
    ] = None,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Add a converted service: a shipped one by its NAME, or one of your own by its folder.

    \b
      toolyard manifests              what comes with Toolyard
      toolyard use markdownify
      toolyard use ./my-service       a folder that `toolyard convert --out` wrote

    Using a service also approves it as it now is: its source, the lock of its environment, what its
    tools call, its permissions and its sandbox. Its environment is built in the background.
    """
    if require_sandbox is not None and require_sandbox not in LEVELS:
        raise typer.BadParameter(f"{require_sandbox!r} is not one of {', '.join(LEVELS)}.")
    spec = _spec(which, name, require_sandbox, allow_weak_sandbox, timeout)
    _, detail = approval_of(spec, {})
    if not json_:
        render.paragraph(detail, "  ")
    try:
        add_running(client(state_dir), spec, as_json=json_)
    except NotRunning:
        add_stored(state_dir, spec, as_json=json_)


def _spec(which: str, name: str | None, require: str | None, weak: bool, timeout: float | None) -> ServerSpec:
    from servers.errors import ManifestError
    from servers.manifest import shipped

    try:
        place = shipped.locate(which)
    except ManifestError as error:
        if "/" in which:
            raise GatewayError(error.message, error.hint) from None
        raise unknown("converted service", which, shipped.names(), "toolyard manifests") from None
    own = place.parent != shipped.directory()
    spec = from_manifest(
        name or "", str(place) if own else which, require=require, allow_weak=weak, timeout=timeout
    )
    return spec if name else replace(spec, name=manifest_of(spec).name)


def manifests(json_: JsonFlag = False, state_dir: StateFlag = None) -> None:
    """List the converted services that come with Toolyard, and which of them this gateway serves."""
    from servers.convert import environment
    from servers.manifest import files, shipped

    served = _served(state_dir)
    rows: list[dict[str, Any]] = []
    for name in shipped.names():
        manifest = files.read(shipped.directory() / name)
        rows.append(
            {
                "name": name,
                "version": manifest.source.version,
                "licence": manifest.licence,
                "tools": len(manifest.exposed()),
                "hidden": len(manifest.tools) - len(manifest.exposed()),
                "built": environment.find(manifest.environment) is not None,
                "served_as": served.get(name),
                "description": manifest.description,
            }
        )
    if json_:
        render.as_json({"manifests": rows})
        return
    cells = [
        (
            row["name"],
            row["version"],
            row["licence"],
            str(row["tools"]),
            row["served_as"] or "-",
            row["description"],
        )
        for row in rows
    ]
    render.table(("name", "version", "licence", "tools", "served as", "about"), cells, right=("tools",))
    render.out()
    render.out("Add one: toolyard use NAME")


def _served(state_dir: Path | None) -> dict[str, str]:
    """Manifests that are served here, by what their entries call them, with the server's name."""
    try:
        gateway = client(state_dir)
        names = [row["name"] for row in gateway.status()["servers"]]
        entries = {name: gateway.server(name)["spec"].get(MANIFEST) for name in names}
    except NotRunning:
        names = [row["name"] for row in offline.status(state_dir)["servers"]]
        entries = {name: offline.server(state_dir, name)["spec"].get(MANIFEST) for name in names}
    return {manifest: name for name, manifest in entries.items() if manifest}
