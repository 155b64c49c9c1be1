"""Kill a gateway at random moments of syncs and approvals, and see what it lost.

    python tests/benchmarks/registry/kills.py [--kills N] [--seed S]

Prints a line for every tenth kill and a sum; exit code 1 as soon as anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.admin.client import ControlClient, ControlError, NotRunning
from gateway.errors import GatewayError
from gateway.paths import StateDir
from registry.approvals import ApprovalRecords
from registry.definition import definition_hash
from registry.search.service import SearchService
from registry.store import Store
from registry.tools import ToolRecords

TOOLS = 40
WAIT = 60.0
PEER = """
import itertools, json, pathlib, sys
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    if message["method"] == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                  "serverInfo": {"name": "changing", "version": "1"}}
    elif message["method"] == "tools/list":
        turn = int(pathlib.Path(sys.argv[1]).read_text() or 0)
        result = {"tools": [{"name": "t%d" % i, "description": "turn %d" % turn} for i in range(int(sys.argv[2]))]}
    else:
        result = {}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


class Lost(Exception):
    """Something is not as it was said to be."""


def version(turn: int) -> dict[str, str]:
    """The definition hashes of one turn, by name."""
    return {
        f"t{i}": definition_hash(json.dumps({"name": f"t{i}", "description": f"turn {turn}"}).encode())
        for i in range(TOOLS)
    }


@contextlib.contextmanager
def gateway(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway of its own process group, up and answering; killed at the end, whatever happened."""
    environ = {**os.environ, "TOOLYARD_CONFIG_DIR": str(root / "config")}
    flags = ["--state-dir", str(root / "state"), "--port", "0", "--config", str(root / "servers.json")]
    with open(root / "log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", *flags], env=environ, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(WAIT)


def ready(client: ControlClient, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server was listed."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        with contextlib.suppress(NotRunning, ControlError):
            (row,) = client.status()["servers"]
            if row["tools"] == TOOLS and row["state"] == "ready":
                return
        if process.poll() is not None:
            raise Lost("the gateway did not start")
        time.sleep(0.02)
    raise Lost("the gateway did not list its server")


def one(root: Path, chance: random.Random, turn: int, approved: int) -> tuple[int, int]:
    """Run one gateway until it is killed. Returns the turn it was in and the last approval it answered."""
    client = ControlClient(StateDir.at(root / "state"))
    with gateway(root) as process:
        ready(client, process)
        kill_at = time.monotonic() + chance.uniform(0.0, 0.4)
        killer = subprocess.Popen(
            [
                sys.executable,
                "-S",
                "-c",
                f"import os,time; time.sleep({kill_at - time.monotonic()}); os.kill({process.pid}, 9)",
            ]
        )
        try:
            while True:
                turn += 1
                (root / "turn").write_text(str(turn))
                for _ in client.sync("s"):
                    pass
                client.registry("approve", {"server": "s", "tools": version(turn), "by": "me"})
                approved = turn
        except GatewayError:
            pass  # it was killed
        finally:
            killer.wait(WAIT)
    return turn, approved


def look(root: Path, turn: int, approved: int, turns: dict[str, int]) -> int:
    """Compare the store with what was said to be done. Returns what is approved now. Raises Lost."""
    with Store.open(root / "state" / "toolyard.db") as store:
        pins = {pin.ref.name: pin.ref.hash for pin in ApprovalRecords(store).pins()}
        offered = {ref.name: ref.hash for ref in ToolRecords(store).current("s")}
        if approved >= 0 and pins not in (version(approved), version(turn)):
            raise Lost(f"the approval of turn {approved} is not in the store")
        if {turns.get(digest) for digest in offered.values()} - set(range(turn + 1)) or len(
            {turns[digest] for digest in offered.values()}
        ) != 1:
            raise Lost("what is offered is no whole version")
        search = SearchService(store, root / "search", model=None)
        search.open()
        if problems := search.check().problems:
            raise Lost("; ".join(problems))
    # The last approval may have been kept without the answer that said so.
    return turn if pins == version(turn) else approved


def main() -> int:
    """Kill so many gateways."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    began, turn, approved, busy = time.monotonic(), 0, -1, 0
    turns: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "peer.py").write_text(PEER)
        (root / "turn").write_text("0")
        entry = {"command": sys.executable, "args": [str(root / "peer.py"), str(root / "turn"), str(TOOLS)]}
        (root / "servers.json").write_text(json.dumps({"mcpServers": {"s": entry}}))
        for number in range(1, given.kills + 1):
            before = approved
            last, approved = one(root, chance, turn, approved)
            for known in range(turn, last + 1):
                turns |= dict.fromkeys(version(known).values(), known)
            turn, busy = last, busy + (approved > before)
            try:
                approved = look(root, turn, approved, turns)
            except Lost as error:
                print(f"kill {number}: {error}", file=sys.stderr)
                return 1
            if number % 10 == 0:
                print(
                    f"{number} kills, {turn} turns, {time.monotonic() - began:.0f} s: nothing lost",
                    flush=True,
                )
    print(f"{given.kills} kills, {busy} of them after approvals in the same run: nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
