"""``registry search-official|import-official``: servers from other registries, added and not started."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer

from gateway.admin.client import NotRunning
from gateway.cli import offline, render
from gateway.cli.asking import agreed
from gateway.cli.exits import Exit
from gateway.cli.servers import entry_of
from gateway.cli.shared import JsonFlag, StateFlag, client, verb
from gateway.cli.stored import registry
from gateway.cli.waiting import Waiting
from gateway.errors import GatewayError
from registry.errors import RegistryError
from registry.model import Origin, Server, ServerSpec
from registry.official.client import OFFICIAL, OfficialClient
from registry.official.launch import Way, Ways, ways
from registry.official.model import Listed, to_value
from registry.official.publish import PUBLISHED

UrlFlag: TypeAlias = Annotated[
    str, typer.Option("--url", metavar="URL", help="Another registry than the official one.")
]
TokenFlag: TypeAlias = Annotated[
    str | None,
    typer.Option("--token-env", metavar="VAR", help="The variable that holds the registry's bearer token."),
]

_IMPORT_HELP: Final = """\
Add servers from a registry of MCP servers: the official one, or any that speaks its API.

\b
  toolyard registry import-official io.github.user/weather
  toolyard registry import-official io.github.user/weather --show
  toolyard registry import-official io.github.user/weather --set units=metric --as weather
  toolyard registry import-official --all --url https://registry.example.com

