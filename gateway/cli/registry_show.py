"""``registry list|show|history|stats``: what the registry knows, read from the store."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.admin.client import NotRunning
from gateway.cli import render
from gateway.cli.profiles import profile
from gateway.cli.shared import JsonFlag, StateFlag, client, unknown, verb
from gateway.cli.stored import Registry, StoredTool, reading, registry
from registry.audit import AuditRecords
from registry.poison import visible
from registry.tools import Statistics, ToolRecords


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    verb(app, "[SERVER]", list_, name="list")
    verb(app, "SERVER[/TOOL]", show)
    verb(app, "SERVER/TOOL", history)
    verb(app, "[SERVER[/TOOL]]", stats)


def list_(
    server: Annotated[str | None, typer.Argument(metavar="SERVER", hidden=True)] = None,
    withheld: Annotated[
        bool, typer.Option("--withheld", help="Only those that are withheld or flagged.")
    ] = False,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """List every tool that is known, or those of SERVER, and how each stands."""
    known = registry(state_dir)
    if server is not None and not any(True for _ in known.of(server)) and server not in known.servers:
        raise unknown("server", server, known.servers, "toolyard status")
    tools = [t for t in known.tools.values() if server in (None, t.ref.server)]
    if withheld:
        tools = [t for t in tools if t.state in ("withheld", "flagged")]
    if json_:
        render.as_json({"tools": [_row(known, tool) for tool in tools]})
    elif not tools:
        render.out("No tool is withheld or flagged." if withheld else "No tools are known.")
    else:
        rows = [
            (tool.path, tool.state, _approval(tool), tool.ref.hash[:12], _calls(known, tool), _summary(tool))
            for tool in tools
        ]
        render.table(("tool", "state", "approved", "version", "calls", "does"), rows, right=("calls",))


def _row(known: Registry, tool: StoredTool) -> dict[str, Any]:
    done = known.statistics.get((tool.ref.server, tool.ref.name), Statistics())
    return {
        "server": tool.ref.server,
        "tool": tool.ref.name,
        "name": tool.exposed,
        "hash": tool.ref.hash,
        "state": tool.state,
        "reason": tool.reason,
        "detail": tool.hold.detail if tool.hold else None,
        "policy": tool.policy,
        "approved": tool.pin.ref.hash if tool.pin else None,
        "approved_at": tool.pin.approved_at if tool.pin else None,
        "approved_by": tool.pin.approved_by if tool.pin else None,
        "calls": done.calls,
        "successes": done.successes,
        "seconds": done.seconds,
        "cost": done.cost,
    }


def _approval(tool: StoredTool) -> str:
    if tool.pin is None:
        return "no"
    return f"{tool.pin.approved_by}{'' if tool.pin.ref.hash == tool.ref.hash else ' (as it was)'}"


def _calls(known: Registry, tool: StoredTool) -> str:
    return str(known.statistics.get((tool.ref.server, tool.ref.name), Statistics()).calls or "")


def _summary(tool: StoredTool) -> str:
    definition = json.loads(tool.body)
    for key in ("description", "title"):
        if isinstance(definition.get(key), str) and (line := render.first_line(definition[key])):
            return visible(line)
    return ""


def show(
    target: Annotated[str, typer.Argument(metavar="SERVER[/TOOL]", hidden=True)],
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Show what a server offers, at which version, cost and latency; or one tool in full."""
    known = registry(state_dir)
    server, name = known.find(target)
    if name is None:
        with reading(state_dir) as store:
            made = profile(store, known, server)
        render.as_json(made) if json_ else _profile(made)
        return
    tool = known.tool(target)
    row = {**_row(known, tool), "definition": json.loads(tool.body)}
    if json_:
        render.as_json(row)
        return
    done = known.statistics.get((server, name), Statistics())
    render.pairs(
        [
            ("tool", tool.path),
            ("name", tool.exposed or ""),
            ("state", tool.state + (f": {tool.reason}" if tool.reason else "")),
            ("because", visible(tool.hold.detail) if tool.hold else ""),
            ("policy", tool.policy),
            ("approved", _approval(tool) + (f", {render.ago(tool.pin.approved_at)}" if tool.pin else "")),
            ("version", tool.ref.hash),
            ("calls", _sentence(done)),
        ]
    )
    render.out()
    for line in visible(json.dumps(row["definition"], indent=2, ensure_ascii=False)).splitlines():
        render.out(line)


def _sentence(done: Statistics) -> str:
    if not done.calls:
        return ""
    cost = f", cost {done.cost:g}" if done.cost else ""
    return f"{done.calls}, {done.successes / done.calls:.0%} successful, {done.seconds / done.calls * 1e3:.0f} ms each{cost}"


