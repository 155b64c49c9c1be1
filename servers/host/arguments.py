"""Arguments checked against a tool's schema, with errors a caller can act on."""

from __future__ import annotations

import threading
from typing import Any, Final

from servers.manifest.records import Tool

_HANDLE: Final = "handle:"
_TAGS: Final = ({"$call"}, {"$ref"}, {"handle"}, {"handle", "result"})


class Checker:
    """Validators, compiled once per tool. ``warm`` imports what they need, for a start in the background."""

    def __init__(self) -> None:
        self._compiled: dict[str, Any] = {}
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Import the validator."""
        import jsonschema  # noqa: F401

    def problems(self, tool: Tool, arguments: dict[str, Any]) -> list[str]:
        """What is wrong with a call's arguments, at most five sentences; empty where nothing is.

        An object given by a handle or by ``$call`` stands for a value that JSON has no schema for.
        """
        with self._lock:
            validator = self._compiled.get(tool.name)
            if validator is None:
                from jsonschema import Draft202012Validator

                validator = self._compiled[tool.name] = Draft202012Validator(tool.input_schema)
        given = {name: value for name, value in arguments.items() if not _stands_in(value)}
        found = []
        for error in validator.iter_errors(given):
            if error.validator == "required" and not error.absolute_path:
                missing = [name for name in error.validator_value if name not in arguments]
                text = f"'{missing[0]}' is missing" if missing else ""
            else:
                text = _sentence(error)
            if text and text not in found:
                found.append(text)
        return found[:5]


def _sentence(error: Any) -> str:
    path = ".".join(str(part) for part in error.absolute_path)
    message = error.message if len(error.message) < 300 else error.message[:297] + "..."
    if error.validator == "anyOf" and error.context:
        kinds = {str(each.schema.get("type")) for each in error.context if isinstance(each.schema, dict)}
        kinds.discard("None")
        if kinds:
            message = f"{str(error.instance)[:80]!r} is none of: {', '.join(sorted(kinds))}"
    return f"'{path}': {message}" if path else message


def _stands_in(value: Any) -> bool:
    if isinstance(value, str):
        return value.startswith(_HANDLE)
    return isinstance(value, dict) and set(value) in _TAGS


def handle_in(value: Any, depth: int = 0) -> str | None:
    """The first handle in some arguments."""
    if isinstance(value, str):
        return value if value.startswith(_HANDLE) else None
    if depth > 6:
        return None
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        found = handle_in(each, depth + 1)
        if found:
            return found
    return None


def uses_call(value: Any, depth: int = 0) -> bool:
    """Whether some argument is to be made by another tool."""
    if isinstance(value, dict):
        return set(value) == {"$call"} or (
            depth < 6 and any(uses_call(each, depth + 1) for each in value.values())
        )
    return isinstance(value, list) and depth < 6 and any(uses_call(each, depth + 1) for each in value)
