"""What the tests of runs share: a town of tools in memory, and plans over it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from router.calling import Call
from router.errors import CallFailed
from router.executor import Executor
from router.facts import Facts, Policy, facts_of
from router.journal.journal import Journal
from router.plan import Definition, Plan, from_json

Body = Callable[[Call], Awaitable[Any]]
OBJECT = {"type": "object"}


def result(value: Any, *, is_error: bool = False) -> bytes:
    """The JSON of a CallToolResult."""
    content = [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}]
    made: dict[str, Any] = {"content": content}
    if not isinstance(value, str):
        made["structuredContent"] = value
    if is_error:
        made["isError"] = True
    return json.dumps(made).encode()


class Town:
    """Tools by name, and what was called. Each tool is a coroutine from a call to its value."""

    def __init__(self) -> None:
        self.tools: dict[str, Facts] = {}
        self.bodies: dict[str, Body] = {}
        self.calls: list[Call] = []
        self.running = 0
        self.most = 0

    def tool(
        self,
        name: str,
        body: Body | None = None,
        *,
        server: str = "town",
        read: bool = False,
        schema: dict[str, Any] | None = None,
        output: dict[str, Any] | None = None,
        version: str = "1",
        seconds: float | None = None,
        **policy: Any,
    ) -> None:
        """Add a tool; without a body it answers with its arguments."""
        definition = Definition(
            name=name,
            input_schema=schema or OBJECT,
            output_schema=output,
            annotations={"readOnlyHint": read},
            hash=version,
            server=server,
        )
        self.tools[name] = facts_of(definition, approved=True, policy=Policy(**policy), seconds=seconds)
        self.bodies[name] = body or _echo

    async def call(self, call: Call) -> bytes:
        self.calls.append(call)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            value = await self.bodies[call.tool](call)
        finally:
            self.running -= 1
        return value if isinstance(value, bytes) else result(value)

    def count(self, tool: str) -> int:
        """How often a tool was called."""
        return sum(call.tool == tool for call in self.calls)


async def _echo(call: Call) -> Any:
    return dict(call.arguments)


def answering(value: Any) -> Body:
    """A tool that always answers the same."""

    async def body(call: Call) -> Any:
        return value

    return body


def failing(*errors: CallFailed, then: Any = None) -> Body:
    """A tool that fails so often, and then answers."""
    left = list(errors)

    async def body(call: Call) -> Any:
        if left:
            raise left.pop(0)
        return then if then is not None else {"ok": True}

    return body


class Gate:
    """A tool that answers when it is told to."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.cancelled = 0

    async def body(self, call: Call) -> Any:
        self.entered.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return {"ok": True}


def plan(*steps: dict[str, Any], request: str = "do it") -> Plan:
    """A plan from its steps as JSON."""
    return from_json({"request": request, "plan": list(steps)})


def step(id_: str, tool: str, arguments: dict[str, Any] | None = None, *needs: str) -> dict[str, Any]:
    """A step as JSON."""
    return {"id": id_, "tool": tool, "arguments": arguments or {}, "depends_on": list(needs)}


def ref(id_: str, path: str = "") -> dict[str, Any]:
    """A reference as JSON."""
    return {"$ref": id_, "path": path}


@asynccontextmanager
async def house(folder: Path, town: Town, **options: Any) -> AsyncIterator[Executor]:
    """An executor over a journal in a folder."""
    async with Journal(folder / "runs.db") as journal:
        yield Executor(journal, town.call, town.tools.get, **options)
