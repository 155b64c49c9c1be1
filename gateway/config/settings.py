"""The gateway's own settings: flags of the command line over config.toml over defaults."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, Self

import msgspec
from msgspec import Meta

from gateway.config.options import ServeOptions
from gateway.config.planner import EXPECTED as PLANNER_EXPECTED
from gateway.config.planner import PlannerSettings
from gateway.errors import ConfigError
from gateway.paths import StateDir, config_dir
from registry.errors import BadToolset

if TYPE_CHECKING:
    from registry.toolsets import Toolset

Names = Literal["prefix", "on-collision", "priority"]
Pins = Literal["pin", "warn", "follow"]
LogLevel = Literal["debug", "info", "warning", "error"]


class _Gateway(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The table `[gateway]` of config.toml; its defaults are the product's."""

    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 7420
    names: Names = "prefix"
    timeout: Annotated[float, Meta(gt=0, le=1e9)] = 60.0
    max_body: Annotated[int, Meta(gt=0)] = 16 * 1024 * 1024
    allowed_hosts: list[str] = []
    allowed_origins: list[str] = []
    page_size: Annotated[int, Meta(gt=0)] = 2000
    first_list_grace: Annotated[float, Meta(ge=0, le=1e9)] = 3.0
    log_level: LogLevel = "info"
    pins: Pins = "pin"
    resync: Annotated[float, Meta(ge=0, le=1e9)] = 900.0
    audit: bool = True
    store: Annotated[str, Meta(pattern="^(|postgresql(\\+psycopg)?://.+)$")] = ""
    starters: list[str] | None = None


class SearchSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The table `[search]`: how tools are found.

    :param model: a sentence-transformers model's name or folder; empty for search by words alone.
    :param feedback: whether requests that led to a call are kept, redacted, for search to learn from.
    """

    model: str = "all-MiniLM-L6-v2"
    feedback: bool = True


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    gateway: _Gateway = _Gateway()
    search: SearchSettings = SearchSettings()
    planner: PlannerSettings = PlannerSettings()
    toolsets: dict[str, dict[str, Any]] = {}


_FLAGS: Final = ("host", "port", "names", "log_level")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a running gateway goes by.

    :param port: 0 lets the system choose.
    :param names: the conflict policy of merged names.
    :param timeout: seconds a call may take where its server's entry names no other time.
    :param max_body: bytes a request body may have.
    :param allowed_hosts: `Host` values to accept besides the loopback names.
    :param allowed_origins: `Origin` values to accept besides the loopback ones.
    :param page_size: items on one page of a list.
    :param first_list_grace: seconds that a first list waits for servers never seen before.
    :param pins: what becomes of a tool that changed, where its server's entry says nothing else.
    :param resync: seconds after which connected servers are asked for their lists again; 0 for never.
    :param audit: whether calls are logged in the store.
    :param store: the URL of a Postgres database that gateways share; empty for a file of this state directory.
    :param starters: what is served where nothing is configured: "time" and names of shipped services; None
        means the product's own choice.
    :param file: the config.toml that was read, or None where there is none.
    :param search: how tools are found.
    :param planner: what makes plans.
    :param toolsets: the tables `[toolsets.NAME]`, by name.
    """

    host: str
    port: int
    names: Names
    timeout: float
    max_body: int
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    page_size: int
    first_list_grace: float
    log_level: LogLevel
    store: str = ""
    starters: tuple[str, ...] | None = None
    file: Path | None = None
    pins: Pins = "pin"
    resync: float = 900.0
    audit: bool = True
    search: SearchSettings = field(default_factory=SearchSettings)
    planner: PlannerSettings = field(default_factory=PlannerSettings)
    toolsets: Mapping[str, Toolset] = field(default_factory=dict)

    def store_at(self, state: StateDir) -> str:
        """Where the store is: a URL, or the path of the file in a state directory."""
        return self.store or os.fspath(state.database)

    @classmethod
    def load(cls, options: ServeOptions, path: Path | None = None) -> Self:
        """Read ``path`` (default: config.toml in the configuration directory) and merge.

        A file that does not exist is an empty one. Raises ConfigError.
        """
        path = path or config_dir() / "config.toml"
        text = _read(path)
        parsed = _File() if text is None else _parse(path, text)
        merged = msgspec.structs.asdict(parsed.gateway)
        flags = {name: getattr(options, name) for name in _FLAGS}
        merged.update({name: value for name, value in flags.items() if value is not None})
        if url := os.environ.get("TOOLYARD_STORE"):  # it may hold a password: no flag, which others could see
            merged["store"] = url
        try:
            # Once more, for the flags: what the file said has passed already.
            checked = msgspec.structs.asdict(msgspec.convert(merged, _Gateway))
        except msgspec.ValidationError as error:
            fault, (name, *_) = _split(error)
            flag = "--" + name.replace("_", "-")
            raise ConfigError(
                f"{flag} {merged[name]!r} cannot be used: {fault}.",
                f"Give {_EXPECTED[name]}.",
                expected=_EXPECTED[name],
            ) from None
        for name in ("allowed_hosts", "allowed_origins", "starters"):
            checked[name] = None if checked[name] is None else tuple(checked[name])
        toolsets = _toolsets(path, text or "", parsed.toolsets)
        return cls(
            **checked,
            file=None if text is None else path,
            search=parsed.search,
            planner=parsed.planner,
            toolsets=toolsets,
        )


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        _fail(path, line, "the file is not UTF-8", "TOML, which is UTF-8 text")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}.", "Make it readable, or remove it.", file=str(path)
        ) from error


