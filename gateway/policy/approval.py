"""What a person approves before a command may start: exactly this program, started exactly so.

The key of an approval covers all that decides what code runs; whatever changes it asks again.
Nothing here starts anything, and no shell is ever involved.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gateway.errors import UpstreamUnavailable
from registry.model import ServerSpec

_WINDOWS: Final = sys.platform == "win32"

INHERITED: Final = frozenset(
    [
        "HOME",
        "LOGNAME",
        "PATH",
        "SHELL",
        "TERM",
        "USER",
        "LANG",
        "TZ",
        "TMPDIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
    ]
) | (
    # What a program needs to start on Windows at all; the list of the SDK's stdio client.
    frozenset(
        [
            "APPDATA",
            "COMSPEC",
            "HOMEDRIVE",
            "HOMEPATH",
            "LOCALAPPDATA",
            "PATHEXT",
            "PROCESSOR_ARCHITECTURE",
            "SYSTEMDRIVE",
            "SYSTEMROOT",
            "TEMP",
            "TMP",
            "USERNAME",
            "USERPROFILE",
        ]
    )
    if _WINDOWS
    else frozenset()
)
"""Variables that a child gets from us; all others, and so every secret, only where its entry says so."""
INHERITED_PREFIXES: Final = ("LC_", "XDG_")

# Values that choose which code a program loads, so that they are part of what is approved.
_DECISIVE: Final = frozenset(
    [
        "PATH",
        "PATHEXT",
        "NODE_OPTIONS",
        "NODE_PATH",
        "PERL5LIB",
        "PERL5OPT",
        "RUBYLIB",
        "RUBYOPT",
        "JAVA_TOOL_OPTIONS",
        "CLASSPATH",
        "BASH_ENV",
        "ENV",
        "GIT_SSH_COMMAND",
    ]
)
_DECISIVE_PREFIXES: Final = ("LD_", "DYLD_", "PYTHON", "NPM_CONFIG_", "npm_config_", "UV_", "PIP_")


class CommandNotFound(UpstreamUnavailable):
    """The program of a server is not there, so nothing can be approved or started."""

    kind = "command_not_found"
    retriable = False


def child_environment(spec: ServerSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a stdio child: a few names of ours, and the entry's own on top.

    :param spec: resolved (`gateway.config.servers.resolve`).
    """
    # A value that begins so is a shell function exported by bash (CVE-2014-6271); the SDK skips it too.
    child = {
        name: value for name, value in environ.items() if _inherited(name) and not value.startswith("()")
    }
    if _WINDOWS:  # names are the same there whatever their case
        ours = {name.upper() for name in spec.env}
        child = {name: value for name, value in child.items() if name.upper() not in ours}
    return child | dict(spec.env)


def _inherited(name: str) -> bool:
    if _WINDOWS:
        name = name.upper()
    return name in INHERITED or name.startswith(INHERITED_PREFIXES)


def find_executable(spec: ServerSpec, environ: Mapping[str, str]) -> str:
    """The absolute path of a resolved spec's program, as the child's own PATH and directory give it.

    Start exactly this path: then what runs is what was approved. Raises CommandNotFound.
    """
    command = spec.command
    if not command:
        raise CommandNotFound(f"The server {spec.name!r} has no command to start.", "Give it one.")
    child = child_environment(spec, environ)
    directory = os.path.abspath(spec.cwd) if spec.cwd else os.getcwd()
    if spec.cwd and not os.path.isdir(directory):
        raise CommandNotFound(
            f"The directory {directory} that server {spec.name!r} is to start in does not exist.",
            "Create it, or correct `cwd`.",
            server=spec.name,
        )
    if os.path.dirname(command):
        path = os.path.join(directory, command)
        found = shutil.which(path)
        if found is None:
            why = "is not there" if not os.path.exists(path) else "is not a program that may be executed"
            hint = "Write the path in full: nothing expands `~` here." if command.startswith("~") else None
            raise CommandNotFound(
                f"The command {command!r} of server {spec.name!r} {why} (looked at {path}).",
                hint or "Correct the path, or make the file executable.",
                server=spec.name,
            )
        return os.path.abspath(found)
    search = next((value for name, value in child.items() if _same_name(name, "PATH")), os.defpath)
    # An empty or relative part of PATH means the child's directory, not ours.
    parts = [os.path.join(directory, part) for part in search.split(os.pathsep)]
    found = shutil.which(command, path=os.pathsep.join(parts))
    if found is None:
        raise CommandNotFound(
            f"The command {command!r} of server {spec.name!r} was not found in PATH ({search}).",
            f"Install it, write its full path, or set PATH in the server's `env`; "
            f"`command -v {shlex.quote(command)}` in a terminal shows where it is.",
            server=spec.name,
        )
    return os.path.abspath(found)


