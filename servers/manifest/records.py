"""The records of a manifest. Frozen; their JSON is the file's format, version 1."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

FORMAT = 1

Kind = Literal["function", "method", "class", "cli"]
Outcome = Literal["answer", "refusal", "crash", "hang", "unreviewed"]


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the code came from, exactly enough to fetch the same again.

    :ivar spec: what the user asked for.
    :ivar digest: ``sha256:…`` of the folder, archive or wheel; of the lock for an index requirement.
    """

    kind: Literal["index", "folder", "git", "archive"]
    spec: str
    name: str
    version: str
    digest: str
    commit: str | None = None
    homepage: str | None = None


class Repair(msgspec.Struct, frozen=True):
    """Something the environment needed that its metadata does not say."""

    requirement: str
    evidence: str
    rule: Literal["extra", "table", "setuptools", "asked"]


class Environment(msgspec.Struct, frozen=True, omit_defaults=True):
    """The service's locked environment.

    :ivar lock: requirements with hashes, one line each, as ``uv pip sync --require-hashes`` takes them.
    :ivar lock_hash: SHA-256 over lock, Python version and platform: the environment's directory name.
    """

    python: str
    lock: str
    lock_hash: str
    repairs: tuple[Repair, ...] = ()


class Permissions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the service may reach beyond its own environment and a private scratch directory."""

    network: bool = False
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    env: tuple[str, ...] = ()


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Limits of one call. Seconds of wall time, MiB of address space, processes, bytes of output."""

    seconds: float = 30.0
    memory_mb: int = 4096
    processes: int = 64
    file_mb: int = 256


class Parameter(msgspec.Struct, frozen=True, omit_defaults=True):
    """One parameter of the callable behind a tool.

    :ivar kind: as ``inspect.Parameter`` has it, shortened.
    :ivar type: what Python value the JSON becomes; ``servers/worker/hints.py`` says how types are written.
    :ivar default: the default's ``repr``.
    """

    name: str
    kind: Literal["positional", "normal", "keyword", "varargs", "varkw"] = "normal"
    type: dict[str, Any] = {}
    required: bool = False
    default: str | None = None
    description: str = ""


class Option(msgspec.Struct, frozen=True, omit_defaults=True):
    """One option or positional argument of a command, as its own parser knows it.

    :ivar name: the input property that holds it.
    :ivar flag: as written on the command line; empty for a positional argument.
    :ivar off: the flag that says no.
    :ivar switch: whether it takes no value.
    :ivar many: ``repeat`` where the flag is repeated for each value, ``list`` where they follow it.
    """

    name: str
    flag: str
    type: dict[str, Any] = {}
    off: str = ""
    switch: bool = False
    many: Literal["", "repeat", "list"] = ""
    required: bool = False
    default: str | int | float | None = None
    description: str = ""


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """The call that was really made during review, and what came back.

    :ivar source: where the arguments came from: doctest, readme, default, typed, neighbour.
    :ivar deterministic: whether the same call gave the same answer again.
    :ivar varies: False where the answer never depended on the input (ReLoop's perturbation), None if untried.
    """

    outcome: Outcome
    arguments: dict[str, Any] = {}
    source: str = ""
    result: str = ""
    seconds: float = 0.0
    deterministic: bool = True
    varies: bool | None = None
    note: str = ""


class Tool(msgspec.Struct, frozen=True):
    """One tool of a service.

    :ivar qualname: ``module:qualname``, or ``cli:script [sub …]``.
    :ivar aliases: other import paths of the same object.
    :ivar init_property: the input property that holds the constructor's arguments (kind method).
    :ivar argv_property: the input property that holds a command's arguments (kind cli).
    :ivar stdin_property: the input property that is fed to standard input.
    :ivar options: what a command takes, each also a property of its own (kind cli).
    :ivar files_property: the input property with files for the working directory, name to text.
    """

    name: str
    qualname: str
    kind: Kind
    input_schema: dict[str, Any]
    exposed: bool = False
    aliases: tuple[str, ...] = ()
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    constructor: tuple[Parameter, ...] = ()
    output_schema: dict[str, Any] | None = None
    init_property: str | None = None
    argv_property: str | None = None
    stdin_property: str | None = None
    files_property: str | None = None
    reviewed: bool = False
    review: Evidence | None = None
    limits: Limits | None = None
    line: str = ""
    score: float = 0.0
    options: tuple[Option, ...] = ()


class Dropped(msgspec.Struct, frozen=True):
    """A callable that is no tool, and why."""

    qualname: str
    reason: str


class Manifest(msgspec.Struct, frozen=True):
    """A converted service."""

    name: str
    source: Source
    environment: Environment
    tools: tuple[Tool, ...]
    format: int = FORMAT
    description: str = ""
    licence: str = ""
    permissions: Permissions = Permissions()
    limits: Limits = Limits()
    sandbox: Literal["L1", "L2", "L3"] = "L2"
    preload: tuple[str, ...] = ()
    import_seconds: float = 0.0
    dropped: tuple[Dropped, ...] = ()
    found: int = 0
    converter: str = ""

    def exposed(self) -> tuple[Tool, ...]:
        """The tools that ``tools/list`` shows."""
        return tuple(tool for tool in self.tools if tool.exposed)

    def by_name(self) -> dict[str, Tool]:
        """Every tool, hidden ones too, by its name."""
        return {tool.name: tool for tool in self.tools}