def _toolsets(path: Path, text: str, tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Toolset]:
    made: dict[str, Toolset] = {}
    if not tables:
        return made
    from registry.toolsets import read as read_toolset  # brings SQLAlchemy, which few commands need

    for name, fields in tables.items():
        try:
            made[name] = read_toolset(name, fields)
        except BadToolset as error:
            head = re.search(rf"^\s*\[toolsets\.[\"']?{re.escape(name)}[\"']?[\].]", text, re.MULTILINE)
            line = text.count("\n", 0, head.end()) + 1 if head else 1
            _fail(path, line, error.message.rstrip("."), (error.hint or "a toolset").rstrip("."))
    return made


def _parse(path: Path, text: str) -> _File:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", str(error))
        line = int(at[1]) if at and at[1] else text.rstrip("\n").count("\n") + 1
        column = int(at[2]) if at and at[2] else None
        _fail(path, line, str(error)[: at.start()] if at else str(error), "TOML (https://toml.io)", column)
    try:
        return msgspec.convert(data, _File)
    except msgspec.ValidationError as error:
        line, first = _locate(text, error)
        fault, keys = _split(first)
        unknown = re.search(r"unknown field `(.*)`$", fault)
        if unknown:
            known = _TABLES[keys[0]] if keys else _File
            fault = f"unknown key {'.'.join([*keys, unknown[1]])}"
            _fail(path, line, fault, "one of " + ", ".join(known.__struct_fields__))
        expected = _EXPECTED.get(".".join(keys)) or _EXPECTED.get(keys[-1], _EXPECTED[keys[0]])
        _fail(path, line, f"{'.'.join(keys)}: {fault}", expected)


def _locate(text: str, error: msgspec.ValidationError) -> tuple[int, msgspec.ValidationError]:
    """The first statement that makes the file wrong: its line, and what is wrong with it.

    tomllib keeps no positions. A statement begins after the longest prefix of lines that is TOML.
    """
    lines = text.split("\n")
    begun = 1
    for count in range(1, len(lines) + 1):
        try:
            msgspec.convert(tomllib.loads("\n".join(lines[:count])), _File)
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a value of several lines
        except msgspec.ValidationError as first:
            return begun, first
        begun = count + 1
    return begun - 1, error


def _split(error: msgspec.ValidationError) -> tuple[str, list[str]]:
    """msgspec's sentence, and the keys of the path `$.a.b[0]` it ends with."""
    fault, _, where = str(error).replace("[...]", "").partition(" - at `")
    keys = [re.sub(r"\[.*\]$", "", key) for key in where.removesuffix("`").split(".")[1:]]
    return fault[:1].lower() + fault[1:], keys


_TABLES: Final = {"gateway": _Gateway, "search": SearchSettings, "planner": PlannerSettings}
_EXPECTED: Final = {
    **PLANNER_EXPECTED,
    "gateway": "a table, written [gateway]",
    "search": "a table, written [search]",
    "toolsets": "tables, each written [toolsets.NAME]",
    "model": 'a model as "all-MiniLM-L6-v2", or "" for search by words alone',
    "feedback": "true or false",
    "host": 'an address to listen on, as "127.0.0.1"',
    "port": "a port from 0 to 65535",
    "names": 'one of "prefix", "on-collision", "priority"',
    "timeout": "seconds, a number over 0",
    "max_body": "bytes, an integer over 0",
    "allowed_hosts": 'a list of host names, as ["box.local"]',
    "allowed_origins": 'a list of origins, as ["https://app.example"]',
    "page_size": "an integer over 0",
    "first_list_grace": "seconds, a number of 0 or more",
    "store": "a URL, as postgresql://user@host/database",
    "starters": 'a list of names, as ["time", "humanize"]',
    "log_level": 'one of "debug", "info", "warning", "error"',
    "pins": 'one of "pin", "warn", "follow"',
    "resync": "seconds, a number of 0 or more",
    "audit": "true or false",
}


def _fail(path: Path, line: int, fault: str, expected: str, column: int | None = None) -> NoReturn:
    where = f"{path}:{line}" if column is None else f"{path}:{line}:{column}"
    data: dict[str, Any] = {"file": str(path), "line": line, "expected": expected}
    raise ConfigError(f"{where}: {fault}.", f"Expected {expected}.", **data)
