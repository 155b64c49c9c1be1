"""Toolsets: named selections of tools, as they are written and kept.

    ToolsetRecords(store).put(read("reviews", {"include": ["github/*"], "exclude": ["*/delete_*"]}))

A toolset is a rule, not a list: a tool that appears tomorrow and fits is in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta
from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert

from registry import schema
from registry.counters import Counter, advance
from registry.errors import BadToolset
from registry.search.scope import matcher
from registry.store import Store, upsert

MAX_TOOLSETS: Final = 200
MAX_PATTERNS: Final = 500
DEFAULT_BUDGET: Final = 10_000
"""Tokens of tool definitions from which ``auto`` searches: about sixty tools."""
RESERVED: Final = frozenset({"find_tools", "call_tool", "plan", "run", "run_status"})
"""Names of the meta tools, which no tool of a toolset can take."""

Expose: TypeAlias = Literal["all", "search", "both", "auto"]
Consent: TypeAlias = Literal["always", "writes", "never"]
Pattern: TypeAlias = Annotated[str, Meta(min_length=1, max_length=300)]
_Patterns: TypeAlias = Annotated[tuple[Pattern, ...], Meta(max_length=MAX_PATTERNS)]
_Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=4000)]
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class Toolset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One toolset.

    Patterns stand for ``server/tool``, as in ``github/*`` or ``*/read_*``; one without a slash is a
    server's name, a tool's, or the name that clients know the tool by.

    :param servers: only tools of these servers; None for all.
    :param tags: only tools with one of these tags; None for all.
    :param rename: ``server/tool`` to the name its clients shall see.
    :param describe: ``server/tool`` to the description its clients shall read.
    :param expose: ``all`` lists the tools; ``search`` lists ``find_tools`` and ``call_tool`` instead,
        ``both`` lists them beside; ``auto`` is ``all`` up to ``token_budget`` and ``search`` above.
    :param consent: what ``call_tool`` asks a person for: ``always``, for ``writes`` (all but what is
        known to read only), or ``never``.
    :param read_only: tools that the person who wrote this knows to change nothing.
    :param tools_only: leave out the servers' prompts and resources.
    """

    name: str
    include: _Patterns = ("*",)
    exclude: _Patterns = ()
    servers: _Patterns | None = None
    tags: _Patterns | None = None
    rename: Annotated[dict[Pattern, str], Meta(max_length=MAX_PATTERNS)] = {}
    describe: Annotated[dict[Pattern, _Text], Meta(max_length=MAX_PATTERNS)] = {}
    expose: Expose = "auto"
    token_budget: Annotated[int, Meta(ge=0, le=10_000_000)] = DEFAULT_BUDGET
    consent: Consent = "writes"
    read_only: _Patterns = ()
    tools_only: bool = False

    def fields(self) -> dict[str, Any]:
        """What differs from the defaults, as `read` takes it."""
        fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        fields.pop("name")
        return fields


_FIELDS: Final = (
    f"Its fields are {', '.join(f for f in Toolset.__struct_fields__ if f != 'name')}; expose is "
    f"{', '.join(get_args(Expose))}; consent is {', '.join(get_args(Consent))}."
)


def read(name: str, fields: Mapping[str, Any]) -> Toolset:
    """A toolset from what a person wrote. Raises BadToolset."""
    if not _NAME.fullmatch(name):
        raise BadToolset(
            f"'{name[:80]}' is no name for a toolset.",
            "Use up to 64 of a-z, 0-9, '-' and '_', beginning with a letter or a digit.",
        )
    if "name" in fields:
        raise BadToolset(f"Toolset '{name}' has a field 'name'.", "Leave it out: the name is given already.")
    try:
        toolset = msgspec.convert({**fields, "name": name}, Toolset)
    except msgspec.ValidationError as error:
        raise BadToolset(f"Toolset '{name}' cannot be used: {error}.", _FIELDS) from None
    new = list(toolset.rename.values())
    for given in new:
        if not _TOOL_NAME.fullmatch(given) or given in RESERVED:
            raise BadToolset(
                f"Toolset '{name}' cannot rename a tool to '{given[:80]}'.",
                f"Use up to 64 of a-z, A-Z, 0-9, '_' and '-', and not {' or '.join(sorted(RESERVED))}.",
            )
    if twice := {given for given in new if new.count(given) > 1}:
        raise BadToolset(f"Toolset '{name}' gives the name '{min(twice)}' to two tools.", "Change one.")
    return toolset


def selector(toolset: Toolset) -> Callable[[str, str, str, Collection[str]], bool]:
    """Whether a tool is in a toolset: asked with server, the server's name for it, the clients', and tags."""
    wanted, unwanted = matcher(toolset.include), matcher(toolset.exclude)
    servers = None if toolset.servers is None else frozenset(toolset.servers)
    tags = None if toolset.tags is None else frozenset(toolset.tags)

    def chosen(server: str, original: str, exposed: str, has: Collection[str]) -> bool:
        if servers is not None and server not in servers:
            return False
        if tags is not None and tags.isdisjoint(has):
            return False
        names = (f"{server}/{original}", f"{server}/{exposed}")
        if wanted is None or not any(map(wanted.match, names)):
            return False
        return unwanted is None or not any(map(unwanted.match, names))

    return chosen


def names_tool(patterns: tuple[str, ...]) -> Callable[[str, str, str], bool]:
    """Whether one of the patterns stands for a tool: server, the server's name for it, the clients'."""
    expression = matcher(patterns)

    def named(server: str, original: str, exposed: str) -> bool:
        if expression is None:
            return False
        return any(map(expression.match, (f"{server}/{original}", f"{server}/{exposed}")))

    return named


class ToolsetRecords:
    """Toolsets in a store. Every method is one transaction; all raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> dict[str, Toolset]:
        """Every toolset by name. One that a later version wrote and this one cannot read raises BadToolset."""
        table = schema.toolsets.c
        with self._store.reading() as connection:
            rows = connection.execute(select(table.name, table.body).order_by(table.name)).all()
        return {name: read(name, msgspec.json.decode(body)) for name, body in rows}

    def put(self, toolset: Toolset) -> None:
        """Add a toolset, or replace the one of that name. Raises BadToolset where there are too many."""
        row = {"name": toolset.name, "body": msgspec.json.encode(toolset.fields()).decode()}
        with self._store.writing() as connection:
            names = set(connection.execute(select(schema.toolsets.c.name)).scalars())
            if len(names | {toolset.name}) > MAX_TOOLSETS:
                raise BadToolset(f"There are {MAX_TOOLSETS} toolsets already.", "Remove some.")
            connection.execute(upsert(insert(schema.toolsets), "name"), row)
            advance(connection, Counter.TOOLSETS)

    def remove(self, name: str) -> bool:
        """Forget a toolset. Returns whether there was one."""
        with self._store.writing() as connection:
            done = connection.execute(delete(schema.toolsets).where(schema.toolsets.c.name == name))
            if done.rowcount:
                advance(connection, Counter.TOOLSETS)
            return done.rowcount > 0
