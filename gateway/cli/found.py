"""Servers found in an assistant's files, and how they are shown before a person approves them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from gateway.cli.clients import Client
from gateway.config import jsonc, servers
from registry.model import ServerSpec

_SECTIONS: Final = ("mcpServers", "servers")
_SECRET: Final = re.compile(r"(?i)api[-_]?key|access[-_]?key|token|secret|passw|credential|auth|bearer")
_LOOKS_SECRET: Final = re.compile(r"(?:sk-|ghp_|gho_|github_pat_|glpat-|xox[a-z]-|AKIA|eyJ)[\w.-]{8,}")
# Nothing that a shell would read as more than a word: a command does not hide behind "token=".
_VALUE: Final = r"(?:(?:Bearer|Basic|Token) +)?[^\s;|&$()`<>\"'\\]+"
_PLAIN: Final = re.compile(_VALUE, re.IGNORECASE)
_PAIR: Final = re.compile(rf"(-{{0,2}}[\w.-]+)(\s*[=:]\s*){_VALUE}", re.IGNORECASE)
HIDDEN: Final = "(hidden)"


@dataclass(frozen=True, slots=True)
class Found:
    """A server of a file. :param where: the file, and the project within it where it is one's own."""

    spec: ServerSpec
    where: str


def of_client(client: Client) -> tuple[list[Found], list[str], list[Path]]:
    """The servers of an assistant, what could not be used, and the files that are there.

    Raises ConfigError for a file that cannot be read.
    """
    items: list[Found] = []
    problems: list[str] = []
    seen: list[Path] = []
    for path in client.files:
        if path.exists():
            seen.append(path)
            folder = None
            if path == client.project:
                folder = path.parent if path.parent.name not in (".cursor", ".vscode") else path.parent.parent
            more, faults = in_file(path, folder)
            items += more
            problems += faults
    return items, problems, seen


def in_file(path: Path, folder: Path | None) -> tuple[list[Found], list[str]]:
    """The servers of a file, and what could not be used. Raises ConfigError.

    :param folder: where its commands run if they name no place of their own.
    """
    items: list[Found] = []
    problems: list[str] = []
    data = _bytes(path)
    root = _root(data)
    if root is None or _has_section(root):
        file = servers.parse(path, data)
        items += [Found(_placed(spec, folder), str(path)) for spec in file.specs]
        problems += [str(problem) for problem in file.problems]
    # Claude Code keeps servers of each project in its one file.
    projects = root.get("projects") if root else None
    for project, settings in projects.items() if isinstance(projects, dict) else ():
        section = settings.get("mcpServers") if isinstance(settings, dict) else None
        if isinstance(section, dict) and section:
            where = f"{path}, project {project}"
            part = servers.parse(path, json.dumps({"mcpServers": section}).encode())
            items += [Found(_placed(spec, Path(project)), where) for spec in part.specs]
            problems += [f"{where}: server {p.server!r}: {p.message}" for p in part.problems]
    return items, problems


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        servers.read(path)  # says what is wrong with it, typed
        raise


def _root(data: bytes) -> dict[str, Any] | None:
    """The object of a file, empty for an empty file; None for what `servers.parse` shall refuse."""
    if not data.strip():
        return {}
    try:
        text = data.decode()
        try:
            value = json.loads(text)  # such files grow to megabytes, most without a comment in them
        except (ValueError, RecursionError):
            value = jsonc.parse(text).value
    except (UnicodeDecodeError, jsonc.JsoncError):
        return None
    return value if isinstance(value, dict) else None


def _has_section(root: dict[str, Any]) -> bool:
    inner = root.get("mcp")
    nested = isinstance(inner, dict) and any(key in inner for key in _SECTIONS)
    return nested or any(key in root for key in _SECTIONS)


def _placed(spec: ServerSpec, folder: Path | None) -> ServerSpec:
    """The spec as the assistant would run it in a project: there, and with its folder filled in."""

    def fill(text: str) -> str:
        text = text.replace("${userHome}", str(Path.home())).replace("${/}", os.sep)
        if folder is None:
            return text
        text = text.replace("${workspaceFolderBasename}", folder.name)
        return text.replace("${workspaceFolder}", str(folder))

    cwd = None if spec.cwd is None else os.path.expanduser(fill(spec.cwd))
    if spec.command is not None and folder is not None:
        cwd = str(folder / cwd) if cwd else str(folder)
    return dataclasses.replace(
        spec,
        command=None if spec.command is None else fill(spec.command),
        args=tuple(fill(arg) for arg in spec.args),
        env={key: fill(value) for key, value in spec.env.items()},
        url=None if spec.url is None else fill(spec.url),
        headers={key: fill(value) for key, value in spec.headers.items()},
        cwd=cwd,
    )


def same(one: ServerSpec, other: ServerSpec) -> bool:
    """Whether two entries are the same server, whatever the keys that are not ours."""
    return dataclasses.replace(one, extra={}) == dataclasses.replace(other, extra={})


def asks(spec: ServerSpec) -> bool:
    """Whether an entry needs what a person is asked for (VS Code's ``${input:ID}``)."""
    texts = [spec.command or "", spec.url or "", *spec.args, *spec.env.values(), *spec.headers.values()]
    return any("${input:" in text for text in texts)


def described(item: Found) -> str:
    """What a server runs or reaches, over several lines; secrets hidden, everything else to the end."""
    spec = item.spec
    lines = [_url(spec.url) if spec.url is not None else " ".join(_words(spec))]
    if spec.env:
        lines.append("variables: " + ", ".join(sorted(spec.env)))
    if spec.headers:
        lines.append("headers: " + ", ".join(sorted(spec.headers)))
    if spec.cwd:
        lines.append(f"in: {spec.cwd}")
    lines.append(f"from: {item.where}")
    return "\n".join(lines)


def _words(spec: ServerSpec) -> list[str]:
    words: list[str] = []
    hide = False
    for word in (spec.command or "", *spec.args):
        shown = _hidden(word, entire=hide and not word.startswith("-"))
        # A flag that names a secret stands before it, unless it carries it with "=".
        hide = word.startswith("-") and "=" not in word and _SECRET.search(word) is not None
        quoted = not shown or any(char.isspace() or char in "'\"" for char in shown)
        words.append(json.dumps(shown, ensure_ascii=False) if quoted else shown)
    return words


def _hidden(word: str, *, entire: bool) -> str:
    if entire and _PLAIN.fullmatch(word):
        return HIDDEN
    pair = _PAIR.fullmatch(word)
    if pair and not word.lower().startswith(("http:", "https:")) and _SECRET.search(pair[1]):
        return f"{pair[1]}{pair[2]}{HIDDEN}"
    if "://" in word:
        return _url(word)
    return _LOOKS_SECRET.sub(HIDDEN, word)


def _url(url: str) -> str:
    """The URL without a password and without the values of its query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    host = parts.netloc.rpartition("@")
    place = f"{HIDDEN}@{host[2]}" if host[1] else parts.netloc
    query = re.sub(r"=([^&]+)", lambda m: m[0] if m[1].startswith("${") else f"={HIDDEN}", parts.query)
    return _LOOKS_SECRET.sub(HIDDEN, urlunsplit(parts._replace(netloc=place, query=query)))
