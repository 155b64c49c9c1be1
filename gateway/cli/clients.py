"""The assistants that Toolyard knows: where each keeps its servers, and how our entry looks there.

Places: the clients' own documentation; Electron puts ``appData`` at ``$XDG_CONFIG_HOME`` on Linux, and
Claude Code follows ``$CLAUDE_CONFIG_DIR``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import platformdirs

from gateway.paths import StateDir


@dataclass(frozen=True, slots=True)
class Client:
    """One assistant.

    :param section: the key its file keeps servers under.
    :param user: its user-level file. :param project: its file within a folder, where it has one.
    :param typed: whether an entry names its transport. :param http: whether an entry may be a URL.
    """

    key: str
    title: str
    section: str
    user: Path
    project: Path | None = None
    typed: bool = True
    http: bool = True

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file it may have, its own first."""
        return (self.user,) if self.project is None else (self.user, self.project)


_ANSWER_SECONDS: Final = 3.0
KEYS: Final = ("claude", "claude-code", "cursor", "vscode")


def known(
    platform: str = sys.platform, environ: Mapping[str, str] = os.environ, folder: Path | None = None
) -> dict[str, Client]:
    """The assistants as they are on this platform, for this user, in this folder."""
    folder = folder or Path.cwd()
    home = Path.home()
    if platform == "darwin":
        data = home / "Library" / "Application Support"
    elif platform == "win32":
        data = Path(environ.get("APPDATA") or home / "AppData" / "Roaming")
    else:
        data = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    code = Path(environ.get("CLAUDE_CONFIG_DIR") or home) / ".claude.json"
    clients = (
        Client(
            "claude",
            "Claude Desktop",
            "mcpServers",
            data / "Claude" / "claude_desktop_config.json",
            typed=False,
            http=False,
        ),
        Client("claude-code", "Claude Code", "mcpServers", code, folder / ".mcp.json"),
        Client(
            "cursor",
            "Cursor",
            "mcpServers",
            home / ".cursor" / "mcp.json",
            folder / ".cursor" / "mcp.json",
            typed=False,
        ),
        Client(
            "vscode",
            "VS Code",
            "servers",
            data / "Code" / "User" / "mcp.json",
            folder / ".vscode" / "mcp.json",
        ),
    )
    return {client.key: client for client in clients}


def stdio_entry(client: Client, state: StateDir) -> dict[str, Any]:
    """Our entry as a command. The assistant may not have our environment, so paths are all written out."""
    command, *arguments = executable()
    arguments.append("stdio")
    if state.root != platformdirs.user_state_path("toolyard", appauthor=False):
        arguments += ["--state-dir", str(state.root)]
    entry: dict[str, Any] = {"type": "stdio"} if client.typed else {}
    entry |= {"command": command, "args": arguments}
    settings = os.environ.get("TOOLYARD_CONFIG_DIR")
    return entry | ({"env": {"TOOLYARD_CONFIG_DIR": os.path.abspath(settings)}} if settings else {})


def http_entry(url: str, token: str | None) -> dict[str, Any]:
    """Our entry as a URL, with the token in it where one is asked for."""
    entry: dict[str, Any] = {"type": "http", "url": url}
    return entry if token is None else {**entry, "headers": {"Authorization": f"Bearer {token}"}}


def executable() -> list[str]:
    """The command that is this program: absolute, and the one that was called where it has a name."""
    name = "toolyard.exe" if sys.platform == "win32" else "toolyard"
    called = shutil.which(sys.argv[0]) if Path(sys.argv[0]).name == name else None
    for found in (called, shutil.which(Path(sys.executable).parent / name), shutil.which("toolyard")):
        if found:
            return [os.path.abspath(found)]
    return [sys.executable, "-P", "-m", "gateway"]


def is_ours(entry: Any, url: str | None = None) -> bool:
    """Whether an entry of a client's file leads to a gateway of ours.

    :param url: the URL of the gateway, for entries that name one.
    """
    if not isinstance(entry, Mapping):
        return False
    if isinstance(entry.get("url"), str):
        return url is not None and _place(entry["url"]) == _place(url)
    return is_our_command(words_of(entry))


def words_of(entry: Mapping[str, Any]) -> list[str]:
    """The command of an entry and its arguments, as far as they are text."""
    arguments = entry.get("args")
    words = [entry.get("command"), *(arguments if isinstance(arguments, list | tuple) else ())]
    return [word for word in words if isinstance(word, str)]


def is_our_command(words: list[str]) -> bool:
    """Whether an argv is ``toolyard stdio`` in one of its spellings, with or without a launcher before it."""
    for at, word in enumerate(words[:-1]):
        if words[at + 1] == "stdio":
            if Path(word).name.lower().removesuffix(".exe") == "toolyard":
                return True
            if word == "gateway" and words[at - 1 : at] == ["-m"]:
                return True
    return False


def refuses(url: str, headers: Mapping[str, str]) -> bool:
    """Whether the gateway at a URL asks for another token than these headers give."""
    from http.client import HTTPConnection, HTTPException

    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=_ANSWER_SECONDS)
    try:
        # No message of MCP: the token is looked at before the body.
        connection.request("POST", parts.path, b"{}", {**headers, "Content-Type": "application/json"})
        return connection.getresponse().status == 401
    except (OSError, HTTPException, ValueError):
        return False  # that it does not answer is another fault than this
    finally:
        connection.close()


def _place(url: str) -> tuple[str, int | None, str] | None:
    """Where a URL leads, all names of this machine being one."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        here = host in ("localhost", "127.0.0.1", "::1")
        return "localhost" if here else host, parts.port, parts.path.rstrip("/")
    except ValueError:
        return None
