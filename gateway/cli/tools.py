"""``tools`` and ``call``: what the servers offer, and the use of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

import typer

from gateway.admin.client import ControlClient, Line, NotRunning
from gateway.cli import offline, render
from gateway.cli.exits import Exit
from gateway.cli.shared import LAST_KNOWN, JsonFlag, StateFlag, client, unknown, verb
from gateway.cli.waiting import Waiting
from gateway.errors import NotFound
from gateway.face.wire import slices


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    verb(app, "[SERVER]", tools)
    verb(app, "TOOL [JSON]", call)


def tools(
    server: Annotated[str | None, typer.Argument(metavar="SERVER", hidden=True)] = None,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """List the tools of all servers, or of SERVER, under the names that clients see."""
    try:
        found = _tools(client(state_dir), server)
    except NotRunning:
        render.note(LAST_KNOWN)
        found = offline.tools(state_dir, server)
    if json_:
        render.as_json({"tools": found})
        return
    if not found:
        render.out("No tools are known." if server is None else f"{server} has shown no tools yet.")
        return
    rows = [(tool["name"], _summary(tool["definition"])) for tool in found]
    render.table(("tool", "does"), rows)


def _tools(gateway: ControlClient, server: str | None) -> list[dict[str, Any]]:
    try:
        return gateway.tools(server)
    except NotFound:
        names = [row["name"] for row in gateway.status()["servers"]]
        raise unknown("server", server or "", names, "toolyard status") from None


def _summary(definition: dict[str, Any]) -> str:
    for key in ("description", "title"):
        if isinstance(definition.get(key), str) and (line := render.first_line(definition[key])):
            return line
    return ""


def call(
    tool: Annotated[str, typer.Argument(metavar="TOOL", hidden=True)],
    arguments: Annotated[str, typer.Argument(metavar="JSON", hidden=True)] = "{}",
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0.001, help="How long it may take.")
    ] = None,
    json_: JsonFlag = False,
    state_dir: StateFlag = None,
) -> None:
    """Call TOOL, with a JSON object of arguments, and print its answer.

    A single - for JSON reads the object from stdin.

    Text is printed as it came, on stdout; what else the answer holds is summed up on stderr. --json
    prints the whole result as the server sent it.
    """
    values = _arguments(sys.stdin.read() if arguments == "-" else arguments)
    gateway = client(state_dir)
    try:
        last = _last(tool, gateway.call(tool, values, timeout))
    except NotFound:
        _unknown_tool(gateway, tool)
    error = last.body.get("error")
    if isinstance(error, dict):
        _failed(gateway, tool, error, as_json=json_, text=last.text)
    result = last.body.get("result")
    result = result if isinstance(result, dict) else {}
    if json_:
        print(slices(last.text)["result"])
    else:
        _print(result)
    if result.get("isError") is True:
        raise typer.Exit(Exit.TOOL_ERROR)


def _arguments(text: str) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        values = json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1] if text.splitlines() else ""
        start = max(0, error.colno - 1 - 40)
        render.problem(
            f"The arguments are not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        )
        render.note(f"  {line[start : start + 72]}")
        render.note("  " + " " * (error.colno - 1 - start) + "^")
        render.note("""  Give a JSON object in single quotes, as '{"path": "/tmp"}'.""")
        raise typer.Exit(Exit.USAGE) from None
    except (ValueError, RecursionError) as error:
        render.problem(f"The arguments are not JSON: {error}.")
        raise typer.Exit(Exit.USAGE) from None
    if not isinstance(values, dict):
        render.problem("The arguments are JSON, but not an object.", """Give one, as '{"path": "/tmp"}'.""")
        raise typer.Exit(Exit.USAGE)
    return values


def _last(tool: str, lines: Iterator[Line]) -> Line:
    """The line that ends a call; the progress before it is shown on a terminal."""
    last = Line({}, "{}")
    with Waiting(tool) as waiting:
        for line in lines:
            last = line
            progress = line.body.get("progress")
            if isinstance(progress, dict):
                waiting.tell(progress)
    return last


def _unknown_tool(gateway: ControlClient, tool: str) -> NoReturn:
    raise unknown("tool", tool, (known["name"] for known in gateway.tools()), "toolyard tools") from None


def _failed(
    gateway: ControlClient, tool: str, error: dict[str, Any], *, as_json: bool, text: str
) -> NoReturn:
    names = [known["name"] for known in gateway.tools()]
    if tool not in names:
        raise unknown("tool", tool, names, "toolyard tools")
    if as_json:
        print(text)
    render.problem(str(error.get("message")))
    raise typer.Exit(Exit.FAILED)


def _print(result: dict[str, Any]) -> None:
    content = result.get("content")
    items = [item for item in content if isinstance(item, dict)] if isinstance(content, list) else []
    for item in items:
        text = _text(item)
        if text is not None:
            # Into a pipe it goes untouched; a terminal must not be steered by a server.
            print(render.clean(text) if sys.stdout.isatty() else text)
        else:
            sys.stdout.flush()
            render.note(f"[{_sum_up(item)}]")
    structured = result.get("structuredContent")
    if structured is not None and not items:
        render.as_json(structured)
    elif structured is not None:
        render.note("[structured content too; --json shows it]")
    if result.get("resultType") == "input_required":
        render.note("[the tool asks for input, which `toolyard call` cannot give]")


def _text(item: dict[str, Any]) -> str | None:
    if item.get("type") == "text" and isinstance(item.get("text"), str):
        return str(item["text"])
    resource = item.get("resource")
    if isinstance(resource, dict) and isinstance(resource.get("text"), str):
        return str(resource["text"])
    return None


def _sum_up(item: dict[str, Any]) -> str:
    resource = item.get("resource")
    body = resource if isinstance(resource, dict) else item
    data = body.get("data") or body.get("blob")
    size = f"{len(data) * 3 // 4:,} bytes" if isinstance(data, str) else ""
    parts = (item.get("type"), body.get("name"), body.get("uri"), body.get("mimeType"), size)
    return " ".join(str(part) for part in parts if part)