def approval_key(spec: ServerSpec, environ: Mapping[str, str]) -> tuple[str, str]:
    """The key of the approval that a resolved stdio server needs, and what it covers, to be read.

    The key is a hash over argv, working directory, names of the entry's variables, values of those
    that decide which code is loaded (PATH and the like), the program found and its SHA-256. Reads
    the program unless it was read before: call it in a worker thread.

    :returns: key (hexadecimal), detail (no secret in it: variables by name, references unresolved).
    :raises CommandNotFound: the program is not there or cannot be read.
    """
    executable = find_executable(spec, environ)
    digest = _executable_digest(spec, executable)
    argv = [spec.command, *spec.args]
    child = child_environment(spec, environ)
    decisive = {name: value for name, value in sorted(child.items()) if _decisive(name)}
    covered = {
        "version": 1,
        "argv": argv,
        "cwd": os.path.abspath(spec.cwd) if spec.cwd else None,
        "env": sorted(spec.env),
        "values": decisive,
        "executable": executable,
        "sha256": digest,
    }
    key = hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()
    lines = [shlex.join(_shown(spec, environ)), f"program: {executable} (sha256 {digest[:16]}…)"]
    if spec.cwd:
        lines.append(f"directory: {os.path.abspath(spec.cwd)}")
    if spec.env:
        lines.append(f"variables: {', '.join(sorted(spec.env))}")
    return key, "\n".join(map(_printable, lines))


def _decisive(name: str) -> bool:
    name = name.upper() if _WINDOWS else name
    return name in _DECISIVE or name.startswith(_DECISIVE_PREFIXES)


def _same_name(left: str, right: str) -> bool:
    return left.upper() == right.upper() if _WINDOWS else left == right


# the program --------------------------------------------------------------------------------------


def _executable_digest(spec: ServerSpec, path: str) -> str:
    try:
        real = os.path.realpath(path)
        status = os.stat(real)
        return _digest(
            real, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )
    except OSError as error:
        raise CommandNotFound(
            f"The program {path} of server {spec.name!r} cannot be read: {error.strerror}.",
            "Make it readable, so that what is approved can be told apart from what replaces it.",
            server=spec.name,
        ) from error


@functools.lru_cache(maxsize=256)
def _digest(path: str, device: int, inode: int, size: int, mtime_ns: int, ctime_ns: int) -> str:
    """SHA-256 of a file; the other arguments say which version of it, and only key the cache."""
    with Path(path).open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is no regular file")
        return hashlib.file_digest(file, "sha256").hexdigest()


# for people ---------------------------------------------------------------------------------------

_SECRET_WORD: Final = r"(?:token|secret|passw|api-?_?key|auth|credential|cookie|private-?_?key)"
_SECRET_NAME: Final = re.compile(rf"(?i)[\w-]*{_SECRET_WORD}[\w-]*")
_SECRET_HEADER: Final = re.compile(
    r"(?is)((?:proxy-)?authorization|cookie|(?:x-)?api-key|x-[\w-]*(?:token|key|auth))\s*:.*"
)
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_KNOWN_TOKEN: Final = re.compile(
    r"\b(?:[sp]k[-_]|gh[a-z]_|github_pat_|glpat-|xox[a-z]-|hf_|AKIA|eyJ)[\w-]{12,}[\w.-]*"
)
_SHORTEST_SECRET: Final = 6


def _shown(spec: ServerSpec, environ: Mapping[str, str]) -> list[str]:
    """argv without secrets: what came from a variable shows as ``${VAR}``, what looks secret as ``***``.

    The first is certain for every variable of ours that the child does not get anyway; the second
    is a guess, for secrets that were written into the entry itself.
    """
    values = {
        value: name
        for name, value in environ.items()
        if len(value) >= _SHORTEST_SECRET and not _inherited(name) and not _is_path(value)
    }
    longest_first = sorted(values, key=len, reverse=True)
    shown: list[str] = []
    hide_next = False
    for arg in (spec.command or "", *spec.args):
        text = arg
        for value in longest_first:
            if value in text:
                text = text.replace(value, f"${{{values[value]}}}")
        text = _KNOWN_TOKEN.sub("***", _USERINFO.sub("***", text))
        header = _SECRET_HEADER.fullmatch(text)
        if header is not None:
            text = f"{header[1]}: ***"
        name, equals, _ = text.partition("=")
        secret = _SECRET_NAME.fullmatch(name) is not None
        if hide_next and not text.startswith("-"):
            text = "***"
        elif secret and equals:
            text = f"{name}=***"
        hide_next = secret and not equals and text.startswith("-")
        shown.append(text)
    return shown


def _printable(text: str) -> str:
    """Control characters spelled out: a line must not forge another one, nor steer a terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def _is_path(value: str) -> bool:
    """Of a file that exists: to name it gives nothing away, and a person should see it."""
    return os.path.isabs(value) and os.path.exists(value)
