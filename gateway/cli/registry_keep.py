"""``registry sync|export|import|import-tools|check|reindex``: the registry kept, moved and mended."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from gateway import jsonrpc
from gateway.admin.client import NotRunning
from gateway.cli import offline, render
from gateway.cli.exits import Exit
from gateway.cli.shared import JsonFlag, StateFlag, client, verb
from gateway.cli.stored import reading, registry
from gateway.cli.waiting import Waiting
from gateway.errors import GatewayError, RpcError, StateError
from gateway.paths import StateDir
from registry.approvals import ApprovalRecords
from registry.store import Store
from registry.sync import read_offer
from registry.tools import Pin, ToolRecords

_BATCH: Final = 500
"""Approvals sent to a gateway at a time."""


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    verb(app, "[SERVER]", sync)
    verb(app, "[FILE]", export)
    verb(app, "FILE", import_, name="import")
    verb(app, "FILE.jsonl", take_tools, name="import-tools")
    verb(app, "", check)
    verb(app, "", reindex)


def sync(
    server: Annotated[str | None, typer.Argument(metavar="SERVER", hidden=True)] = None,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Ask SERVER, or every server, what it offers now, and bring the registry in step.

    The gateway does this by itself when a server connects, says that its lists changed, and every so
    often (`resync` in config.toml).
    """
    done: dict[str, Any] = {}
    with Waiting("asking servers") as waiting:
        for line in client(state_dir).sync(server):
            done = line.body
            if isinstance(done.get("progress"), dict):
                waiting.tell(done["progress"])
    rows = done.get("synced") or []
    if json_:
        render.as_json({"synced": rows})
    else:
        cells = [
            (
                row["server"],
                *(str(len(row.get(kind, ())) or "") for kind in ("created", "updated", "deleted")),
                str(row.get("unchanged", "")),
                row.get("error") or "; ".join(row.get("problems") or ()),
            )
            for row in rows
        ]
        columns = ("server", "new", "changed", "gone", "unchanged", "problem")
        render.table(columns, cells, right=columns[1:5])
    if any(row.get("error") for row in rows):
        raise typer.Exit(Exit.FAILED)


def export(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", hidden=True)] = None,
    state_dir: StateFlag = None,
) -> None:
    """Write every approved definition as a JSON line, to FILE or to stdout: for review, or another gateway.

    No command, no variable and no secret is in it.
    """
    lines = _export(state_dir)
    if file is None:
        for line in lines:
            sys.stdout.write(line.decode())
        return
    count = 0
    try:
        with file.open("wb") as out:
            for line in lines:
                out.write(line)
                count += 1
    except OSError as error:
        raise StateError(f"{file} cannot be written: {error.strerror}.", "Choose another file.") from None
    render.note(f"{render.count(count, 'approved definition')} written to {file}.")


def _export(state_dir: Path | None) -> Iterator[bytes]:
    with reading(state_dir) as store:
        bodies = {version.ref: version.body for version in ToolRecords(store).versions()}
        pins = sorted(ApprovalRecords(store).pins(), key=lambda pin: pin.ref)
    for pin in pins:
        if (body := bodies.get(pin.ref)) is not None:
            # Between tokens a line break says no more than a space; within a string there is none.
            definition = msgspec.Raw(body.replace(b"\n", b" ").replace(b"\r", b" "))
            row = {
                "server": pin.ref.server,
                "approved_at": pin.approved_at,
                "approved_by": pin.approved_by,
                "definition": definition,
            }
            yield jsonrpc.encode(row) + b"\n"


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Take over the approvals of a file that `registry export` wrote: you approve what is in it.

    It adds no server and starts nothing. A tool that is offered as the file has it is served; one that
    is offered otherwise is withheld, and `registry diff` shows how it differs.
    """
    from gateway.admin.registry import approval_of
    from registry.exchange import BadLine

    approved: list[tuple[Pin, bytes]] = []
    rows: list[msgspec.Raw] = []
    with _lines(file) as lines:
        for place, line in enumerate(lines, 1):
            if line.strip():
                try:
                    approved.append(approval_of(jsonrpc.shallow(line)))
                except (RpcError, msgspec.MsgspecError) as error:
                    raise BadLine(f"{file}:{place} is no line of an export: {error}") from None
                rows.append(msgspec.Raw(line))
    try:
        gateway = client(state_dir)
        for start in range(0, len(rows), _BATCH):
            gateway.registry_raw("import", jsonrpc.encode({"tools": rows[start : start + _BATCH]}))
        if not rows:
            gateway.status()
    except NotRunning:
        with offline.writing(state_dir) as store:
            ApprovalRecords(store).adopt(approved)
    if json_:
        render.as_json({"imported": len(approved)})
    else:
        render.out(f"{render.count(len(approved), 'approval')} taken over.")


@contextmanager
def _lines(file: Path) -> Iterator[Iterator[bytes]]:
    try:
        with file.open("rb") as lines:
            yield lines
    except OSError as error:
        raise StateError(f"{file} cannot be read: {error.strerror}.", "Name another file.") from None


def take_tools(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", hidden=True)],
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Add the tools of a file to the registry, for search and for measurement; no server is behind them.

    A line each: {"id", "server", "name", "description", "input_schema"}. All lines or none are taken.
    Needs a state directory that no gateway is running on.
    """
    from registry.exchange import import_tools

    with alone(state_dir) as store, _lines(file), Waiting("reading tools"):
        count = import_tools(ToolRecords(store), file)
    if json_:
        render.as_json({"imported": count})
    else:
        render.out(f"{render.count(count, 'tool')} imported.")


