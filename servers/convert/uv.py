"""Running uv: plainly where it only unpacks wheels, in a sandbox where it runs a project's build."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from servers.errors import EnvironmentFailed, IndexUnreachable
from servers.sandbox.policy import Policy

TIMEOUT: Final = 600.0
_OFFLINE: Final = re.compile(
    r"(?i)are you offline|network (?:was|is) disabled|network connectivity is disabled|error sending request|dns error"
    r"|connect(?:ion)? (?:error|refused|reset|timed out)|failed to lookup address|tunnel error|operation timed out"
)
"""How uv says that it did not reach an index."""
_ABSENT: Final = re.compile(r"[Bb]ecause (\S+) was not found in the package registry")
"""How uv says that there is no such package."""
_FRAMES: Final = " \u00d7\u2570\u2500\u25b6\u2502\u251c"
"""What uv draws around its messages."""
_PASSED: Final = (
    "UV_", "PIP_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy",
    "https_proxy", "all_proxy", "no_proxy",
)  # fmt: skip


@cache
def program() -> str:
    """The uv to use. Raises EnvironmentFailed where there is none."""
    try:
        from uv import find_uv_bin

        return os.fspath(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise EnvironmentFailed(
            "Environments are built by uv, which is not installed.", "Install 'toolyard[convert]'."
        )
    return found


@cache
def cache_dir() -> str:
    """uv's own cache."""
    done = subprocess.run(
        [program(), "cache", "dir"], capture_output=True, text=True, check=False, timeout=30
    )
    return done.stdout.strip() or os.path.expanduser("~/.cache/uv")


def run(arguments: Sequence[str], *, stdin: str = "") -> str:
    """Run uv on wheels alone: nothing of what it handles is executed.

    :raises EnvironmentFailed: with uv's own words.
    """
    return _finish([program(), *arguments], stdin, None, None)


def run_building(
    arguments: Sequence[str],
    level: str,
    *,
    write: Sequence[str] = (),
    read: Sequence[str] = (),
    stdin: str = "",
) -> str:
    """Run uv where it may execute a project's build: sandboxed, with the network for its requirements.

    :param write: directories it may write, beyond uv's cache and a scratch directory of its own.
    :raises EnvironmentFailed: with uv's own words.
    """
    scratch = tempfile.mkdtemp(prefix="toolyard-build-")
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    os.makedirs(cache_dir(), exist_ok=True)
    policy = Policy(
        level=level,
        read=(program(), "/etc", f"{config}/uv", *_local_indexes(), *read),
        write=(scratch, cache_dir(), *write),
        network=True,
        memory_mb=8192,
        processes=512,
        file_mb=2048,
    )
    environment = {key: value for key, value in os.environ.items() if key.startswith(_PASSED)}
    environment |= {
        "PATH": os.pathsep.join((os.path.dirname(sys.executable), "/usr/local/bin", "/usr/bin", "/bin")),
        "HOME": scratch,
        "TMPDIR": scratch,
        "XDG_CONFIG_HOME": config,
        "UV_CACHE_DIR": cache_dir(),
        "LANG": "C.UTF-8",
    }
    try:
        return _finish(policy.command([program(), *arguments]), stdin, environment, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _local_indexes() -> list[str]:
    """Folders that the user's settings name as sources of packages."""
    found = []
    for name in ("UV_FIND_LINKS", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_FIND_LINKS"):
        for each in os.environ.get(name, "").replace(",", " ").split():
            path = each.removeprefix("file://")
            if path.startswith("/"):
                found.append(path)
    return found


def _finish(argv: list[str], stdin: str, environment: dict[str, str] | None, cwd: str | None) -> str:
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, env=environment, cwd=cwd, timeout=TIMEOUT,
            check=False, start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise EnvironmentFailed(f"uv did not finish within {TIMEOUT:g} s.", "Try again.") from None
    except OSError as error:
        raise EnvironmentFailed(f"Cannot run uv: {error.strerror or error}.", "Install it again.") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARN")]
        said = " ".join(line.strip(_FRAMES) for line in lines[-12:])
        if _OFFLINE.search(said):
            raise IndexUnreachable(
                f"The package index cannot be reached; uv says: {said[:600]}.",
                "Check the network, its proxy and its certificates.",
            )
        absent = _ABSENT.search(said)
        if absent:
            raise EnvironmentFailed(
                f"The package index has no '{absent.group(1)}'.",
                "Check how it is spelled, and which index is set.",
            )
        raise EnvironmentFailed(
            f"uv says: {said[:1200] or 'nothing'}", "Check the requirement and the index."
        )
    return done.stdout


def wheel_of(folder: Path, out: Path, level: str) -> Path:
    """Build the wheel of a project folder or a source archive into ``out``.

    :raises EnvironmentFailed: its build fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    arguments = ["build", "--wheel", "--out-dir", str(out), "--python", sys.executable, "-q", str(folder)]
    place = folder if folder.is_dir() else folder.parent
    run_building(arguments, level, write=(str(out), str(place)), read=(str(place),))
    wheels = sorted(out.glob("*.whl"))
    if not wheels:
        raise EnvironmentFailed(f"Building '{folder}' made no wheel.", "Check its pyproject.toml.")
    return wheels[0]
