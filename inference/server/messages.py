"""The messages of a chat body, as chat templates want them."""

from __future__ import annotations

import json
from typing import Any

from inference.errors import BadRequestError
from inference.server.body import Body


def messages(body: Body) -> list[dict[str, Any]]:
    """Each with a role and its content as one text; the arguments of calls as objects."""
    messages = body.get("messages", list, [])
    if not messages:
        raise BadRequestError("'messages' should hold at least one message", param="messages")
    out = []
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequestError(f"messages[{i}] should be an object with a 'role'", param="messages")
        content = message.get("content")
        if isinstance(content, list):  # content parts: this server reads text
            texts = [
                p.get("text") if isinstance(p, dict) and p.get("type") == "text" else None for p in content
            ]
            if not all(isinstance(t, str) for t in texts):
                raise BadRequestError(
                    f"messages[{i}]: only content parts of type 'text' are supported", param="messages"
                )
            content = "".join(str(t) for t in texts)
        elif content is not None and not isinstance(content, str):
            raise BadRequestError(f"messages[{i}]: 'content' should be text", param="messages")
        calls = message.get("tool_calls")
        if calls:  # templates want arguments as an object, OpenAI sends them as a string
            if not isinstance(calls, list) or not all(isinstance(c, dict) for c in calls):
                raise BadRequestError(
                    f"messages[{i}]: 'tool_calls' should be a list of calls", param="messages"
                )
            message = {**message, "tool_calls": [_parsed_arguments(c) for c in calls]}
        out.append({**message, "content": content if content is not None else ""})
    return out


def _parsed_arguments(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        return {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}
    except ValueError:
        return call
