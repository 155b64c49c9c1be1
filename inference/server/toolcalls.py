"""Tool calls in free text, as Qwen and Hermes models write them: <tool_call>{"name": ..., "arguments": ...}
</tool_call>. Text before the first call is content; a call that does not parse is content too."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_CALL = re.compile(re.escape(OPEN) + r"(.*?)(?:" + re.escape(CLOSE) + r"|$)", re.DOTALL)


def tool_call(name: str, arguments: Any) -> dict[str, Any]:
    """One call in OpenAI's form."""
    text = json.dumps(arguments, ensure_ascii=False)
    return {
        "id": f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": name, "arguments": text},
    }


def parse_call(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    return tool_call(value["name"], value.get("arguments", {}))


class ToolCallSplitter:
    """Content on the way, calls at the end. `whole`: the output is one bare call (the grammar saw to it)."""

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self._held = ""
        self._calling = whole

    def push(self, text: str) -> str:
        """Content that may be shown now."""
        self._held += text
        if self._calling:
            return ""
        at = self._held.find(OPEN)
        if at < 0:
            keep = next(
                (
                    n
                    for n in range(min(len(OPEN) - 1, len(self._held)), 0, -1)
                    if self._held.endswith(OPEN[:n])
                ),
                0,
            )
            at = len(self._held) - keep
        else:
            self._calling = True
        shown, self._held = self._held[:at], self._held[at:]
        return shown

    def finish(self) -> tuple[str, list[dict[str, Any]]]:
        """Content that is left, and the calls."""
        if self._whole:
            call = parse_call(self._held)
            return ("", [call]) if call else (self._held, [])
        calls = [parse_call(body) for body in _CALL.findall(self._held)]
        good = [c for c in calls if c is not None]
        if len(good) != len(calls) or not calls:
            return self._held, []
        return "", good
