"""A worker's answer as an MCP tool result."""

from __future__ import annotations

import json
from typing import Any, Final

from servers.manifest.records import Tool

_LOG: Final = "toolyard/log"
_USAGE: Final = "toolyard/usage"


def of_answer(tool: Tool, answer: dict[str, Any], level: str) -> dict[str, Any]:
    """The tool result: ``structuredContent`` with the value under ``result``, and the same as text."""
    meta = {name: answer[key] for name, key in ((_LOG, "log"), (_USAGE, "usage")) if key in answer}
    if not answer["ok"]:
        return failed(_sentence(tool, answer["error"], level), meta, answer.get("log"))
    value = answer.get("value")
    structured: dict[str, Any] = {"result": value}
    content: list[dict[str, Any]] = [{"type": "text", "text": text_of(value)}]
    if answer.get("exit_code"):
        structured["exit_code"] = answer["exit_code"]
        said = str(answer.get("log", ""))[:2000]
        content.append(
            {"type": "text", "text": f"exit code {answer['exit_code']}" + (f": {said}" if said else "")}
        )
    for mime, data in answer.get("images", ()):
        content.append({"type": "image", "data": data, "mimeType": mime})
    for name, text in answer.get("files", {}).items():
        structured.setdefault("files", {})[name] = text
        content.append(
            {
                "type": "resource",
                "resource": {"uri": f"file:///{name}", "mimeType": "text/plain", "text": text},
            }
        )
    if "handle" in answer:
        meta["toolyard/handle"] = answer["handle"]
        note = f'To use this object in another call, pass "{answer["handle"]}".'
        content.append({"type": "text", "text": note})
        if answer.get("whole") and tool.kind == "class":
            structured["handle"] = answer["handle"]  # what a constructor makes is there to be used
    if answer.get("cut"):
        content.append({"type": "text", "text": "There is more; only the first 10000 items are here."})
    return {
        "content": content,
        "structuredContent": structured,
        "isError": False,
        **({"_meta": meta} if meta else {}),
    }


def failed(message: str, meta: dict[str, Any] | None = None, log: str | None = None) -> dict[str, Any]:
    """A tool result that is an error, said in words."""
    content: list[dict[str, Any]] = [{"type": "text", "text": message}]
    if log and log.strip():
        content.append({"type": "text", "text": f"It printed: {log[:2000]}"})
    return {"content": content, "isError": True, **({"_meta": meta} if meta else {})}


def text_of(value: Any) -> str:
    """A value as text: itself, or its JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _sentence(tool: Tool, error: dict[str, Any], level: str) -> str:
    kind, message = error["kind"], str(error["message"])
    if kind == "bad_arguments":
        return f"The arguments of '{tool.name}' do not fit: {message}."
    if kind == "sandbox":
        return (
            f"'{tool.name}' was refused by the sandbox ({level}): {message}. "
            "If the service is meant to do this, its manifest has to permit it."
        )
    if kind == "memory":
        return f"'{tool.name}': {message} Ask for less, or raise the manifest's memory limit."
    where = f" (at {error['where']})" if error.get("where") else ""
    return f"{message}{where}"
