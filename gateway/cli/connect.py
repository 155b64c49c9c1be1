"""``connect``: write our entry into an assistant's own file, and take it out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.admin.client import NotRunning
from gateway.cli import clients, render
from gateway.cli.asking import agreed
from gateway.cli.clientfile import ClientFile
from gateway.cli.clients import Client
from gateway.cli.exits import Exit
from gateway.cli.found import HIDDEN
from gateway.cli.shared import StateFlag, client, verb
from gateway.config.options import ServeOptions
from gateway.config.settings import Settings
from gateway.errors import GatewayError
from gateway.paths import StateDir

_HELP: Final = """\
Write this gateway into an assistant's own file, for all its projects.

\b
  toolyard connect claude           Claude Desktop
  toolyard connect claude-code      Claude Code
  toolyard connect cursor --http
  toolyard connect vscode --disconnect

With --stdio the assistant starts `toolyard stdio`, which shares the one gateway and starts
it where none runs. With --http it is given the URL and the token.

Only our entry is written: comments, order and everything else in the file stay as they are,
and a copy of the file is kept beside it. Restart the assistant afterwards.
"""


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    verb(app, "{claude | claude-code | cursor | vscode} [FLAGS]", connect, help=_HELP)


def connect(
    assistant: Annotated[str, typer.Argument(metavar="ASSISTANT", hidden=True)],
    stdio: Annotated[bool, typer.Option("--stdio", help="It starts our command (the default).")] = False,
    http: Annotated[bool, typer.Option("--http", help="It is given our URL and the token.")] = False,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="What it shall call us [toolyard].", show_default=False)
    ] = "toolyard",
    disconnect: Annotated[bool, typer.Option("--disconnect", help="Take our entry out again.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Replace another entry without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the change, and write nothing.")] = False,
    state_dir: StateFlag = None,
) -> None:
    found = clients.known().get(assistant)
    if found is None:
        raise typer.BadParameter(
            f"{assistant!r} is not one of {', '.join(clients.KEYS)}.", param_hint="ASSISTANT"
        )
    if stdio + http + disconnect > 1:
        raise typer.BadParameter("--stdio, --http and --disconnect exclude each other.")
    if not name.strip():
        raise typer.BadParameter("it is empty.", param_hint="--name")
    file = ClientFile.read(found.user, found.section)
    if disconnect:
        _take_out(found, file, name, yes=yes, dry_run=dry_run)
        return
    if http and not found.http:
        raise GatewayError(
            f"{found.title} starts commands from its file, and takes no URL there.",
            f"Use: toolyard connect {assistant} --stdio.",
        )
    state = StateDir.at(state_dir)
    entry = _http_entry(state_dir, state) if http else clients.stdio_entry(found, state)
    _put_in(found, file, name, entry, yes=yes, dry_run=dry_run)


def _put_in(
    found: Client, file: ClientFile, name: str, entry: dict[str, Any], *, yes: bool, dry_run: bool
) -> None:
    old = file.entry(name)
    if _same(old, entry):
        render.out(f"{found.title} has this entry already: {file.path} stays as it is.")
        return
    text = file.with_entry(name, entry)
    if old is not None:
        render.out(f"{file.path} has another entry {name!r}:")
        _print(name, old)
        render.out("It would become:" if dry_run else "It becomes:")
    elif dry_run:
        render.out(f"This would be written into {file.path}:")
    if old is not None or dry_run:
        _print(name, entry)
    if dry_run:
        return
    hint = "--yes replaces it without asking; --name NAME leaves it alone."
    if old is not None and not yes and not agreed("Replace it?", "Nothing was written", hint):
        raise typer.Exit(Exit.FAILED)
    kept = file.write(text)
    render.out(f"Wrote {name!r} into {file.path}.")
    _after(found, kept)
    if "headers" in entry:
        render.note(f"The token is in that file now: whoever can read {file.path} can call every tool.")


def _take_out(found: Client, file: ClientFile, name: str, *, yes: bool, dry_run: bool) -> None:
    old = file.entry(name)
    if old is None:
        render.out(f"{file.path} has no entry {name!r}: it stays as it is.")
        return
    text = file.without(name)
    if dry_run:
        render.out(f"This would be taken out of {file.path}:")
        _print(name, old)
        return
    if not clients.is_ours(old, old.get("url") if name == "toolyard" and isinstance(old, dict) else None):
        render.out(f"The entry {name!r} of {file.path} does not look like ours:")
        _print(name, old)
        hint = "--yes takes it out without asking."
        if not yes and not agreed("Take it out?", "Nothing was written", hint):
            raise typer.Exit(Exit.FAILED)
    kept = file.write(text)
    render.out(f"Took {name!r} out of {file.path}.")
    _after(found, kept)


def _after(found: Client, kept: Path | None) -> None:
    if kept is not None:
        render.out(f"The file as it was is {kept.name}, beside it.")
    render.out(f"Restart {found.title} to have it go by this.")


def _same(old: Any, new: dict[str, Any]) -> bool:
    """Whether an entry says all that ours does, and reaches nothing else; keys of one's own may be there."""
    if (
        not isinstance(old, dict)
        or ("url" in old) != ("url" in new)
        or ("command" in old) != ("command" in new)
    ):
        return False
    return all(key in old and old[key] == value for key, value in new.items())


def _print(name: str, entry: Any) -> None:
    if isinstance(entry, dict):
        entry = dict(entry)
        for key in ("headers", "env"):
            if isinstance(entry.get(key), dict):
                shown = {k: v if k == "TOOLYARD_CONFIG_DIR" else HIDDEN for k, v in entry[key].items()}
                entry[key] = shown
    for line in json.dumps({name: entry}, indent=2, ensure_ascii=False).splitlines()[1:-1]:
        render.out(line)


def _http_entry(state_dir: Path | None, state: StateDir) -> dict[str, Any]:
    """Our entry as a URL: that of the running gateway, else that of the next one. Raises GatewayError."""
    auth, running = True, True
    try:
        seen = client(state_dir).status()["gateway"]
        url, auth = str(seen["url"]), bool(seen["auth"])
    except NotRunning:
        running = False
        settings = Settings.load(ServeOptions())
        if settings.port == 0:
            raise GatewayError(
                "The gateway takes any free port, so its URL is not known before it runs.",
                "Set a port in config.toml, or use --stdio.",
            ) from None
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{host}:{settings.port}/mcp"
    if not auth:
        return clients.http_entry(url, None)
    try:
        token = state.token.read_text().strip()
    except FileNotFoundError:
        raise GatewayError(
            f"There is no token yet ({state.token}).", "Start the gateway once: toolyard serve."
        ) from None
    except OSError as error:
        raise GatewayError(
            f"The token {state.token} cannot be read: {error.strerror}.", "See: toolyard doctor."
        ) from error
    entry = clients.http_entry(url, token)
    if running and clients.refuses(url, entry["headers"]):
        raise GatewayError(
            f"The gateway at {url} was started with a token of its own, which is kept nowhere.",
            "Start it without --token, or use --stdio.",
        )
    return entry
