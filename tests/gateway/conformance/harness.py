"""The official conformance harness (npm, pinned), as a program that is run and read."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERVER_LEGS = ("2025-11-25", "2026-07-28")
SCENARIO_TIMEOUT_MS = 60_000
LEG_TIMEOUT = 300.0
_RESULT = re.compile(r"(?:server-)?(.+)-\d{4}-\d\d-\d\dT[\d-]+Z")


@dataclass(frozen=True)
class Outcome:
    """What one scenario came to."""

    statuses: Counter[str] = field(default_factory=Counter)
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> int:
        return self.statuses["SUCCESS"]


@dataclass(frozen=True)
class Harness:
    """An installed harness.

    :param node: Node 22 or later.
    :param package: the folder of ``@modelcontextprotocol/conformance``.
    """

    node: str
    package: Path

    def required(self, leg: str) -> list[str]:
        """The server scenarios that a revision requires, frozen at its release."""
        names: list[str] = []
        section = ""
        for line in (self.package / "requirements" / f"{leg}.yaml").read_text().splitlines():
            if line and not line.startswith((" ", "#")):
                section = line.partition(":")[0]
            elif section == "server" and line.strip().startswith("- "):
                names.append(line.strip()[2:].split()[0])
        return names

    def server(self, url: str, leg: str, folder: Path) -> dict[str, Outcome]:
        """Run the server scenarios of a revision; the results go to the folder. By scenario."""
        self._run(["server", "--url", url, "--requirements", leg], folder, LEG_TIMEOUT)
        return outcomes(folder)

    def client(self, command: str, scenario: str, leg: str, folder: Path) -> Outcome:
        """Run one client scenario: the command gets the URL of a server as its last argument."""
        arguments = ["client", "--command", command, "--scenario", scenario, "--spec-version", leg]
        said = self._run(arguments, folder, 2 * SCENARIO_TIMEOUT_MS / 1000)
        found = list(outcomes(folder).values())
        return found[0] if found else Outcome(failures=(said[-800:],))

    def _run(self, arguments: list[str], folder: Path, timeout: float) -> str:
        command = [self.node, str(self.package / "dist" / "index.js"), *arguments]
        command += ["--timeout", str(SCENARIO_TIMEOUT_MS), "-o", str(folder)]
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False
        )
        return done.stdout + done.stderr


def outcomes(folder: Path) -> dict[str, Outcome]:
    """The results in a folder, by scenario."""
    found = {}
    for path in sorted(folder.glob("**/checks.json")):
        name = _RESULT.fullmatch(str(path.parent.relative_to(folder)))
        checks: list[dict[str, Any]] = json.loads(path.read_text())
        failures = tuple(
            f"{check['id']}: {check.get('errorMessage') or check.get('description')}"
            for check in checks
            if check["status"] == "FAILURE"
        )
        statuses = Counter(check["status"] for check in checks)
        found[name[1] if name else path.parent.name] = Outcome(statuses, failures)
    return found
