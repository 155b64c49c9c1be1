"""``add``, ``remove`` and ``approve``: the verbs that change which servers there are."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.admin.client import ControlClient, NotRunning
from gateway.cli import offline, render
from gateway.cli.exits import Exit
from gateway.cli.shared import JsonFlag, StateFlag, client, started, unknown, verb
from gateway.config.servers import from_command, from_url
from gateway.errors import ConfigError, GatewayError
from registry.model import Approval, Origin, Server, ServerSpec

_ADD_HELP: Final = """\
Add a server: a command that the gateway starts, or a URL that it connects to.

\b
  toolyard add time -- uvx mcp-server-time
  toolyard add files --cwd ~/notes -- npx -y @modelcontextprotocol/server-filesystem .
  toolyard add docs https://example.com/mcp --header-env Authorization=DOCS_AUTH

Its tools are listed as NAME__TOOL. Flags come before `--`; all behind it is the
command. Adding a command also approves it: it runs with your rights, without a shell.

--env-from and --header-env store a reference; the gateway reads the variable from its
own environment when it connects, so that no secret is kept on disk.
"""


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    verb(app, "NAME [FLAGS] {URL | -- CMD ARGS...}", add, help=_ADD_HELP)
    verb(app, "NAME", remove)
    verb(app, "NAME", approve)


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    target: Annotated[list[str], typer.Argument(metavar="URL | -- CMD ARGS...", hidden=True)],
    env: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A variable for the command; repeatable.")
    ] = None,
    env_from: Annotated[
        list[str] | None,
        typer.Option(metavar="VAR", help="A variable it gets from the gateway's environment; repeatable."),
    ] = None,
    cwd: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the command runs.", file_okay=False)
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="An HTTP header for the URL; repeatable.")
    ] = None,
    header_env: Annotated[
        list[str] | None,
        typer.Option(metavar="K=VAR", help="A header whose value is in an environment variable; repeatable."),
    ] = None,
    transport: Annotated[
        str | None, typer.Option(metavar="http|sse", help="How the URL is spoken to [http].")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0.001, help="How long one call may take.")
    ] = None,
    pins: Annotated[
        str | None,
        typer.Option(metavar="pin|warn|follow", help="What becomes of a tool that changes its definition."),
    ] = None,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    is_url = len(target) == 1 and target[0].lower().startswith(("http://", "https://", "${"))
    _fits(is_url, {"--env": env, "--env-from": env_from, "--cwd": cwd}, {"--header": header})
    _fits(is_url, {}, {"--header-env": header_env, "--transport": transport})
    if transport not in (None, "http", "sse"):
        raise typer.BadParameter(f"{transport!r} is neither http nor sse.", param_hint="--transport")
    if pins not in (None, "pin", "warn", "follow"):
        raise typer.BadParameter(f"{pins!r} is none of pin, warn, follow.", param_hint="--pins")
    try:
        if is_url:
            headers = _pairs("--header", header) | _references("--header-env", header_env)
            spec = from_url(name, target[0], headers=headers, transport=transport, timeout=timeout)
        else:
            values = _pairs("--env", env) | {var: f"${{{var}}}" for var in _variables(env_from)}
            place = None if cwd is None else str(cwd.expanduser().absolute())
            spec = from_command(name, target, env=values, cwd=place, timeout=timeout)
        spec = spec if pins is None else replace(spec, extra={"pins": pins})
    except ConfigError as error:
        render.problem(error.message, error.hint)
        raise typer.Exit(Exit.USAGE) from None
    try:
        add_running(client(state_dir), spec, as_json=json_)
    except NotRunning:
        add_stored(state_dir, spec, as_json=json_)


def _fits(is_url: bool, command_only: dict[str, Any], url_only: dict[str, Any]) -> None:
    for flag, given in (command_only if is_url else url_only).items():
        if given:
            wanted = "a command" if is_url else "a URL"
            raise typer.BadParameter(f"it is for {wanted}.", param_hint=flag)


def _pairs(flag: str, given: Iterable[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in given or ():
        key, equals, value = item.partition("=")
        if not equals or not key:
            # The item itself may be a secret that lacks its name.
            raise typer.BadParameter("give it as NAME=VALUE.", param_hint=flag)
        pairs[key] = value
    return pairs


def _references(flag: str, given: Iterable[str] | None) -> dict[str, str]:
    return {key: f"${{{var}}}" for key, var in _pairs(flag, given).items()}


def _variables(given: Iterable[str] | None) -> list[str]:
    for var in given or ():
        if not var or "=" in var:
            raise typer.BadParameter("give the variable's name alone.", param_hint="--env-from")
    return list(given or ())


def entry_of(spec: ServerSpec) -> dict[str, Any]:
    """A spec as ``POST /servers`` takes it."""
    entry: dict[str, Any] = {"name": spec.name}
    if "manifest" in spec.extra:
        entry |= spec.extra
    elif spec.url is not None:
        entry |= {"url": spec.url, "headers": dict(spec.headers), "transport": spec.transport.value}
    else:
        entry |= {"command": spec.command, "args": list(spec.args), "env": dict(spec.env), "cwd": spec.cwd}
    return {**spec.extra, **(entry if spec.timeout is None else {**entry, "timeout": spec.timeout})}


def add_running(gateway: ControlClient, spec: ServerSpec, *, as_json: bool) -> None:
    done = started(gateway.add(entry_of(spec)), f"connecting {spec.name}")
    if as_json:
        render.as_json(done)
    row, names = done.get("server") or {}, done.get("tools") or []
    if row.get("error"):
        if not as_json:
            render.out(f"Added {spec.name}; it is kept, but it could not be connected.")
        render.problem(str(row["error"]), row.get("hint"))
        raise typer.Exit(Exit.FAILED)
    if not as_json:
        render.out(f"Added {spec.name}: {row.get('state', 'added')}, {render.count(len(names), 'tool')}.")
        for name in names:
            render.out(f"  {name}")
        say_withheld(row)


def say_withheld(row: dict[str, Any]) -> None:
    """Say how many of a server's tools wait for a person."""
    if row.get("withheld"):
        count = render.count(row["withheld"], "tool")
        render.out(f"Withheld until you approve: {count}. See: toolyard registry diff {row['name']}")


