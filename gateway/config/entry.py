"""One entry of a servers file: what it may hold, and everything that is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.config import jsonc
from registry.model import ServerSpec, Transport


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with an entry, and where in it."""

    path: jsonc.Path
    message: str
    expected: str


TRANSPORTS: Final[Mapping[str, Transport]] = {
    "stdio": Transport.STDIO,
    "http": Transport.HTTP,
    "streamable-http": Transport.HTTP,
    "streamableHttp": Transport.HTTP,
    "sse": Transport.SSE,
}
"""Spellings of a transport that clients write as `type` or `transport`."""

_KNOWN: Final = frozenset(
    ("command", "args", "env", "cwd", "url", "headers", "type", "transport", "disabled", "enabled", "timeout")
)
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2: token
SCHEME: Final = re.compile(r"(?i)https?://[^/\s]")


def kind(value: object) -> str:
    """What a JSON value is, in words; never the value, which may be a secret."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    names = {str: "a string", dict: "an object", list: "an array", int: "a number", float: "a number"}
    return names[type(value)]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_entry(name: str, entry: Any) -> tuple[ServerSpec | None, list[Fault]]:
    """The spec an entry gives, or None and everything that is wrong with it."""
    faults: list[Fault] = []

    def fault(message: str, expected: str, *path: str | int) -> None:
        faults.append(Fault(path, message, expected))

    def string(value: Any, what: str, *path: str | int) -> bool:
        if not isinstance(value, str):
            fault(f"{what} is {kind(value)}", "a string", *path)
        elif "\0" in value or not _is_unicode(value):
            fault(f"{what} holds a NUL or half a surrogate pair", "text without them", *path)
        else:
            return True
        return False

    def strings(key: str, valid: Callable[[str], bool], expected: str) -> dict[str, str]:
        value = entry.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            fault(f"{key} is {kind(value)}", "an object of strings", key)
            return {}
        for inner, text in value.items():
            if not valid(inner):
                fault(f"{key} has the name {inner!r}", expected, key, inner)
            string(text, f"{key}.{inner}", key, inner)
        return value

    def boolean(key: str, default: bool) -> bool:
        value = entry.get(key, default)
        if not isinstance(value, bool):
            fault(f"{key} is {kind(value)}", "true or false", key)
        return value is True

    if not name.strip() or not _is_unicode(name) or any(ord(char) < 32 or ord(char) == 127 for char in name):
        fault(f"the name {name!a} is empty or has control characters", "a name")
    if not isinstance(entry, dict):
        fault(f"the entry is {kind(entry)}", 'an object with "command" or "url"')
        return None, faults

    if "manifest" in entry:
        spec = _converted(name, entry, fault, string, boolean)
        return None if faults else spec, faults
    for key in ("command", "url", "cwd"):
        if entry.get(key) is not None and string(entry[key], key, key) and not entry[key].strip():
            fault(f"{key} is empty", "some text", key)
    args = entry.get("args")
    if args is not None and not isinstance(args, list):
        fault(f"args is {kind(args)}", "an array of strings", "args")
        args = None
    for index, arg in enumerate(args or ()):
        string(arg, f"args[{index}]", "args", index)
    env = strings("env", lambda key: bool(key) and "=" not in key and "\0" not in key, "a variable's name")
    headers = strings("headers", lambda key: _HEADER.fullmatch(key) is not None, "a header's name")
    timeout = entry.get("timeout")
    if timeout is not None and not _is_seconds(timeout):
        fault("timeout cannot be used", "seconds, a number over 0", "timeout")
    if "pins" in entry and entry["pins"] not in ("pin", "warn", "follow"):
        fault("pins cannot be used", "one of pin, warn, follow", "pins")
    isolation = entry.get("isolation")
    if isolation not in (None, "shared", "session"):
        fault(f"isolation is {isolation!r}" if isinstance(isolation, str) else f"isolation is {kind(isolation)}",
              '"shared", or "session" for a process per client session', "isolation")  # fmt: skip
    disabled, enabled = boolean("disabled", False), boolean("enabled", True)
    transport = _transport(entry, fault)
    if faults or transport is None:
        return None, faults
    spec = ServerSpec(
        name=name,
        transport=transport,
        command=entry.get("command"),
        args=tuple(args or ()),
        env=env,
        cwd=entry.get("cwd"),
        url=entry.get("url"),
        headers=headers,
        disabled=disabled or not enabled,
        timeout=None if timeout is None else float(timeout),
        extra={key: value for key, value in entry.items() if key not in _KNOWN},
    )
    return spec, faults


def _converted(
    name: str,
    entry: dict[str, Any],
    fault: Callable[..., None],
    string: Callable[..., bool],
    boolean: Callable[[str, bool], bool],
) -> ServerSpec | None:
    """The spec of an entry that names the manifest of a converted service."""
    from gateway.hosted.entry import LEVELS, REQUIRE, WEAK, from_manifest

    known = ("manifest", "disabled", "enabled", "timeout", REQUIRE, WEAK)
    wanted, least, timeout = entry["manifest"], entry.get(REQUIRE), entry.get("timeout")
    if not string(wanted, "manifest", "manifest"):
        return None
    if not wanted.strip():
        fault("manifest is empty", "a shipped service's name, or a folder with manifest.json", "manifest")
    if least is not None and least not in LEVELS:
        fault(f"{REQUIRE} cannot be used", "one of " + ", ".join(LEVELS), REQUIRE)
    if entry.get("command") is not None or entry.get("url") is not None:
        fault("there is a manifest and a command or a url", "one of them", "manifest")
    if timeout is not None and not _is_seconds(timeout):
        fault("timeout cannot be used", "seconds, a number over 0", "timeout")
    weak, disabled, enabled = boolean(WEAK, False), boolean("disabled", False), boolean("enabled", True)
    return from_manifest(
        name,
        wanted,
        require=least,
        allow_weak=weak,
        timeout=timeout,
        disabled=disabled or not enabled,
        extra={key: value for key, value in entry.items() if key not in known},
    )


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1e9


def _transport(entry: dict[str, Any], fault: Callable[..., None]) -> Transport | None:
    """How an entry's server is reached, after its type, its command and its url."""
    command, url = entry.get("command"), entry.get("url")
    said: Transport | None = None
    for key in ("transport", "type"):
        value = entry.get(key)
        if value is None:
            continue
        if not isinstance(value, str) or value not in TRANSPORTS:
            fault(f"{key} is {value!r}" if isinstance(value, str) else f"{key} is {kind(value)}",
                  "one of " + ", ".join(TRANSPORTS), key)  # fmt: skip
            return None
        said = TRANSPORTS[value]
    if command is not None and url is not None:
        fault("there are both a command and a url", "one of the two", "url")
    elif command is None and url is None:
        fault("there is neither a command nor a url", '"command" to start it or "url" to reach it')
    elif url is None and said not in (None, Transport.STDIO):
        fault(f"the transport {said} needs a url", '"url", or the type "stdio"', "command")
    elif url is not None and said is Transport.STDIO:
        fault("the transport stdio needs a command", '"command", or the type "http"', "url")
    elif isinstance(url, str) and not url.startswith("${") and not SCHEME.match(url):
        fault("url is not an address", "http://… or https://…", "url")
    else:
        return said or (Transport.HTTP if url is not None else Transport.STDIO)
    return None
