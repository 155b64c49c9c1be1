"""``import``: take over the servers that an assistant has, once a person has seen what they run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.admin.client import ControlClient, Line, NotRunning
from gateway.cli import clients, found, offline, render
from gateway.cli.asking import agreed
from gateway.cli.exits import Exit
from gateway.cli.found import Found
from gateway.cli.servers import entry_of, put, say_withheld
from gateway.cli.shared import StateFlag, client, started, unknown, verb
from gateway.cli.waiting import Waiting
from gateway.config.options import ServeOptions
from gateway.config.settings import Settings
from gateway.errors import ConfigError, GatewayError
from registry.errors import RegistryError
from registry.model import ServerSpec

_HELP: Final = """\
Take over the servers that an assistant has, or those of any servers file.

\b
  toolyard import claude            Claude Desktop
  toolyard import claude-code       Claude Code: your own, each project's, ./.mcp.json
  toolyard import cursor            Cursor: your own and ./.cursor/mcp.json
  toolyard import vscode            VS Code: your own and ./.vscode/mcp.json
  toolyard import servers.json      mcpServers or servers, with comments or without

Shows what it found and asks; nothing runs before you have said yes. Each server is then
added as `toolyard add` does, which approves its command. The assistant's own file stays as
it is: see `toolyard connect` for putting this gateway there.
"""


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    verb(app, "{claude | claude-code | cursor | vscode | PATH} [FLAGS]", import_, name="import", help=_HELP)


def import_(
    source: Annotated[str, typer.Argument(metavar="SOURCE", hidden=True)],
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Take this server and no other; repeatable.")
    ] = None,
    rename: Annotated[
        bool, typer.Option("--rename", help="Give a name that is taken a number, instead of skipping it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what there is, and add nothing.")] = False,
    state_dir: StateFlag = None,
) -> None:
    known, url, running = _there(state_dir)
    wanted, skipped = _choose(_find(source), only or [], known, url, rename=rename)
    _show(wanted, skipped)
    if not wanted:
        render.out("Nothing to import.")
        return
    count = render.count(len(wanted), "server")
    if dry_run:
        render.out(f"{count} would be added.")
        return
    hint = "Run it again with --yes to add these servers and approve their commands."
    if not yes and not agreed(f"Add {count}, and approve what they run?", "Nothing was added", hint):
        return
    specs = [item.spec for item in wanted]
    failed = _add_running(client(state_dir), specs) if running else _add_stored(state_dir, specs)
    raise typer.Exit(Exit.FAILED if failed else Exit.OK)


def _there(state_dir: Path | None) -> tuple[set[str], str | None, bool]:
    """The names that are taken, our URL, and whether a gateway runs."""
    try:
        status, running = client(state_dir).status(), True
        url = str(status["gateway"]["url"])
    except NotRunning:
        status, running = offline.status(state_dir), False
        url = None
        with suppress(ConfigError):  # the gateway that is started next says so
            settings = Settings.load(ServeOptions())
            url = f"http://{settings.host}:{settings.port}/mcp"
    # The starter gives way to any other server.
    return {row["name"] for row in status["servers"] if row["origin"] != "starter"}, url, running


def _find(source: str) -> list[Found]:
    client_ = clients.known().get(source)
    if client_ is None:
        path = Path(source).expanduser()
        if not path.exists():
            raise typer.BadParameter(
                f"{source!r} is neither a file nor one of {', '.join(clients.KEYS)}.", param_hint="SOURCE"
            )
        items, problems, seen = *found.in_file(path, None), [path]
    else:
        items, problems, seen = found.of_client(client_)
        if not seen:
            places = " nor ".join(str(path) for path in client_.files)
            raise GatewayError(
                f"{client_.title} has no servers file here: there is neither {places}."
                if len(client_.files) > 1
                else f"{client_.title} has no servers file here: there is no {places}.",
                "Give the path of the file, if it is elsewhere.",
            )
    for path in seen:
        render.out(f"Read {path}.")
    for problem in problems:
        render.problem(problem)
    return items


def _choose(
    items: list[Found], only: list[str], known: set[str], url: str | None, *, rename: bool
) -> tuple[list[Found], list[tuple[str, str]]]:
    """What to add, and name and reason of what not."""
    names = {item.spec.name for item in items}
    for name in only:
        if name not in names:
            raise unknown("server", name, names, "toolyard import … --dry-run")
    wanted: list[Found] = []
    skipped: list[tuple[str, str]] = []
    taken = set(known)
    for item in items:
        spec = item.spec
        if only and spec.name not in only:
            continue
        if any(found.same(spec, other.spec) for other in wanted):
            continue  # the same server, for another project
        why = _reason(spec, url, named=spec.name in only)
        if why is None and spec.name in taken:
            if rename:
                spec = dataclasses.replace(spec, name=_free(spec.name, taken))
            else:
                why = "there is a server of that name already; --rename gives it another"
        if why is not None:
            skipped.append((spec.name, why))
            continue
        taken.add(spec.name)
        wanted.append(dataclasses.replace(item, spec=dataclasses.replace(spec, disabled=False)))
    return wanted, skipped


def _reason(spec: ServerSpec, url: str | None, *, named: bool) -> str | None:
    if clients.is_ours({"command": spec.command, "args": list(spec.args), "url": spec.url}, url):
        return "it is this gateway itself"
    if spec.disabled and not named:
        return f"it is switched off there; --only {spec.name} takes it all the same"
    if found.asks(spec):
        return "it asks for an ${input:…}, which only VS Code can; write ${VAR} for a variable instead"
    return None


def _free(name: str, taken: set[str]) -> str:
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def _show(wanted: list[Found], skipped: list[tuple[str, str]]) -> None:
    if wanted:
        render.out()
        # Wrapped and never cut: who approves a command must see its end too.
        render.pairs((item.spec.name, found.described(item)) for item in wanted)
    if skipped:
        render.out()
        render.out("Skipped:")
        for name, why in skipped:
            render.paragraph(f"{name}: {why}.", "  ")
    render.out()


def _add_running(gateway: ControlClient, specs: list[ServerSpec]) -> int:
    """Add them all, then wait for all: a slow one keeps no other waiting. Returns how many failed."""
    failed = 0
    begun: list[tuple[ServerSpec, Iterator[Line]]] = []
    with Waiting(f"connecting {render.count(len(specs), 'server')}"):
        for spec in specs:
            lines = gateway.add(entry_of(spec))
            try:
                first = next(lines)
            except GatewayError as error:
                failed += 1
                _not_added(spec, error)
            else:
                begun.append((spec, _again(first, lines)))
    for spec, lines in begun:
        try:
            done = started(lines, f"connecting {spec.name}")
        except GatewayError as error:
            failed += 1
            _not_added(spec, error)
            continue
        row, names = done.get("server") or {}, done.get("tools") or []
        if row.get("error"):
            failed += 1
            render.out(f"Added {spec.name}; it is kept, but it could not be connected.")
            render.problem(f"{spec.name}: {row['error']}", row.get("hint"))
        else:
            render.out(f"Added {spec.name}: {row.get('state')}, {render.count(len(names), 'tool')}.")
            say_withheld(row)
    return failed


def _again(first: Line, lines: Iterator[Line]) -> Iterator[Line]:
    yield first
    yield from lines


def _add_stored(state_dir: Path | None, specs: list[ServerSpec]) -> int:
    failed = 0
    with offline.writing(state_dir) as store:
        for spec in specs:
            try:
                put(store, spec)
            except (GatewayError, RegistryError) as error:
                failed += 1
                _not_added(spec, error)
            else:
                render.out(f"Added {spec.name}.")
    render.out("No gateway is running: the next `toolyard serve` connects them.")
    return failed


def _not_added(spec: ServerSpec, error: Any) -> None:
    render.problem(f"{spec.name} was not added: {error.message}", error.hint)
