"""The servers file: `mcpServers` JSON as Claude Desktop and Cursor write it, and VS Code's `servers`.

One entry that cannot be used is a Problem and leaves the others alone; a file that cannot be used
at all is a ConfigError, so that a running gateway keeps its last good configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from gateway.config import jsonc
from gateway.config.entry import Fault, kind, read_entry
from gateway.config.references import resolve
from gateway.errors import ConfigError
from registry.model import ServerSpec

__all__ = ["Problem", "ServersFile", "from_command", "from_url", "made", "parse", "read", "resolve"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault of one entry. The entry was left out, except that of a name given twice the last stands.

    :param line: from 1. :param column: from 1, in characters.
    :param message: what is wrong; never holds a value of `env` or `headers`.
    """

    file: Path
    line: int
    column: int
    server: str
    message: str
    expected: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        return f"{where}: server {self.server!r}: {self.message}, expected {self.expected}"


@dataclass(frozen=True, slots=True)
class ServersFile:
    """What a servers file says, in its own order."""

    path: Path
    specs: tuple[ServerSpec, ...]
    problems: tuple[Problem, ...]


def read(path: Path) -> ServersFile:
    """Read and parse a servers file. Raises ConfigError: no file, not readable, or see `parse`."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"There is no servers file at {path}.",
            "Create it, or name another with --config.",
            file=str(path),
        ) from None
    except OSError as error:
        raise ConfigError(
            f"The servers file {path} cannot be read: {error.strerror}.", "Make it readable.", file=str(path)
        ) from error
    return parse(path, data)


def parse(path: Path, data: bytes) -> ServersFile:
    """Parse the bytes of a servers file; ``path`` is for messages.

    :raises ConfigError: not UTF-8, not JSON, or no object of servers in it.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        _refuse(path, line, error.start - data.rfind(b"\n", 0, error.start), "not UTF-8", "UTF-8 text")
    try:
        document = jsonc.parse(text)
    except jsonc.JsoncError as error:
        _refuse(path, error.line, error.column, error.message, error.expected)
    specs: dict[str, ServerSpec] = {}
    problems: list[Problem] = []

    def report(at: tuple[int, int], server: str, fault: Fault) -> None:
        problems.append(Problem(path, *at, server, fault.message, fault.expected))

    sections = _sections(path, document)
    for section, entries in sections:
        for repeated, offset in document.repeated:
            if repeated == section[: len(repeated)]:
                _refuse(path, *document.lines.position(offset), _twice(repeated[-1]).message, "it once")
            if repeated[: len(section)] == section:
                report(document.lines.position(offset), str(repeated[len(section)]), _twice(repeated[-1]))
        for name, entry in entries.items():
            spec, faults = read_entry(name, entry)
            for fault in faults:
                report(document.position((*section, name, *fault.path)), name, fault)
            if spec is not None:
                if specs.pop(name, None) is not None:  # once as mcpServers and once as servers
                    report(document.position((*section, name)), name, _twice(name))
                specs[name] = spec
    problems.sort(key=lambda problem: (problem.line, problem.column))
    return ServersFile(path, tuple(specs.values()), tuple(problems))


_SECTIONS: Final = (("mcpServers",), ("servers",), ("mcp", "servers"), ("mcp", "mcpServers"))
_A_SECTION: Final = '{"mcpServers": {"NAME": {"command": …} or {"url": …}}}'


def _sections(path: Path, document: jsonc.Document) -> list[tuple[jsonc.Path, dict[str, Any]]]:
    """The objects of servers in a file. Raises ConfigError."""
    root = document.value
    if not isinstance(root, dict):
        _refuse(path, *document.position(()), f"the file holds {kind(root)}", _A_SECTION)
    found: list[tuple[jsonc.Path, dict[str, Any]]] = []
    for section in _SECTIONS:
        value: Any = root
        for depth, key in enumerate(section, 1):
            if key not in value:
                break
            value = value[key]
            if not isinstance(value, dict):
                fault = f"{'.'.join(section[:depth])} is {kind(value)}"
                _refuse(path, *document.position(section[:depth]), fault, "an object")
        else:
            found.append((section, value))
    if root and not found:
        _refuse(path, *document.position(()), "the file has no servers", _A_SECTION)
    return found


def _refuse(path: Path, line: int, column: int, fault: str, expected: str) -> NoReturn:
    raise ConfigError(
        f"{path}:{line}:{column}: {fault}.",
        f"Expected {expected}.",
        file=str(path),
        line=line,
        column=column,
        expected=expected,
    )


def _twice(key: object) -> Fault:
    return Fault((), f"{str(key)!r} is given twice and the last stands", "each name once")


def from_command(
    name: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    timeout: float | None = None,
) -> ServerSpec:
    """The spec of a server that is started; ``argv`` is the command and its arguments.

    Raises ConfigError.
    """
    if not argv:
        raise ConfigError(f"The server {name!r} has no command.", "Give one after `--`.")
    entry = {"command": argv[0], "args": list(argv[1:]), "env": dict(env or {}), "cwd": cwd}
    return made(name, entry | {"timeout": timeout})


def from_url(
    name: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    transport: str | None = None,
    timeout: float | None = None,
) -> ServerSpec:
    """The spec of a server that is reached; ``transport`` is spelled as `type` in a file.

    Raises ConfigError.
    """
    entry = {"url": url, "headers": dict(headers or {}), "type": transport, "timeout": timeout}
    return made(name, entry)


def made(name: str, entry: dict[str, Any]) -> ServerSpec:
    """The spec of one entry as a servers file has it. Raises ConfigError."""
    spec, faults = read_entry(name, entry)
    if spec is None or faults:
        first = faults[0]
        raise ConfigError(f"The server {name!r} cannot be added: {first.message}.", f"Give {first.expected}.")
    return spec