@contextmanager
def alone(state_dir: Path | None) -> Iterator[Store]:
    """The store, for a verb that a running gateway would not notice. Raises GatewayError."""
    try:
        seen = client(state_dir).status()
    except NotRunning:
        with offline.writing(state_dir) as store:
            yield store
        return
    raise GatewayError(
        f"A gateway (pid {seen['gateway']['pid']}) is running on this state directory, and it alone writes there.",
        "Stop it first, or give another --state-dir.",
    )


def check(json_: JsonFlag = False, state_dir: StateFlag = None) -> None:
    """Compare catalogs, tools, pins, vectors and the index with each other, out loud.

    Exit code 1 where something is wrong.
    """
    from registry.search.service import SearchService

    known = registry(state_dir)
    problems: list[str] = []
    with reading(state_dir) as store:
        records = ToolRecords(store)
        for name, catalog in known.catalogs.items():
            listed = {tool: digest for tool, (digest, _) in read_offer(catalog.tools).tools.items()}
            kept = {ref.name: ref.hash for ref in records.current(name)}
            if listed != kept:
                differ = len(set(listed.items()) ^ set(kept.items()))
                problems.append(
                    f"The registry and the last list of server '{name}' differ in {differ} places; "
                    f"the next start, or `toolyard registry sync {name}`, mends it."
                )
        versions = {version.ref for version in records.versions()}
        pins = ApprovalRecords(store).pins()
        lost = [pin for pin in pins if pin.ref not in versions]
        if lost:
            problems.append(f"{len(lost)} approved definitions are not in the history; they cannot be shown.")
        with Waiting("checking the index"):
            service = SearchService(store, StateDir.at(state_dir).search)
            service.open()
            health = service.check()
    problems += health.problems
    withheld = sum(tool.state == "withheld" for tool in known.tools.values())
    facts = {**dataclasses.asdict(health), "pins": len(pins), "withheld": withheld, "problems": problems}
    if json_:
        render.as_json(facts)
    else:
        render.pairs(
            [
                ("tools", str(health.tools)),
                ("approved", str(len(pins))),
                ("withheld", str(withheld)),
                ("search", health.mode + (f", {health.model}" if health.model else "")),
                ("vectors", f"{health.vectors}" + (f", {health.lacking} lacking" if health.lacking else "")),
            ]
        )
        for problem in problems:
            render.paragraph(f"- {problem}")
    raise typer.Exit(Exit.FAILED if problems else Exit.OK)


def reindex(json_: JsonFlag = False, state_dir: StateFlag = None) -> None:
    """Make the search index anew from the store: embed what has no sound vector, write a new generation.

    Needs a state directory that no gateway is running on; a running one mends its index itself.
    """
    from registry.search.service import SearchService

    said: list[str] = []
    with alone(state_dir) as store, Waiting("embedding tools") as waiting:
        service = SearchService(store, StateDir.at(state_dir).search, say=said.append)
        service.open()
        able = service.prepare(
            lambda done, total: waiting.tell({"progress": done, "total": total, "message": "embedding tools"})
        )
        if able:
            service.write_generation()
        health = service.check()
    for line in said:
        render.note(line)
    if json_:
        render.as_json(dataclasses.asdict(health))
    else:
        render.out(
            f"{render.count(health.tools, 'tool')}, {render.count(health.vectors, 'vector')}: {health.mode} search."
        )
    if health.problems and able:
        raise typer.Exit(Exit.FAILED)
