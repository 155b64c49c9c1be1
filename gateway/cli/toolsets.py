"""``registry toolset``: named selections of tools, each an endpoint of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.admin.client import NotRunning
from gateway.admin.toolset_client import ToolsetClient
from gateway.cli import offline, render
from gateway.cli.exits import Exit
from gateway.cli.shared import LAST_KNOWN, JsonFlag, StateFlag, unknown, verb
from gateway.cli.toolset_store import Stored
from gateway.errors import GatewayError, NotFound
from gateway.paths import StateDir

NameArgument = Annotated[str, typer.Argument(metavar="NAME", hidden=True)]
PatternArguments = Annotated[list[str] | None, typer.Argument(metavar="[PATTERN...]", hidden=True)]
_Many = list[str] | None


def _flag(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text)


Exclude = Annotated[_Many, _flag("--exclude", "PATTERN", "Leave these out. May be given again.")]
Servers = Annotated[_Many, _flag("--server", "NAME", "Only tools of this server. May be given again.")]
Tags = Annotated[_Many, _flag("--tag", "TAG", "Only tools with this tag. May be given again.")]
Renames = Annotated[_Many, _flag("--rename", "SERVER/TOOL=NAME", "Give a tool another name here.")]
Describes = Annotated[_Many, _flag("--describe", "SERVER/TOOL=TEXT", "Give a tool another description here.")]
Expose = Annotated[
    str | None, _flag("--expose", "HOW", "all, search, both, or auto: all within the budget, else search.")
]
Budget = Annotated[int | None, typer.Option("--budget", min=0, metavar="TOKENS", help="What auto allows.")]
Consent = Annotated[
    str | None, _flag("--consent", "WHEN", "When call_tool asks a person: always, writes or never.")
]
ReadOnly = Annotated[_Many, _flag("--read-only", "PATTERN", "Tools you know to change nothing.")]
ToolsOnly = Annotated[
    bool | None, typer.Option("--tools-only/--with-resources", help="No prompts and no resources.")
]

_LISTS: Final = {"exclude": "exclude", "servers": "server", "tags": "tag", "read_only": "read-only"}


def group(app: typer.Typer, name: str, text: str) -> typer.Typer:
    """The group of verbs of that name: the one that is there, or a new one."""
    for known in app.registered_groups:
        if known.name == name and known.typer_instance is not None:
            return known.typer_instance
    made = typer.Typer(name=name, help=text, rich_markup_mode=None, no_args_is_help=True)
    app.add_typer(made, name=name)
    return made


def add_to(app: typer.Typer) -> None:
    """Add ``registry toolset`` and its verbs."""
    registry = group(app, "registry", "What is known of every tool.")
    toolset = group(registry, "toolset", "Named selections of tools, each at /mcp/NAME.")
    verb(toolset, "", list_toolsets, name="list")
    verb(toolset, "NAME", show)
    verb(toolset, "NAME [PATTERN...]", create)
    verb(toolset, "NAME [PATTERN...]", edit)
    verb(toolset, "NAME", remove)


def list_toolsets(json_: JsonFlag = False, state_dir: StateFlag = None) -> None:
    """List the toolsets: how many tools each has, and what they cost a client in tokens."""
    rows = _either(state_dir, lambda gateway: gateway.toolsets(), lambda known: known.rows())
    if json_:
        render.as_json({"toolsets": rows})
        return
    if not rows:
        render.out("There are no toolsets. Make one: toolyard registry toolset create NAME PATTERN...")
        return
    render.table(
        ("toolset", "tools", "tokens", "mode", "consent", "from"),
        [
            (r["name"], str(r["tools"]), f"{r['tokens']:,}", r["mode"], r["consent"], r["origin"])
            for r in rows
        ],
        right=("tools", "tokens"),
    )


def show(name: NameArgument, json_: JsonFlag = False, state_dir: StateFlag = None) -> None:
    """Show how the toolset NAME is written, and the tools it comes to."""
    try:
        found = _either(state_dir, lambda gateway: gateway.toolset(name), lambda known: known.shown(name))
    except NotFound:
        raise _unknown(state_dir, name) from None
    if json_:
        render.as_json(found)
        return
    render.pairs(
        [
            ("toolset", name),
            ("reached at", f"/mcp/{name}, or toolyard stdio --toolset {name}"),
            ("from", found["origin"]),
            ("shown as", f"{found['mode']} ({found['tokens']:,} tokens in full)"),
            *((key.replace("_", " "), _spelled(value)) for key, value in found["definition"].items()),
        ]
    )
    for problem in found["problems"]:
        render.note(problem)
    render.out()
    render.table(("tool", "of"), [(t["name"], f"{t['server']}/{t['original']}") for t in found["tool_names"]])


def create(
    name: NameArgument,
    patterns: PatternArguments = None,
    exclude: Exclude = None,
    server: Servers = None,
    tag: Tags = None,
    rename: Renames = None,
    describe: Describes = None,
    expose: Expose = None,
    budget: Budget = None,
    consent: Consent = None,
    read_only: ReadOnly = None,
    tools_only: ToolsOnly = None,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Make a toolset NAME of the tools that fit a PATTERN, or of all.

    A pattern stands for server/tool, as 'github/*' or '*/read_*'; without a slash it is the name of a
    server or of a tool. Its clients use /mcp/NAME, or `toolyard stdio --toolset NAME`.
    """
    lists = {"include": patterns, "exclude": exclude, "servers": server, "tags": tag, "read_only": read_only}
    plain = {"expose": expose, "token_budget": budget, "consent": consent, "tools_only": tools_only}
    fields = _fields({}, lists, plain, rename, describe)
    _put(state_dir, name, fields, new=True, as_json=json_)