def add_stored(state_dir: Path | None, spec: ServerSpec, *, as_json: bool) -> None:
    with offline.writing(state_dir) as store:
        put(store, spec)
    if as_json:
        render.as_json({"server": offline.server(state_dir, spec.name), "tools": []})
    else:
        render.out(f"Added {spec.name}. No gateway is running: the next `toolyard serve` connects it.")


def put(store: Any, spec: ServerSpec) -> None:
    """Add a server to the store, its command approved. Raises GatewayError, StoreError."""
    known = store.servers()
    if any(server.name == spec.name for server in known):
        raise GatewayError(
            f"There is a server {spec.name!r} already.",
            f"Take it out first (`toolyard remove {spec.name}`), or choose another name.",
        )
    ordinal = 1 + max((server.ordinal for server in known), default=-1)
    approval = _approval(spec) if spec.command is not None else None
    store.put_server(Server(spec, Origin.ADDED, ordinal))
    if approval is not None:
        store.approve(approval)


def _approval(spec: ServerSpec) -> Approval:
    """A person's leave to start a command as it now stands. Raises GatewayError where it cannot be."""
    from gateway.hosted.entry import approval_of

    key, detail = approval_of(spec, os.environ)
    return Approval(key, spec.name, detail, time.time())


def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Take the server NAME out again.

    Its tools keep their names, should it come back. A server of the servers file is taken out there.
    """
    try:
        client(state_dir).remove(name)
    except NotRunning:
        _remove_stored(state_dir, name)
    if json_:
        render.as_json({"removed": name})
    else:
        render.out(f"Removed {name}.")


def _remove_stored(state_dir: Path | None, name: str) -> None:
    with offline.writing(state_dir) as store:
        known = {server.name: server for server in store.servers()}
        if name not in known:
            raise unknown("server", name, known, "toolyard status")
        if known[name].origin is Origin.CONFIG:
            raise GatewayError(
                f"The server {name!r} comes from the servers file.", "Take it out of that file instead."
            )
        store.remove_server(name)


def approve(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Give leave to start the command of the server NAME, as it now is.

    Commands of a servers file wait for this once, and again whenever the command, its folder, its
    variables or the program behind it change.
    """
    try:
        detail = client(state_dir).approve(name)
    except NotRunning:
        with offline.writing(state_dir) as store:
            specs = {server.name: server.spec for server in store.servers()}
            if name not in specs:
                raise unknown("server", name, specs, "toolyard status") from None
            detail = "a remote server needs no approval"
            if specs[name].command is not None:
                approval = _approval(specs[name])
                store.approve(approval)
                detail = approval.detail
    if json_:
        render.as_json({"approved": name, "detail": detail})
    else:
        render.out(f"Approved {name}:")
        render.paragraph(detail, "  ")