Shows what each would run or reach, and asks. Nothing is started or reached by it: a command
waits for `toolyard approve NAME`, a remote server for `toolyard enable NAME`. Values that the
publisher requires are read from variables of the gateway's environment, which are named.
"""
_SHOWN: Final = 50
"""Servers that a search lists."""
_MOST: Final = 10_000
"""Servers that one import may add."""


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    verb(app, "TEXT", search_official, name="search-official")
    verb(app, "{NAME... | --all} [FLAGS]", import_official, name="import-official", help=_IMPORT_HELP)


def search_official(
    text: Annotated[str, typer.Argument(metavar="TEXT", hidden=True)],
    url: UrlFlag = OFFICIAL,
    token_env: TokenFlag = None,
    json_: JsonFlag = False,
) -> None:
    """Look for servers in the official registry of MCP servers, or in another: TEXT is a part of the name."""
    with Waiting("asking the registry"):
        found, faults, more = asyncio.run(_search(url, _token(token_env), text))
    if json_:
        render.as_json({"servers": [_row(one) for one in found], "more": more})
    else:
        rows = [(one.server.name, one.server.version, _kinds(one), _about(one)) for one in found]
        if rows:
            render.table(("name", "version", "as", "description"), rows)
        else:
            render.out("No server has this in its name.")
        if more:
            render.note(f"There are more than these {len(found)}: give more of the name.")
    _tell(faults)


async def _search(url: str, token: str | None, text: str) -> tuple[list[Listed], list[str], bool]:
    found: list[Listed] = []
    faults: list[str] = []
    async with OfficialClient(url, token=token) as registry_:
        async for page in registry_.pages(search=text):
            found += [one for one in page.servers if one.status != "deleted"]
            faults += page.faults
            if len(found) >= _SHOWN:
                return found[:_SHOWN], faults, len(found) > _SHOWN or page.cursor is not None
    return found, faults, False


def import_official(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", hidden=True)] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every server of the registry.")] = False,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="With --all: those with this in their name.")
    ] = None,
    updated_since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="With --all: those updated since, as 2026-01-31T12:00:00Z."),
    ] = None,
    version: Annotated[str, typer.Option(metavar="V", help="Another version than the latest.")] = "latest",
    prefer: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="npm, pypi, oci, nuget or remote, where there is a choice."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="A value it asks for; it is stored. Repeatable."),
    ] = None,
    as_: Annotated[str | None, typer.Option("--as", metavar="NAME", help="What to call it here.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Show what there is, and add nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: UrlFlag = OFFICIAL,
    token_env: TokenFlag = None,
    state_dir: StateFlag = None,
) -> None:
    wanted = list(names or ())
    since = _checked(wanted, all_, search, updated_since, version, as_, set_, prefer)
    with Waiting("asking the registry") as waiting:
        listed, faults = asyncio.run(_fetch(url, _token(token_env), wanted, search, since, version, waiting))
    _tell(faults)
    choices, skipped = _choose(listed, _there(state_dir), _pairs(set_), as_, prefer, url)
    _show(choices, skipped, everything=show)
    if not choices:
        render.out("Nothing to import.")
        raise typer.Exit(Exit.OK if all_ and not faults else Exit.FAILED)
    count = render.count(len(choices), "server")
    if show:
        render.out(f"{count} would be added.")
        return
    question = f"Add {count}? Nothing is started before you approve it."
    hint = "Run it again with --yes to add them; nothing is started by that."
    if not yes and not agreed(question, "Nothing was added", hint):
        return
    raise typer.Exit(Exit.FAILED if _add(choices, state_dir) else Exit.OK)


@dataclass(frozen=True, slots=True)
class _Choice:
    """A server to add, the way that was chosen and those that were not."""

    listed: Listed
    way: Way
    others: Ways


def _checked(
    names: list[str],
    all_: bool,
    search: str | None,
    since: str | None,
    version: str,
    as_: str | None,
    set_: list[str] | None,
    prefer: str | None,
) -> str | None:
    """``updated_since`` as the API wants it, after all flags are found to fit each other."""
    if all_ == bool(names):
        raise typer.BadParameter("give names of servers, or --all.", param_hint="NAME")
    single = {"--as": as_, "--set": set_, "--version": None if version == "latest" else version}
    for flag, given in single.items():
        if given and len(names) != 1:
            raise typer.BadParameter("it is for one server.", param_hint=flag)
    for flag, given in {"--search": search, "--updated-since": since}.items():
        if given and not all_:
            raise typer.BadParameter("it goes with --all.", param_hint=flag)
    if prefer not in (None, "npm", "pypi", "oci", "nuget", "remote"):
        raise typer.BadParameter(
            f"{prefer!r} is none of npm, pypi, oci, nuget, remote.", param_hint="--prefer"
        )
    if since is None:
        return None
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise typer.BadParameter("give it as 2026-01-31T12:00:00Z.", param_hint="--updated-since") from None
    return moment.astimezone().isoformat()


async def _fetch(
    url: str,
    token: str | None,
    names: list[str],
    search: str | None,
    since: str | None,
    version: str,
    waiting: Waiting,
) -> tuple[list[Listed], list[str]]:
    found: dict[str, Listed] = {}
    faults: list[str] = []
    async with OfficialClient(url, token=token) as registry_:
        for name in names:
            found[name] = await registry_.server(name, version)
        if not names:
            async for page in registry_.pages(search=search, updated_since=since):
                found |= {one.server.name: one for one in page.servers}
                faults += page.faults
                waiting.tell({"progress": len(found), "message": "reading servers"})
                if len(found) > _MOST:
                    raise GatewayError(
                        f"{registry_.url} lists more than {_MOST:,} servers.", "Take a part: --search TEXT."
                    )
    return list(found.values()), faults


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not (token := os.environ.get(variable)):
        raise typer.BadParameter(f"the variable {variable} is not set.", param_hint="--token-env")
    return token


def _pairs(given: list[str] | None) -> dict[str, str]:
    pairs = {}
    for item in given or ():
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise typer.BadParameter("give it as NAME=VALUE.", param_hint="--set")
        pairs[key] = value
    return pairs


def _there(state_dir: Path | None) -> dict[str, ServerSpec]:
    """The servers that are known here; the starter gives way to any other."""
    known = registry(state_dir).servers
    return {name: server.spec for name, server in known.items() if server.origin is not Origin.STARTER}


def _choose(
    listed: list[Listed],
    there: Mapping[str, ServerSpec],
    given: Mapping[str, str],
    as_: str | None,
    prefer: str | None,
    url: str,
) -> tuple[list[_Choice], list[tuple[str, str]]]:
    """What to add, and name and reason of what not."""
    taken = set(there)
    here = {origin: (name, version) for name, spec in there.items() for origin, version in _origin(spec)}
    chosen: list[_Choice] = []
    skipped: list[tuple[str, str]] = []
    for one in sorted(listed, key=lambda item: item.server.name):
        server = one.server
        if one.status == "deleted":
            skipped.append((server.name, "its publisher has deleted it"))
            continue
        if server.name in here:
            name, version = here[server.name]
            newer = (
                "" if version == server.version else f" at version {version}; {server.version} is published"
            )
            skipped.append((server.name, f"it is here as {name}{newer}"))
            continue
        if as_ is not None and as_ in taken:
            skipped.append((server.name, f"there is a server named {as_} already"))
            continue
        name = as_ or _free(server.name, taken)
        kept = {"url": url, "name": server.name, "version": server.version, "server": to_value(server)}
        found = ways(server, name, given, extra={PUBLISHED: kept})
        way = next((w for w in found.usable if w.kind == prefer), next(iter(found.usable), None))
        if way is None:
            reasons = "; ".join(found.refused[:5]) or "it names neither a package nor an address"
            skipped.append((server.name, reasons))
            continue
        taken.add(name)
        chosen.append(_Choice(one, way, found))
    return chosen, skipped


def _origin(spec: ServerSpec) -> list[tuple[str, str]]:
    kept = spec.extra.get(PUBLISHED)
    return [(str(kept.get("name")), str(kept.get("version")))] if isinstance(kept, dict) else []


def _free(published: str, taken: set[str]) -> str:
    """A name of ours for a published one: its own, its owner's before it, then a number."""
    space, _, own = published.lower().partition("/")
    names = [own, f"{space.rpartition('.')[2]}-{own}"]
    number = 2
    while True:
        for name in names:
            if name not in taken:
                return name
        names = [f"{own}-{number}"]
        number += 1


