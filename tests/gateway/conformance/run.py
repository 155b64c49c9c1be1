"""Run the official conformance harness through a gateway, and say what it lost.

    python tests/gateway/conformance/run.py [--repeat 3] [--era handshake] [--record]

The fixture server stands behind one gateway over HTTP and behind another over stdio; both revisions of
the suite run against each. A scenario counts as passed when no check failed and no fewer were made than
``checks.json`` says; that file is what the fixture server reaches by itself, over HTTP and without a
gateway, and with the tasks that only the gateway has. ``--record`` writes it anew. With ``--era`` the
server speaks that era alone, so that every scenario of the other one is a crossing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "interop")]

import npm_packages  # noqa: E402 - found by the line above, as pytest finds it
from harness import SERVER_LEGS, Harness, Outcome  # noqa: E402
from yard import Yard, serving  # noqa: E402

FIXTURE = HERE.parent / "fixture_server"
EXPECTED = HERE / "checks.json"
SKIPPED = "tasks-status-notifications"
"""The harness has no check for it yet: it awaits a rewrite there."""


@dataclass(frozen=True)
class Leg:
    """One revision of the suite through one gateway."""

    revision: str
    transport: str
    outcomes: Mapping[str, Outcome]
    required: tuple[str, ...]

    def faults(self, expected: Mapping[str, int]) -> list[str]:
        """What is wrong, one line each."""
        lines = []
        for name, least in expected.items():
            outcome = self.outcomes.get(name, Outcome())
            lines += [f"{name}: {failure}" for failure in outcome.failures]
            if outcome.passed < least and not outcome.failures:
                lines.append(f"{name}: {outcome.passed} checks passed, {least} were expected")
        lines += [f"{name}: not expected to exist" for name in self.required if name not in expected]
        return [f"{self.revision} {self.transport} {line}" for line in lines]

    def summary(self, expected: Mapping[str, int]) -> str:
        """A line for a person."""
        good = {n for n, o in self.outcomes.items() if not o.failures and 0 < expected.get(n, 0) <= o.passed}
        required = sum(name in good for name in self.required)
        tasks = [name for name in expected if name.startswith("tasks-")]
        checks = sum(outcome.passed for outcome in self.outcomes.values())
        return (
            f"{self.revision} over {self.transport}: required {required} of {len(self.required)}"
            + (f", tasks {sum(name in good for name in tasks)} of {len(tasks)}" if tasks else "")
            + f", all {len(good)} of {len(expected)}, {checks} checks passed"
        )


@contextlib.contextmanager
def fixture(*flags: str) -> Iterator[str]:
    """The fixture server over HTTP: its URL."""
    command = [sys.executable, str(FIXTURE), "http", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextlib.contextmanager
def gateway(root: Path, entry: Mapping[str, object]) -> Iterator[Yard]:
    """A gateway without a name prefix and without a token, as the harness needs it."""
    with serving(root, {"fixture": entry}, "--names", "on-collision", "--no-auth") as yard:
        yield yard


def run(harness: Harness, folder: Path, number: int = 0, era: str = "both") -> list[Leg]:
    """Both revisions, each through both gateways; those of one gateway one after the other.

    :param era: what the server behind speaks.
    """

    def through(transport: str, entry: Mapping[str, object]) -> list[Leg]:
        with gateway(folder / f"{transport}-{number}", entry) as yard:
            return [
                Leg(
                    revision,
                    transport,
                    harness.server(yard.url, revision, folder / f"{transport}-{number}" / revision),
                    tuple(harness.required(revision)),
                )
                for revision in SERVER_LEGS
            ]

    with fixture("--era", era) as url, ThreadPoolExecutor(2) as pool:
        http = pool.submit(through, "http", {"type": "http", "url": url})
        arguments = [str(FIXTURE), "stdio", "--era", era]
        stdio = pool.submit(through, "stdio", {"command": sys.executable, "args": arguments})
        return [*http.result(), *stdio.result()]


def expected() -> dict[str, dict[str, int]]:
    """The checks each scenario must pass at least, by revision."""
    found: dict[str, dict[str, int]] = json.loads(EXPECTED.read_text())
    return found


def record(harness: Harness, folder: Path) -> None:
    """Write down what is expected: the fixture by itself, and the gateway for its tasks."""
    kept: dict[str, dict[str, int]] = {}
    with fixture() as url:
        for revision in SERVER_LEGS:
            outcomes = harness.server(url, revision, folder / f"direct-{revision}")
            kept[revision] = {name: one.passed for name, one in outcomes.items() if not one.failures}
    for leg in run(harness, folder):
        for name, outcome in leg.outcomes.items():
            if name.startswith("tasks-") and not outcome.failures:
                kept[leg.revision][name] = outcome.passed
    kept = {leg: {n: c for n, c in sorted(names.items()) if c} for leg, names in kept.items()}
    EXPECTED.write_text(json.dumps(kept, indent=1) + "\n")


def installed() -> Harness:
    """The harness. Raises npm_packages.Unavailable."""
    npm = npm_packages.installed()
    return Harness(npm.node, npm.root / "node_modules" / "@modelcontextprotocol" / "conformance")


def main() -> int:
    """Print the counts of every leg; 0 where nothing is lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--era", choices=("both", "handshake", "stateless"), default="both")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    harness = installed()
    faults = []
    with tempfile.TemporaryDirectory() as directory:
        if arguments.record:
            record(harness, Path(directory))
        wanted = expected()
        for number in range(1, arguments.repeat + 1):
            for leg in run(harness, Path(directory), number, arguments.era):
                print(leg.summary(wanted[leg.revision]), flush=True)
                faults += leg.faults(wanted[leg.revision])
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
