"""What a worker has to know of a tool to call it."""

from __future__ import annotations

from typing import Any

import msgspec

from servers.manifest.records import Tool


def worker_record(tool: Tool) -> dict[str, Any]:
    """What a worker has to know of a tool to call it."""
    made: dict[str, Any] = {"kind": tool.kind, "qualname": tool.qualname}
    for name in ("init_property", "argv_property", "stdin_property", "files_property"):
        value = getattr(tool, name)
        if value is not None:
            made[name] = value
    if tool.kind == "cli":
        made["entry"] = tool.line or None
        if tool.options:
            made["options"] = msgspec.to_builtins(tool.options)
    if tool.parameters:
        made["parameters"] = msgspec.to_builtins(tool.parameters)
    if tool.constructor:
        made["constructor"] = msgspec.to_builtins(tool.constructor)
    return made
