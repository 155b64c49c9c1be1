"""What ``toolyard doctor`` looks at in the servers' lives, and in the assistants that lead here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from gateway.cli import clients
from gateway.cli.checks import Check, Level
from gateway.cli.clientfile import ClientFile
from gateway.errors import GatewayError
from gateway.paths import StateDir

_CRASHES: Final = 3
_LOGS: Final = 200 * 2**20

_MEND: Final[dict[str, tuple[Level, str, str]]] = {
    "failed": ("fail", "has failed", "`toolyard logs {name}` says why; then: toolyard restart {name}"),
    "pending": (
        "warn",
        "waits for a person's leave",
        "toolyard inspect {name} shows its command; then: toolyard approve {name}",
    ),
    "needs_login": (
        "warn",
        "asks for a login",
        "Add it again with its token: toolyard add … --header-env Authorization=VAR",
    ),
}


def servers(rows: Iterable[dict[str, Any]]) -> Iterator[Check]:
    """Whether every server is in a state it can be called in."""
    wrong = count = 0
    for row in rows:
        count += 1
        name, restarts = row["name"], int(row.get("restarts") or 0)
        if row["state"] in _MEND:
            level, what, mend = _MEND[row["state"]]
            said = f": {row['error']}" if row["error"] else ""
            mend = row["hint"] if row["state"] == "needs_login" and row["hint"] else mend.format(name=name)
            yield Check("servers", level, f"{name} {what}{said}", mend)
        elif restarts >= _CRASHES:
            yield Check(
                "servers",
                "warn",
                f"{name} has ended {restarts} times by itself since the gateway started",
                f"`toolyard logs {name}` says why.",
            )
        elif row["error"]:
            yield Check("servers", "warn", f"{name}: {row['error']}", row["hint"] or f"toolyard logs {name}")
        else:
            continue
        wrong += 1
    if not wrong:
        yield Check(
            "servers", "ok", f"nothing is wrong with any of {count}" if count else "there are none yet"
        )


def logs(state: StateDir) -> Check:
    """How much the logs take; each server's are bounded, but servers come and go."""
    size = 0
    try:
        with os.scandir(state.logs) as files:
            for file in files:
                if file.is_file(follow_symlinks=False):
                    size += file.stat(follow_symlinks=False).st_size
        if state.log.exists():
            size += state.log.stat().st_size
    except FileNotFoundError:
        pass  # none yet, or rotated this moment
    except OSError as error:
        return Check("logs", "warn", f"{state.logs}: {error.strerror}", f"chmod 700 {state.logs}")
    found = f"{state.logs}, {size / 2**20:.1f} MiB"
    if size > _LOGS:
        return Check("logs", "warn", found, "Remove those of servers that you no longer have.")
    return Check("logs", "ok", found)


def assistants(state: StateDir, url: str | None) -> Iterator[Check]:
    """Whether the entries that lead here, in the files of the assistants, still lead anywhere.

    :param url: where the running gateway listens, or None.
    """
    good: list[str] = []
    for client in clients.known().values():
        for path in client.files:
            try:
                entries = ClientFile.read(path, client.section).entries()
            except GatewayError as error:
                yield Check(
                    client.title, "warn", error.message, "Correct that file; its program may refuse it."
                )
                continue
            for name, entry in entries.items():
                if not clients.is_ours(entry, url):
                    # Without a gateway to compare with, an entry of our name that has a URL says nothing.
                    continue
                check = _entry(client, path, name, entry, state)
                if check is None:
                    good.append(client.title)
                else:
                    yield check
    if good:
        yield Check("assistants", "ok", ", ".join(dict.fromkeys(good)))


def _entry(client: clients.Client, path: Path, name: str, entry: Any, state: StateDir) -> Check | None:
    """What is wrong with an entry of ours."""
    where = f"the entry {name!r} of {path}"
    again = f"toolyard connect {client.key} --yes" + ("" if name == "toolyard" else f" --name {name}")
    if "url" in entry:
        return _token(client.title, where, entry, f"{again} --http")
    command = str(entry.get("command"))
    if shutil.which(command) is None:
        return Check(client.title, "fail", f"{where} starts {command}, which is not there", again)
    given = clients.words_of(entry)
    flagged = [str(after) for flag, after in pairwise(given) if flag == "--state-dir"]
    flagged += [str(word).partition("=")[2] for word in given if str(word).startswith("--state-dir=")]
    for folder in flagged:
        # Our own may just not be made yet: the first start does.
        if folder != str(state.root) and not Path(folder).expanduser().is_dir():
            return Check(
                client.title, "warn", f"{where} names the state directory {folder}, which is not there", again
            )
    if not os.path.isabs(command):
        return Check(
            client.title,
            "warn",
            f"{where} starts {command!r} by its name, which a desktop program may not find",
            again,
        )
    return None


def _token(title: str, where: str, entry: Any, again: str) -> Check | None:
    """Whether the running gateway takes the token of an entry that names its URL."""
    headers = entry.get("headers")
    given = {str(k): str(v) for k, v in headers.items()} if isinstance(headers, dict) else {}
    if any("${" in value for value in given.values()):
        return None  # only the assistant knows what it becomes
    if clients.refuses(str(entry["url"]), given):
        return Check(title, "fail", f"{where} has another token than this gateway", again)
    return None