def _profile(made: dict[str, Any]) -> None:
    identity, offers, limits = made["identity"], made["offers"], made["limits"]
    calls = made["calls"]
    done = Statistics(calls["calls"], calls["successes"], calls["seconds"], calls["cost"])
    version = made["profile"]
    render.pairs(
        [
            ("server", made["server"]),
            (
                "profile",
                f"version {version['version']}, {render.ago(version['since'])}"
                if version
                else "not seen yet",
            ),
            (
                "calls itself",
                " ".join(str(identity[k]) for k in ("title", "name", "version") if identity.get(k)),
            ),
            ("protocol", f"{made['protocol_version']} ({made['era']})" if made["protocol_version"] else ""),
            (
                "offers",
                ", ".join(
                    render.count(
                        offers[kind] if isinstance(offers[kind], int) else len(offers[kind]), kind[:-1]
                    )
                    for kind in ("tools", "prompts", "resources", "templates")
                ),
            ),
            ("pins", made["policy"]),
            ("limits", ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in limits.items() if v is not None)),
            ("calls", _sentence(done)),
            (
                "latency",
                f"{made['latency']['p50_ms']:g} ms at half, {made['latency']['p95_ms']:g} ms at 95 % "
                f"of the last {made['latency']['of']}"
                if made["latency"]
                else "",
            ),
        ]
    )
    if offers["tools"]:
        render.out()
        rows = [
            (
                tool["tool"],
                tool["state"],
                tool["approved_by"] or "no",
                tool["hash"][:12],
                str(tool["calls"] or ""),
                f"{tool['success_rate']:.0%}" if tool["calls"] else "",
                f"{tool['mean_ms']:.0f}" if tool["calls"] else "",
            )
            for tool in offers["tools"]
        ]
        columns = ("tool", "state", "approved", "version", "calls", "good", "ms")
        render.table(columns, rows, right=("calls", "good", "ms"))


def history(
    target: Annotated[str, typer.Argument(metavar="SERVER/TOOL", hidden=True)],
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """List every version a tool ever had, oldest first. A tool that is gone is remembered too."""
    known = registry(state_dir)
    server, name = known.find(target)
    with reading(state_dir) as store:
        versions = ToolRecords(store).history(server, name or "")
        pins = ToolRecords(store).pins()
    if name is None or not versions:
        raise unknown(
            "tool", target, (t.path for t in known.tools.values()), f"toolyard registry list {server}"
        )
    offered = known.tools.get((server, name))
    pin = pins.get((server, name))

    def marks(digest: str) -> list[str]:
        found = ["offered"] if offered is not None and offered.ref.hash == digest else []
        return found + (["approved"] if pin is not None and pin.ref.hash == digest else [])

    if json_:
        render.as_json(
            {
                "server": server,
                "tool": name,
                "versions": [
                    {
                        "hash": version.ref.hash,
                        "first_seen": version.first_seen,
                        "last_seen": version.last_seen,
                        "is": marks(version.ref.hash),
                        "definition": json.loads(version.body),
                    }
                    for version in versions
                ],
            }
        )
        return
    rows = [
        (
            version.ref.hash[:12],
            _moment(version.first_seen),
            _moment(version.last_seen) if version.last_seen != version.first_seen else "",
            f"{len(version.body):,}",
            ", ".join(marks(version.ref.hash)),
        )
        for version in versions
    ]
    render.table(("version", "first seen", "came back", "bytes", "is"), rows, right=("bytes",))


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def stats(
    target: Annotated[str | None, typer.Argument(metavar="SERVER[/TOOL]", hidden=True)] = None,
    recent: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=50_000, help="The last N calls, one by one.")
    ] = None,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Show what calls came to, by tool: how many, how many succeeded, how long they took.

    With --recent, the audit log: who called what, when, with what outcome. Of arguments only their shape
    is kept; `audit = false` in config.toml keeps no calls at all.
    """
    _flush(state_dir)
    known = registry(state_dir)
    server, name = known.find(target) if target is not None else (None, None)
    if recent is not None:
        _recent(state_dir, server, name, recent, as_json=json_)
        return
    found = {
        tool: done
        for tool, done in known.statistics.items()
        if server in (None, tool[0]) and name in (None, tool[1])
    }
    if json_:
        render.as_json(
            {
                "tools": [
                    {"server": s, "tool": n, **{k: getattr(done, k) for k in Statistics.__dataclass_fields__}}
                    for (s, n), done in found.items()
                ]
            }
        )
        return
    if not found:
        render.out("No calls yet.")
        return
    rows = [
        (
            f"{s}/{n}",
            str(done.calls),
            f"{done.successes / done.calls:.0%}" if done.calls else "",
            f"{done.seconds / done.calls * 1e3:.1f}" if done.calls else "",
            f"{done.cost:g}" if done.cost else "",
        )
        for (s, n), done in sorted(found.items(), key=lambda item: -item[1].calls)
    ]
    render.table(("tool", "calls", "good", "ms", "cost"), rows, right=("calls", "good", "ms", "cost"))


def _flush(state_dir: Path | None) -> None:
    """What the gateway counted a moment ago is to be seen, too."""
    try:
        client(state_dir).registry("flush", {})
    except NotRunning:
        return


def _recent(
    state_dir: Path | None, server: str | None, name: str | None, limit: int, *, as_json: bool
) -> None:
    with reading(state_dir) as store:
        calls = AuditRecords(store).latest(limit, server, name)
    if as_json:
        render.as_json({"calls": [{k: getattr(call, k) for k in call.__struct_fields__} for call in calls]})
        return
    if not calls:
        render.out("No calls were logged.")
        return
    rows = [
        (
            _moment(call.at),
            f"{call.server}/{call.name}",
            call.outcome,
            f"{call.seconds * 1e3:.0f}",
            call.client or "-",
            call.arguments,
        )
        for call in calls
    ]
    render.table(("when", "tool", "outcome", "ms", "client", "arguments"), rows, right=("ms",))
