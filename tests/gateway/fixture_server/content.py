"""Resources, prompts and completions of the fixture server."""

from __future__ import annotations

import json
import re
from typing import Any

from rpc import Call, RpcError, request

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
SOUND = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
WATCHED = "test://watched-resource"

RESOURCES: list[dict[str, Any]] = [
    {"uri": "test://static-text", "name": "static-text", "mimeType": "text/plain"},
    {"uri": "test://static-binary", "name": "static-binary", "mimeType": "image/png"},
    {"uri": WATCHED, "name": "watched-resource", "mimeType": "text/plain"},
]
TEMPLATES: list[dict[str, Any]] = [
    {"uriTemplate": "test://template/{id}/data", "name": "template", "mimeType": "application/json"},
]
PROMPTS: list[dict[str, Any]] = [
    {"name": "test_simple_prompt", "description": "A prompt without arguments."},
    {
        "name": "test_prompt_with_arguments",
        "description": "A prompt with two arguments.",
        "arguments": [{"name": "arg1", "required": True}, {"name": "arg2", "required": True}],
    },
    {
        "name": "test_prompt_with_embedded_resource",
        "description": "A prompt that embeds a resource.",
        "arguments": [{"name": "resourceUri", "required": True}],
    },
    {"name": "test_prompt_with_image", "description": "A prompt with a picture."},
    {"name": "test_input_required_result_prompt", "description": "A prompt that asks for its context."},
]


class Content:
    """What can be read, and how often the watched resource has changed."""

    def __init__(self) -> None:
        self.version = 0

    def read(self, uri: Any, stateless: bool) -> dict[str, Any]:
        """The ``resources/read`` result. Raises RpcError."""
        if uri == "test://static-text":
            item = {"mimeType": "text/plain", "text": "This is the content of the static text resource."}
        elif uri == "test://static-binary":
            item = {"mimeType": "image/png", "blob": PIXEL}
        elif uri == WATCHED:
            item = {"mimeType": "text/plain", "text": f"Watched resource content {self.version}"}
        elif isinstance(uri, str) and (match := re.fullmatch(r"test://template/([^/]+)/data", uri)):
            data = {"id": match[1], "templateTest": True, "data": f"Data for ID: {match[1]}"}
            item = {"mimeType": "application/json", "text": json.dumps(data)}
        else:  # 2025-11-25 and 2026-07-28, Resources: Error Handling
            raise RpcError(-32602 if stateless else -32002, f"Resource not found: {uri}", uri=uri)
        return {"contents": [{"uri": uri, **item}]}


async def prompt(call: Call) -> dict[str, Any]:
    """The ``prompts/get`` result. Raises RpcError."""
    arguments = call.params.get("arguments") or {}
    texts: list[Any]
    match call.params.get("name"):
        case "test_simple_prompt":
            texts = ["This is a simple prompt for testing."]
        case "test_prompt_with_arguments":
            texts = [f"Prompt with arguments: arg1='{arguments.get('arg1')}', arg2='{arguments.get('arg2')}'"]
        case "test_prompt_with_embedded_resource":
            embedded = {
                "uri": arguments.get("resourceUri"),
                "mimeType": "text/plain",
                "text": "Embedded resource content for testing.",
            }
            texts = [
                {"type": "resource", "resource": embedded},
                "Please process the embedded resource above.",
            ]
        case "test_prompt_with_image":
            texts = [
                {"type": "image", "data": PIXEL, "mimeType": "image/png"},
                "Please analyze the image above.",
            ]
        case "test_input_required_result_prompt":
            schema = {
                "type": "object",
                "properties": {"context": {"type": "string"}},
                "required": ["context"],
            }
            wanted = request(
                "elicitation/create",
                message="What context should the prompt use?",
                requestedSchema=schema,
            )
            answer = (await call.ask({"user_context": wanted}))["user_context"]
            texts = [f"Use the following context: {(answer.get('content') or {}).get('context')}"]
        case name:
            raise RpcError(-32602, f"Unknown prompt: {name}")
    contents = [{"type": "text", "text": one} if isinstance(one, str) else one for one in texts]
    return {"messages": [{"role": "user", "content": content} for content in contents]}


def complete(call: Call) -> dict[str, Any]:
    """The ``completion/complete`` result."""
    typed = str((call.params.get("argument") or {}).get("value", ""))
    values = [word for word in ("paris", "park", "party") if word.startswith(typed)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}
