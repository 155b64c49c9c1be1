"""The npm reference servers and the Inspector, installed once into a cache directory of the user.

Run as a program it installs them; ``installed()`` is the same for tests. Versions are pinned: a new
one is a change to this repository. The Inspector needs Node 22, which the npm package ``node``
brings along, so that any Node with npm can do the installing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock

NODE = "node@22.23.3"
PACKAGES = (
    "@modelcontextprotocol/conformance@0.2.0-alpha.12",
    "@modelcontextprotocol/inspector@2.12.0",
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
    "@modelcontextprotocol/server-memory@2026.8.31",
)
TIMEOUT = 300.0


class Unavailable(Exception):
    """The packages are not there and cannot be installed; says why."""


@dataclass(frozen=True)
class Npm:
    """An installed prefix."""

    root: Path

    @property
    def node(self) -> str:
        return str(self.root / "node_modules" / "node" / "bin" / "node")

    def server(self, name: str) -> list[str]:
        """The command of a reference server, by the last part of its package's name."""
        package = self.root / "node_modules" / "@modelcontextprotocol" / f"server-{name}"
        return [self.node, str(package / "dist" / "index.js")]

    @property
    def inspector(self) -> list[str]:
        package = self.root / "node_modules" / "@modelcontextprotocol" / "inspector"
        binary = json.loads((package / "package.json").read_text())["bin"]["mcp-inspector"]
        return [self.node, str(package / binary)]

    @property
    def environment(self) -> dict[str, str]:
        """With our Node first on the path, for programs that start one by name."""
        path = os.pathsep.join([str(Path(self.node).parent), os.environ.get("PATH", os.defpath)])
        return {**os.environ, "PATH": path}


def installed() -> Npm:
    """The prefix, installed where it is not yet. Raises Unavailable."""
    pins = hashlib.sha256(" ".join((NODE, *PACKAGES)).encode()).hexdigest()[:12]
    root = platformdirs.user_cache_path("toolyard-tests", appauthor=False) / f"npm-{pins}"
    root.mkdir(parents=True, exist_ok=True)
    npm, done = Npm(root), root / "installed"
    with FileLock(root / "lock", timeout=2 * TIMEOUT):
        if not done.exists():
            _install(npm)
            done.touch()
    return npm


def _install(npm: Npm) -> None:
    program = shutil.which("npm")
    if program is None:
        raise Unavailable("npm is not installed; install Node.js to run the tests marked `node`")
    (npm.root / "package.json").write_text('{"name": "toolyard-tests", "private": true}')
    # Node first: under an older Node npm silently picks old releases whose `engines` still match.
    _run([program, "install", "--no-audit", "--no-fund", "--loglevel=error", NODE], npm)
    if not os.access(npm.node, os.X_OK):  # npm may hold back install scripts; this one fetches the binary
        _run(["node", "node_modules/node/installArchSpecificPackage.js"], npm)
    _run([program, "install", "--no-audit", "--no-fund", "--loglevel=error", NODE, *PACKAGES], npm)
    if not os.access(npm.node, os.X_OK):
        raise Unavailable(f"npm installed no Node at {npm.node}")


def _run(command: list[str], npm: Npm) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=npm.root,
            env=npm.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{' '.join(command)}: {error}") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")


if __name__ == "__main__":
    try:
        print(f"installed in {installed().root}")
    except Unavailable as reason:
        print(f"WITHOUT npm servers, their tests will be skipped: {reason}", file=sys.stderr)
