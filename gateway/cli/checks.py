"""What ``toolyard doctor`` looks at: each check is a function that returns what it found."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from gateway.config.settings import Settings
from gateway.errors import ConfigError, GatewayError
from gateway.face.link import connect
from gateway.hosted.entry import is_hosted
from gateway.paths import StateDir
from gateway.version import __version__
from registry.model import ServerSpec

Level = Literal["ok", "warn", "fail"]

_PYTHON: Final = (3, 11)
_FULL: Final = 10 * 2**20
_TIGHT: Final = 200 * 2**20
_EARLIEST: Final = 1_767_225_600  # 2026-01-01: a clock before this product was made is wrong
_HEALTH_SECONDS: Final = 3.0
_LONGEST_SOCKET: Final = 103  # macOS has room for 104 bytes, the closing zero among them


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    :param mend: what to do about it; empty where nothing is to be done.
    """

    name: str
    level: Level
    found: str
    mend: str = ""


def python() -> Check:
    """The interpreter."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < _PYTHON:
        return Check("python", "fail", version, "Install Toolyard with Python 3.11 or later.")
    return Check("python", "ok", f"{version} ({sys.executable})")


def state_directory(state: StateDir) -> Check:
    """Whether the state directory is ours, private and has room."""
    root, name = state.root, "state directory"
    try:
        seen = root.stat()
    except FileNotFoundError:
        return Check(name, "ok", f"{root} (the first start makes it)")
    except OSError as error:
        return Check(name, "fail", f"{root}: {error.strerror}", "Choose another with --state-dir.")
    if not stat.S_ISDIR(seen.st_mode):
        return Check(name, "fail", f"{root} is no directory", "Move it away, or choose another.")
    if hasattr(os, "getuid") and seen.st_uid != os.getuid():
        return Check(name, "fail", f"{root} belongs to uid {seen.st_uid}", "Choose another with --state-dir.")
    if sys.platform != "win32" and seen.st_mode & 0o077:
        mode = stat.S_IMODE(seen.st_mode)
        return Check(name, "fail", f"{root} is open to others (mode {mode:04o})", f"chmod 700 {root}")
    if not os.access(root, os.W_OK | os.X_OK):
        return Check(name, "fail", f"{root} cannot be written", f"chmod 700 {root}")
    free = shutil.disk_usage(root).free
    if free < _TIGHT:
        found = f"{free // 2**20} MiB free on its disk"
        return Check(name, "fail" if free < _FULL else "warn", found, "Make room on that disk.")
    return Check(name, "ok", str(root))


def token(state: StateDir) -> Check:
    """Whether the bearer token is for its user alone."""
    try:
        mode = stat.S_IMODE(state.token.stat().st_mode)
    except FileNotFoundError:
        return Check("token", "ok", "none yet (the first start makes one)")
    except OSError as error:
        return Check("token", "fail", f"{state.token}: {error.strerror}", "Make it readable for yourself.")
    if sys.platform != "win32" and mode & 0o077:
        return Check(
            "token",
            "fail",
            f"{state.token} can be read by others (mode {mode:04o})",
            f"chmod 600 {state.token}; or remove it and restart the gateway for a new one",
        )
    return Check("token", "ok", str(state.token))


def sockets(state: StateDir) -> Check:
    """Whether the sockets can be made, and are not left over."""
    if not hasattr(socket, "AF_UNIX"):
        return Check(
            "sockets", "warn", "this system has no Unix sockets", "Use `toolyard stdio --standalone`."
        )
    stale = []
    for path in (state.control_socket, state.relay_socket):
        if len(os.fsencode(path)) > _LONGEST_SOCKET:
            return Check(
                "sockets",
                "fail",
                f"the path {path} is too long for a socket",
                "Set XDG_RUNTIME_DIR to a shorter place, or choose another --state-dir.",
            )
        try:
            link = connect(path)
        except GatewayError as error:
            return Check("sockets", "fail", error.message, error.hint or "")
        if link is not None:
            link.close()
        elif path.exists():
            stale.append(path.name)
    if stale:
        return Check(
            "sockets",
            "warn",
            f"{' and '.join(stale)} left over by a gateway that did not end cleanly",
            "Nothing: the next start replaces them.",
        )
    return Check("sockets", "ok", str(state.control_socket.parent))


def gateway(status: dict[str, Any] | None, error: GatewayError | None) -> Iterator[Check]:
    """Whether a gateway runs, of which version, and whether its URL answers."""
    if error is not None:
        yield Check("gateway", "fail", error.message, error.hint or "")
        return
    if status is None:
        yield Check("gateway", "warn", "not running", "toolyard serve")
        return
    seen = status["gateway"]
    if seen["version"] != __version__:
        yield Check(
            "gateway",
            "warn",
            f"version {seen['version']} is running, version {__version__} is installed",
            "Restart it.",
        )
    else:
        yield Check("gateway", "ok", f"running, version {seen['version']}, pid {seen['pid']}")
    yield _health(str(seen["url"]))


def _health(url: str) -> Check:
    from http.client import HTTPConnection, HTTPException

    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=_HEALTH_SECONDS)
    try:
        connection.request("GET", "/healthz")
        code = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return Check("endpoint", "fail", f"{url} does not answer: {error}", "Restart the gateway.")
    finally:
        connection.close()
    if code != 200:
        return Check("endpoint", "fail", f"{url} answers with status {code}", "Restart the gateway.")
    return Check("endpoint", "ok", f"{url} answers")


def port(settings: Settings) -> Check:
    """Whether a gateway that starts now could listen."""
    host, number = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, number))
    except OSError as error:
        return Check(
            "port",
            "fail",
            f"{host}:{number} cannot be listened on: {error.strerror or error}",
            "End the program that has it, or choose another with --port or in config.toml.",
        )
    finally:
        probe.close()
    return Check("port", "ok", f"{host}:{number} is free")


def settings(load: Any) -> tuple[Check, Settings | None]:
    """Whether config.toml can be used; ``load`` returns Settings or raises ConfigError."""
    try:
        found: Settings = load()
    except ConfigError as error:
        return Check("settings", "fail", error.message, error.hint or ""), None
    return Check("settings", "ok", str(found.file) if found.file else "all defaults (no config.toml)"), found


def servers_file(path: Path | None) -> Iterator[Check]:
    """Whether the servers file can be used, entry by entry."""
    from gateway.config.servers import read

    if path is None:
        yield Check("servers file", "ok", "none in use")
        return
    try:
        seen = read(path)
    except ConfigError as error:
        yield Check("servers file", "fail", error.message, error.hint or "")
        return
    for fault in seen.problems:
        yield Check("servers file", "fail", str(fault), "Correct that entry.")
    if not seen.problems:
        yield Check("servers file", "ok", str(path))


def commands(specs: Iterable[ServerSpec]) -> Iterator[Check]:
    """Whether the command of every server can be found."""
    missing = 0
    wanted = [spec for spec in specs if spec.command and not spec.disabled and not is_hosted(spec)]
    for spec in wanted:
        command = spec.command or ""
        if "$" in command:
            continue  # it depends on the environment of the gateway
        path = spec.env.get("PATH", os.environ.get("PATH"))
        found = shutil.which(command, path=None if path and "$" in path else path)
        if found is None and spec.cwd and os.sep in command:
            found = shutil.which(os.path.join(spec.cwd, command))
        if found is None:
            missing += 1
            yield Check("commands", "fail", f"{spec.name}: {command} is not found", _install(command))
    if not missing:
        count = len(wanted)
        yield Check("commands", "ok", f"all {count} can be found" if count else "no server needs one")


def _install(command: str) -> str:
    if command in ("npx", "node", "npm"):
        return "Install Node.js (https://nodejs.org), or give the full path."
    if command in ("uv", "uvx"):
        return "Install uv (https://docs.astral.sh/uv), or give the full path."
    return "Install it, or give its full path."


def helpers(specs: Iterable[ServerSpec]) -> Iterator[Check]:
    """Whether what npx and uvx need beside themselves is there."""
    used = {os.path.basename(spec.command or "") for spec in specs if not spec.disabled}
    for name, users, needed in (("node", {"npx", "npm"}, "node"), ("uv", {"uvx"}, "uv")):
        if used & users:
            found = shutil.which(needed)
            if found:
                yield Check(name, "ok", found)
            else:
                yield Check(name, "fail", f"{needed} is not found", _install(needed))


def pins(registry: dict[str, Any]) -> Check:
    """Whether tools wait for a person, and what becomes of those that change."""
    withheld, flagged = registry.get("withheld") or [], registry.get("flagged") or []
    if withheld or flagged:
        said = [
            f"{len(rows)} {what}"
            for rows, what in ((withheld, "withheld"), (flagged, "served as changed"))
            if rows
        ]
        named = ", ".join(f"{row['server']}/{row['tool']}" for row in [*withheld, *flagged][:5])
        return Check(
            "pins",
            "warn",
            f"tools: {', '.join(said)} ({named})",
            "See `toolyard registry diff`, then `toolyard registry approve SERVER[/TOOL]`.",
        )
    loose = sorted(name for name, policy in (registry.get("policies") or {}).items() if policy != "pin")
    return Check(
        "pins",
        "ok",
        "every tool is as it was approved" + (f"; changes pass for {', '.join(loose)}" if loose else ""),
    )


def search(level: dict[str, Any]) -> Check:
    """At which level search works."""
    return Check("search", "warn" if level["mend"] else "ok", level["says"], level["mend"])


def planner(state: dict[str, Any] | None, level: dict[str, Any], settings: Settings | None) -> Check:
    """Which planner makes plans, and why: that of the running gateway, or the one that would.

    :param level: at which level search works, whose encoder the planner by rules uses.
    """
    if state is None:
        from gateway.planning.choice import choose, shown

        state = shown(choose(settings.planner, settings.file)) if settings is not None else {"name": "rules"}
    found, mend = planner_words(state), state.get("mend") or ""
    meaning = state["meaning"] if state.get("loaded") else level["mode"] == "hybrid"
    if state["name"] == "rules":
        found += f"; it compares by {'words and meaning' if meaning else 'words alone'}"
    if not state.get("loaded"):
        found += "; it loads with the first plan"
    if (engine := state.get("engine")) is not None:
        mend = mend or engine["mend"]
    return Check("planner", "warn" if mend else "ok", found, mend)


def planner_words(state: dict[str, Any]) -> str:
    """Which planner makes plans, why, and how it stands, in one line."""
    words = [", ".join(part for part in (state["name"], state.get("why")) if part)]
    if (engine := state.get("engine")) is not None:
        words.append(engine["says"])
    if held := state.get("held_by"):
        said = {"none": "it holds to no schema, so plans are checked and repaired once"}
        words.append(said.get(held, f"plans are held to a grammar by {held}"))
    if problem := state.get("problem"):
        words.append(f"rules plan: {problem.rstrip('.')}")
    return "; ".join(words)


def speed() -> Check:
    """Whether the fast event loop and HTTP parser are there."""
    from importlib.util import find_spec

    wanted = ["httptools"] if sys.platform == "win32" else ["uvloop", "httptools"]
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        return Check(
            "speed", "warn", f"without {' and '.join(missing)}: slower", f"pip install {' '.join(missing)}"
        )
    return Check("speed", "ok", " and ".join(wanted))


def clock(state: StateDir) -> Check:
    """Whether the clock can be right: certificates and ages depend on it."""
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now))
    mend = "Set the system's clock."
    if now < _EARLIEST:
        return Check("clock", "fail", f"it says {shown}", mend)
    try:
        started = float(json.loads(state.running.read_text()).get("started_at", 0))
    except (OSError, ValueError, TypeError, AttributeError):
        started = 0.0
    if started > now + 60:
        return Check("clock", "warn", f"it says {shown}, but the gateway started later than that", mend)
    return Check("clock", "ok", shown)
