"""``status`` and ``inspect``: what there is, and how it is."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gateway.admin.client import NotRunning
from gateway.cli import checks, offline, render
from gateway.cli.level import search_level
from gateway.cli.shared import LAST_KNOWN, JsonFlag, StateFlag, client, unknown, verb
from gateway.errors import NotFound

_SHOWN: Final = 10
"""Tools that `status` names one by one."""


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    verb(app, "", status)
    verb(app, "NAME", inspect)


def status(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Stay, and show it as it changes, until q or Ctrl-C.")
    ] = False,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Show the gateway and every server."""
    if watch:
        if json_:
            raise typer.BadParameter("--watch and --json exclude each other.")
        if not sys.stdout.isatty():
            raise typer.BadParameter(
                "it needs a terminal; for programs there is --json.", param_hint="--watch"
            )
        from gateway.cli.live import watch as stay

        stay(state_dir)
        return
    try:
        seen = client(state_dir).status()
    except NotRunning:
        render.note(LAST_KNOWN)
        seen = offline.status(state_dir)
    seen["search"] = search_level(state_dir)
    if json_:
        render.as_json(seen)
        return
    if seen["gateway"]:
        _gateway(seen)
    servers_table(seen["servers"])
    _conflicts(seen["conflicts"])
    _waiting(seen.get("approvals", []))
    _problems(seen.get("problems") or [])
    _standing(seen.get("registry") or {})
    if seen["servers"]:
        render.out()
        render.paragraph(f"Search: {seen['search']['says']}")
        if planner := seen.get("planner"):
            mend = planner["mend"] or (planner.get("engine") or {}).get("mend") or ""
            render.paragraph(f"Planner: {checks.planner_words(planner)}. {mend}".rstrip())


def _gateway(seen: dict[str, Any]) -> None:
    for line in servers_head(seen):
        render.out(line)
    if sandbox := seen.get("sandbox"):
        still = "; ".join(sandbox["open"])
        render.paragraph(
            f"converted services run in sandbox {sandbox['level']} ({sandbox['made_of']}), which takes "
            f"{sandbox['start_ms']:.0f} ms to enter" + (f"; open: {still}" if still else "")
        )
    config = seen["gateway"].get("config") or {}
    if config.get("error"):
        render.out()
        render.paragraph(f"The servers file is not in use: {config['error']}")
    render.out()


def servers_head(seen: dict[str, Any]) -> list[str]:
    """Two lines about a running gateway."""
    gateway, rows = seen["gateway"], seen["servers"]
    up = gateway.get("uptime_s") or max(0.0, time.time() - float(gateway.get("started_at") or time.time()))
    tools = sum(row["tools"] for row in rows)
    clients = int(gateway.get("sessions") or 0) + int(gateway.get("relays") or 0)
    return [
        f"{gateway['url']}  (version {gateway['version']}, pid {gateway['pid']})",
        f"up {render.duration(up)}, {render.count(len(rows), 'server')}, {render.count(tools, 'tool')}, "
        f"{render.count(clients, 'client')}, names by {gateway['names']}"
        + ("" if gateway.get("auth", True) else ", no token asked"),
    ]


def servers_rows(
    rows: list[dict[str, Any]],
) -> tuple[tuple[str, ...], list[tuple[str, ...]], tuple[str, ...]]:
    """The columns of the servers' table, its cells, and the columns that hold numbers."""
    columns: tuple[str, ...] = (
        "name",
        "state",
        "via",
        "tools",
        "resources",
        "prompts",
        "calls",
        "restarts",
        "listed",
    )
    cells: list[tuple[str, ...]] = [
        (
            row["name"],
            row["state"],
            row["transport"],
            str(row["tools"]),
            str(row["resources"] + row["templates"]),
            str(row["prompts"]),
            str(row["calls"]),
            str(row["restarts"]),
            render.ago(row["synced_at"]),
        )
        for row in rows
    ]
    return columns, cells, ("tools", "resources", "prompts", "calls", "restarts")


def servers_table(rows: list[dict[str, Any]]) -> None:
    """Print a row per server, and below them what is wrong with any."""
    if not rows:
        render.out("No servers yet. Add one: toolyard add NAME -- CMD ARGS...")
        return
    columns, cells, right = servers_rows(rows)
    render.table(columns, cells, right=right)
    for row in rows:
        text = " ".join(part for part in (row["error"], row["hint"]) if part)
        if text:
            render.out()
            render.out(f"{row['name']}:")
            render.paragraph(text, "  ")


def _waiting(approvals: list[dict[str, Any]]) -> None:
    if approvals:
        calls = "One call waits" if len(approvals) == 1 else f"{len(approvals)} calls wait"
        render.out()
        render.out(f"{calls} for your approval; `toolyard approve-call` shows them.")


def _conflicts(conflicts: list[dict[str, Any]]) -> None:
    if conflicts:
        render.out()
        render.out("Offered by several servers; the first of them is asked:")
        for item in conflicts:
            others = ", ".join(item["shadowed"])
            render.paragraph(f"{item['kind']} {item['key']}: {item['owner']}, not {others}", "  ")


def _standing(registry: dict[str, Any]) -> None:
    for title, key in (
        ("Withheld from clients until a person approves them:", "withheld"),
        ("Served although they have changed:", "flagged"),
    ):
        if rows := registry.get(key):
            render.out()
            render.out(title)
            for row in rows[:_SHOWN]:
                why = ": ".join(part for part in (row.get("reason"), row.get("detail")) if part)
                render.paragraph(f"{row['server']}/{row['tool']}" + (f": {why}" if why else ""), "  ")
            if len(rows) > _SHOWN:
                render.out(f"  and {len(rows) - _SHOWN} more: toolyard registry list --withheld")
            render.out("  See `toolyard registry diff`, then `toolyard registry approve SERVER[/TOOL]`.")


