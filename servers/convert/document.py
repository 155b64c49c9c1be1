"""A service's documentation page, made from its manifest alone."""

from __future__ import annotations

import json
from typing import Any

from servers.manifest.records import Manifest, Tool


def page(manifest: Manifest) -> str:
    """The page, as Markdown."""
    source = manifest.source
    shown = manifest.exposed()
    origin = f"[{source.name}]({source.homepage})" if source.homepage else source.name
    lines = [
        f"# {manifest.name}",
        "",
        manifest.description,
        "",
        f"Converted from {origin} {source.version} ({manifest.licence or 'no licence named'}); "
        f"{len(shown)} tools shown, {len(manifest.tools) - len(shown)} more through `find_tools`.",
        f"It runs in sandbox {manifest.sandbox}, {'with' if manifest.permissions.network else 'without'} network, "
        f"with {manifest.limits.memory_mb} MiB and {manifest.limits.seconds:g} s a call.",
        "",
    ]
    for tool in shown:
        lines += _tool(tool)
    return "\n".join(lines).rstrip() + "\n"


def _tool(tool: Tool) -> list[str]:
    lines = [f"## {tool.name}", "", tool.description.split("\n\n")[0], "", f"`{tool.qualname}`", ""]
    properties: dict[str, Any] = tool.input_schema.get("properties", {})
    needed = set(tool.input_schema.get("required", ()))
    if properties:
        lines += ["| parameter | type | meaning |", "| --- | --- | --- |"]
        for name, schema in properties.items():
            label = f"`{name}`" + ("" if name in needed else " (optional)")
            lines.append(f"| {label} | {_type(schema)} | {_cell(schema.get('description', ''))} |")
        lines.append("")
    if tool.review is not None and tool.review.outcome == "answer":
        lines += [
            "```json",
            json.dumps(tool.review.arguments, ensure_ascii=False)[:400],
            "```",
            f"gave `{tool.review.result[:200].replace('`', ' ')}`"
            + ("" if tool.review.deterministic else " (not the same every time)"),
            "",
        ]
    return lines


def _type(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind:
        return str(kind)
    if "enum" in schema:
        return _cell(" or ".join(json.dumps(each) for each in schema["enum"][:8]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(each) for each in schema["anyOf"]))
    return "anything"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