def edit(
    name: NameArgument,
    patterns: PatternArguments = None,
    exclude: Exclude = None,
    server: Servers = None,
    tag: Tags = None,
    rename: Renames = None,
    describe: Describes = None,
    expose: Expose = None,
    budget: Budget = None,
    consent: Consent = None,
    read_only: ReadOnly = None,
    tools_only: ToolsOnly = None,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Change the toolset NAME. What is given takes the place of what was there; the rest stays.

    An empty value takes a list away, as in --tag ''; --rename SERVER/TOOL= takes one name back.
    """
    try:
        old = _either(state_dir, lambda gateway: gateway.toolset(name), lambda known: known.shown(name))
    except NotFound:
        raise _unknown(state_dir, name) from None
    lists = {"include": patterns, "exclude": exclude, "servers": server, "tags": tag, "read_only": read_only}
    plain = {"expose": expose, "token_budget": budget, "consent": consent, "tools_only": tools_only}
    fields = _fields(old["definition"], lists, plain, rename, describe)
    _put(state_dir, name, fields, new=False, as_json=json_)


def remove(name: NameArgument, state_dir: StateFlag = None) -> None:
    """Forget the toolset NAME. Its clients are cut off; the tools themselves stay."""
    try:
        try:
            ToolsetClient(StateDir.at(state_dir)).remove_toolset(name)
        except NotRunning:
            Stored.read(state_dir).own(name)
            with offline.writing(state_dir) as store:
                from registry.toolsets import ToolsetRecords

                ToolsetRecords(store).remove(name)
    except NotFound:
        raise _unknown(state_dir, name) from None
    render.out(f"Toolset {name} is gone.")


def _fields(
    old: dict[str, Any],
    lists: dict[str, _Many],
    plain: dict[str, Any],
    rename: _Many,
    describe: _Many,
) -> dict[str, Any]:
    fields = dict(old)
    for key, values in lists.items():
        if values is not None:
            fields[key] = [value for value in values if value]
            if not fields[key]:
                del fields[key]
    fields |= {key: value for key, value in plain.items() if value is not None}
    for key, pairs in (("rename", rename), ("describe", describe)):
        known = dict(fields.get(key, {}))
        for pair in pairs or ():
            tool, equals, value = pair.partition("=")
            if not equals:
                render.problem(f"--{key} {pair!r} lacks its '='.", f"Write --{key} SERVER/TOOL=… instead.")
                raise typer.Exit(Exit.USAGE)
            known.pop(tool, None)
            if value:
                known[tool] = value
        if known:
            fields[key] = known
        else:
            fields.pop(key, None)
    return fields


def _put(state_dir: Path | None, name: str, fields: dict[str, Any], *, new: bool, as_json: bool) -> None:
    from registry.toolsets import ToolsetRecords, read

    toolset = read(name, fields)  # before anything is asked: a mistake is told the same way in both cases
    row: dict[str, Any]
    try:
        row = ToolsetClient(StateDir.at(state_dir)).put_toolset(name, fields, new=new)
    except NotRunning:
        known = Stored.read(state_dir)
        if new and name in known.origins:
            raise GatewayError(
                f"There is a toolset named '{name}' already.", "Change it with `registry toolset edit`."
            ) from None
        if not new:
            known.own(name)
        with offline.writing(state_dir) as store:
            ToolsetRecords(store).put(toolset)
        row = next(r for r in Stored.read(state_dir).rows() if r["name"] == name)
    if as_json:
        render.as_json(row)
        return
    render.out(f"Toolset {name} has {row['tools']} tools, shown as {row['mode']}, at /mcp/{name}.")
    for problem in row["problems"]:
        render.note(problem)


def _spelled(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key} = {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _either(
    state_dir: Path | None, live: Callable[[ToolsetClient], Any], stored: Callable[[Stored], Any]
) -> Any:
    try:
        return live(ToolsetClient(StateDir.at(state_dir)))
    except NotRunning:
        render.note(LAST_KNOWN)
        return stored(Stored.read(state_dir))


def _unknown(state_dir: Path | None, name: str) -> NotFound:
    try:
        names = [row["name"] for row in ToolsetClient(StateDir.at(state_dir)).toolsets()]
    except NotRunning:
        names = list(Stored.read(state_dir).origins)
    return unknown("toolset", name, names, "toolyard registry toolset list")