def _show(choices: list[_Choice], skipped: list[tuple[str, str]], *, everything: bool) -> None:
    if choices:
        # Wrapped and never cut: who adds a command must see its end too.
        render.pairs((choice.way.spec.name, _described(choice, everything)) for choice in choices)
    if skipped:
        render.out()
        render.out("Skipped:")
        for name, why in skipped:
            render.paragraph(" ".join(f"{name}: {why}.".split()), "  ")
    render.out()


def _described(choice: _Choice, everything: bool) -> str:
    server, way = choice.listed.server, choice.way
    lines = [_command(way.spec), f"{server.name} {server.version}: {render.first_line(server.description)}"]
    if choice.listed.status != "active":
        said = choice.listed.status_message
        lines.append(f"{choice.listed.status}: {said}" if said else choice.listed.status)
    lines += [f"variable: {name}" for name in sorted(way.spec.env)]
    lines += [f"header: {name}" for name in sorted(way.spec.headers)]
    for need in way.needs:
        about = f": {need.description}" if need.description else ""
        lines.append(f"needs {need.variable} in the gateway's environment{about}")
    lines += [f"! {caution}" for caution in way.cautions]
    if everything:
        if way.optional:
            lines.append(f"can be set: {', '.join(way.optional)}")
        lines += [f"or as {w.kind}: {_command(w.spec)}" for w in choice.others.usable if w is not way]
        lines += [f"not as {why}" for why in choice.others.refused]
    # A publisher's line break would let a description pass for a line of ours; commands have none.
    return "\n".join([lines[0], *(" ".join(line.split()) for line in lines[1:])])


def _command(spec: ServerSpec) -> str:
    return spec.url if spec.url is not None else shlex.join([spec.command or "", *spec.args])


def _add(choices: list[_Choice], state_dir: Path | None) -> int:
    """Add them all, pending. Returns how many failed."""
    failed = 0
    with suppress(NotRunning):
        gateway = client(state_dir)
        gateway.status()
        for choice in choices:
            spec = choice.way.spec
            try:
                gateway.add_pending({**entry_of(spec), "disabled": spec.disabled})
            except GatewayError as error:
                failed += 1
                _not_added(spec, error)
            else:
                _added(choice)
        return failed
    with offline.writing(state_dir) as store:
        known = store.servers()
        names, ordinal = {server.name for server in known}, max((s.ordinal for s in known), default=-1)
        for number, choice in enumerate(choices, 1):
            spec = choice.way.spec
            try:
                if spec.name in names:
                    raise GatewayError(
                        f"There is a server {spec.name!r} already.", "Choose another: --as NAME."
                    )
                store.put_server(Server(spec, Origin.ADDED, ordinal + number))
            except (GatewayError, RegistryError) as error:
                failed += 1
                _not_added(spec, error)
            else:
                _added(choice)
    return failed


def _added(choice: _Choice) -> None:
    name = choice.way.spec.name
    step = f"toolyard enable {name}" if choice.way.kind == "remote" else f"toolyard approve {name}"
    first = f"set {', '.join(need.variable for need in choice.way.needs)}, then " if choice.way.needs else ""
    render.out(f"Added {name}; it waits for you: {first}{step}")


def _not_added(spec: ServerSpec, error: Any) -> None:
    render.problem(f"{spec.name} was not added: {error.message}", error.hint)


def _tell(faults: list[str]) -> None:
    for fault in faults[:5]:
        render.problem(fault)
    if len(faults) > 5:
        render.problem(f"{len(faults) - 5} more entries cannot be read.")


def _kinds(one: Listed) -> str:
    kinds = [package.registry_type for package in one.server.packages or ()]
    kinds += ["remote" for _ in one.server.remotes or ()]
    return ", ".join(dict.fromkeys(kinds)) or "-"


def _about(one: Listed) -> str:
    marked = "" if one.status == "active" else f"({one.status}) "
    return marked + render.first_line(one.server.description)


def _row(one: Listed) -> dict[str, Any]:
    return {
        "name": one.server.name,
        "version": one.server.version,
        "description": one.server.description,
        "status": one.status,
        "server": to_value(one.server),
    }