def _problems(problems: list[dict[str, Any]]) -> None:
    if problems:
        render.out()
        render.out("Left out of the lists:")
        for item in problems:
            render.paragraph(f"{item['server']}: {item['message']}", "  ")


def inspect(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Show everything about the server NAME, or the tool NAME with its parameters."""
    try:
        kind, found = _find(name, state_dir)
    except NotRunning:
        render.note(LAST_KNOWN)
        kind, found = _find_stored(name, state_dir)
    if json_:
        render.as_json(found)
    elif kind == "tool":
        _tool(found)
    else:
        _server(found)


def _find(name: str, state_dir: Path | None) -> tuple[str, dict[str, Any]]:
    gateway = client(state_dir)
    try:
        return "server", gateway.server(name)
    except NotFound:
        tools = gateway.tools()
        servers = [row["name"] for row in gateway.status()["servers"]]
    return "tool", _pick(name, tools, servers)


def _find_stored(name: str, state_dir: Path | None) -> tuple[str, dict[str, Any]]:
    servers = [row["name"] for row in offline.status(state_dir)["servers"]]
    if name in servers:
        return "server", offline.server(state_dir, name)
    return "tool", _pick(name, offline.tools(state_dir), servers)


def _pick(name: str, tools: list[dict[str, Any]], servers: list[str]) -> dict[str, Any]:
    for tool in tools:
        if tool["name"] == name:
            return tool
    names = [*servers, *(tool["name"] for tool in tools)]
    raise unknown("server or tool", name, names, "toolyard status")


def _server(seen: dict[str, Any]) -> None:
    spec, info = seen.get("spec") or {}, seen.get("server_info") or {}
    words = [spec.get("command") or "", *(spec.get("args") or [])]
    approval = seen.get("approval")
    render.pairs(
        [
            ("name", seen["name"]),
            ("state", seen["state"] + (f" (pid {seen['pid']})" if seen.get("pid") else "")),
            ("error", " ".join(part for part in (seen.get("error"), seen.get("hint")) if part)),
            (
                "from",
                {"config": "the servers file", "added": "toolyard add"}.get(seen["origin"], seen["origin"]),
            ),
            (
                "command",
                " ".join(json.dumps(w) if " " in w or not w else w for w in words) if words[0] else "",
            ),
            ("folder", spec.get("cwd") or ""),
            ("variables", ", ".join(spec.get("env") or [])),
            ("url", spec.get("url") or ""),
            ("headers", ", ".join(spec.get("headers") or [])),
            ("via", seen["transport"]),
            ("timeout", f"{spec['timeout']:g} s" if spec.get("timeout") else ""),
            ("approved", "" if approval is None else "yes" if approval.get("approved") else "no"),
            ("server", " ".join(str(info[key]) for key in ("title", "name", "version") if info.get(key))),
            (
                "protocol",
                f"{seen['protocol_version']} ({seen['era']})" if seen.get("protocol_version") else "",
            ),
            ("can", ", ".join(seen.get("capabilities") or {})),
            ("calls", str(seen.get("calls", 0))),
            ("restarts", str(seen.get("restarts") or "")),
            ("listed", render.ago(seen.get("synced_at"))),
            ("says", seen.get("instructions") or ""),
            ("tools", "\n".join(seen.get("tool_names") or [])),
            ("took", "\n".join(_took(tool, usage) for tool, usage in (seen.get("usage") or {}).items())),
            ("resources", str(seen["resources"] + seen["templates"] or "")),
            ("prompts", str(seen["prompts"] or "")),
            ("stderr", "\n".join((seen.get("stderr") or [])[-20:])),
        ]
    )


def _took(tool: str, usage: dict[str, Any]) -> str:
    calls = int(usage["calls"])
    return (
        f"{tool}: {render.count(calls, 'call')}, on average {usage['wall_ms'] / calls:.1f} ms and "
        f"{usage['cpu_ms'] / calls:.1f} ms of CPU, at most {usage['peak_kb'] / 1024:.0f} MiB"
    )


def _tool(tool: dict[str, Any]) -> None:
    definition = tool["definition"]
    hints = {key: value for key, value in (definition.get("annotations") or {}).items() if key != "title"}
    render.pairs(
        [
            ("name", tool["name"]),
            (
                "server",
                tool["server"] + ("" if tool["original"] == tool["name"] else f" ({tool['original']})"),
            ),
            ("title", str(definition.get("title") or "")),
            ("hints", ", ".join(f"{key}: {json.dumps(value)}" for key, value in hints.items())),
            ("does", str(definition.get("description") or "")),
        ]
    )
    schema = definition.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(schema, dict) or not isinstance(properties, dict) or not properties:
        render.out()
        render.out("It takes no arguments.")
        return
    required = schema.get("required")
    render.out()
    for key, value in properties.items():
        value = value if isinstance(value, dict) else {}
        needed = ", required" if isinstance(required, list) and key in required else ""
        default = f", default {json.dumps(value['default'])}" if "default" in value else ""
        render.out(f"{key}  ({_type(value)}{needed}{default})")
        render.paragraph(str(value.get("description") or ""), "  ")


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema and isinstance(schema["enum"], list):
        return "one of " + ", ".join(json.dumps(item) for item in schema["enum"][:8])
    kind = schema.get("type")
    if isinstance(kind, list):
        return " or ".join(str(item) for item in kind)
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            return " or ".join(_type(item) for item in schema[key] if isinstance(item, dict))
    return str(kind or "any")
