"""``registry diff|approve|withhold``: a person looks at what changed, and decides."""

from __future__ import annotations

import getpass
import time
from typing import Annotated, Any

import typer

from gateway.admin.client import NotRunning
from gateway.cli import offline, render
from gateway.cli.differences import difference, signs
from gateway.cli.shared import JsonFlag, StateFlag, client, verb
from gateway.cli.stored import NO_SERVER, Registry, StoredTool, reading, registry
from gateway.errors import GatewayError
from registry.approvals import LATER_USE, PERSON, ApprovalRecords, Hold
from registry.tools import Pin, ToolRecords


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    verb(app, "[SERVER[/TOOL]]", diff)
    verb(app, "SERVER[/TOOL]", approve)
    verb(app, "SERVER/TOOL", withhold)


def diff(
    target: Annotated[str | None, typer.Argument(metavar="SERVER[/TOOL]", hidden=True)] = None,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Show how tools differ from what was approved: every one that waits, or those of SERVER.

    Hidden characters are written out, as <U+202E>. Exit code 1 where there is a difference.
    """
    known = registry(state_dir)
    tools = [tool for tool in _chosen(known, target) if tool.undecided]
    with reading(state_dir) as store:
        found = [_difference(ToolRecords(store), tool) for tool in tools]
    if json_:
        render.as_json({"differences": found})
    elif not found:
        render.out("Nothing differs from what was approved.")
    else:
        for number, item in enumerate(found):
            if number:
                render.out()
            _print(item)
    raise typer.Exit(1 if found else 0)


def _chosen(known: Registry, target: str | None) -> list[StoredTool]:
    if target is None:
        return [tool for tool in known.tools.values() if tool.state != NO_SERVER]
    server, name = known.find(target)
    return list(known.of(server)) if name is None else [known.tool(target)]


def _difference(records: ToolRecords, tool: StoredTool) -> dict[str, Any]:
    before = None
    if tool.pin is not None:
        versions = records.history(tool.ref.server, tool.ref.name)
        before = next((v.body for v in versions if v.ref.hash == tool.pin.ref.hash), None)
    return {
        "server": tool.ref.server,
        "tool": tool.ref.name,
        "state": tool.state,
        "reason": tool.reason,
        "detail": tool.hold.detail if tool.hold else None,
        "approved": tool.pin.ref.hash if tool.pin else None,
        "offered": tool.ref.hash,
        "signs": signs(tool.body),
        "diff": difference(before, tool.body) if before != tool.body else [],
    }


def _print(item: dict[str, Any]) -> None:
    reason = f": {item['reason']}" if item["reason"] else ""
    render.out(f"{item['server']}/{item['tool']}  ({item['state']}{reason})")
    was = item["approved"][:12] if item["approved"] else "nothing"
    render.out(f"  approved {was}, offered {item['offered'][:12]}")
    if item["reason"] == PERSON:
        render.out(f"  withheld by a person: {item['detail']}")
    for line in item["signs"]:
        render.out(f"  ! {line}")
    for line in item["diff"]:
        render.out(f"  {line}")


def approve(
    target: Annotated[str, typer.Argument(metavar="SERVER[/TOOL]", hidden=True)],
    hash_: Annotated[
        str | None,
        typer.Option("--hash", metavar="HASH", help="Only if its version begins so, as `diff` shows it."),
    ] = None,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Approve a tool as it is offered now, or every tool of SERVER that waits for it.

    It is served again at once, and withheld again when it changes again. Look first: toolyard
    registry diff.
    """
    known = registry(state_dir)
    server, name = known.find(target)
    tools = [known.tool(target)] if name is not None else [t for t in known.of(server) if _waits(t)]
    if hash_ is not None and not all(t.ref.hash.startswith(hash_.lower()) for t in tools):
        raise GatewayError(
            f"{target} is offered at another version than {hash_}.",
            f"Look again: toolyard registry diff {target}.",
        )
    hashes = {tool.ref.name: tool.ref.hash for tool in tools}
    by = _person()
    if hashes:
        try:
            client(state_dir).registry("approve", {"server": server, "tools": hashes, "by": by})
        except NotRunning:
            with offline.writing(state_dir) as store:
                now = time.time()
                ApprovalRecords(store).approve([Pin(tool.ref, now, by) for tool in tools])
    if json_:
        render.as_json({"approved": [{"server": server, "tool": n, "hash": h} for n, h in hashes.items()]})
        return
    if not tools:
        render.out(f"Nothing of {server} waits for approval.")
    for tool in tools:
        render.out(f"Approved {tool.path} as {tool.ref.hash[:12]}.")
    for tool in known.of(server) if name is None else ():
        if tool.hold is not None and tool.hold.reason == PERSON:
            render.note(f"A person withheld {tool.path}: approve it by its name, if you mean to.")


def _waits(tool: StoredTool) -> bool:
    """Whether approving the whole server is about this tool; what a person withheld is named by itself."""
    if tool.hold is not None and tool.hold.reason == PERSON:
        return False
    return tool.undecided or (tool.pin is not None and tool.pin.approved_by == LATER_USE)


def _person() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return "a person"


def withhold(
    target: Annotated[str, typer.Argument(metavar="SERVER/TOOL", hidden=True)],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for `status` to say.")] = "",
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Withhold a tool, however it changes, until it is approved by name."""
    tool = registry(state_dir).tool(target)
    detail = reason or f"withheld by {_person()}"
    try:
        client(state_dir).registry(
            "withhold", {"server": tool.ref.server, "tool": tool.ref.name, "reason": detail}
        )
    except NotRunning:
        with offline.writing(state_dir) as store:
            ApprovalRecords(store).judge([], [Hold(tool.ref, PERSON, detail, time.time())])
    if json_:
        render.as_json({"withheld": {"server": tool.ref.server, "tool": tool.ref.name}})
    else:
        render.out(f"Withheld {tool.path}. To serve it again: toolyard registry approve {tool.path}")
