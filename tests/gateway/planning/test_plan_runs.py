"""Plans run over a real gateway and a real server, from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PEER = str(Path(__file__).with_name("ledger_peer.py"))
WAIT = 180.0


class Yard:
    """A gateway of its own, with the ledger behind it, and the command line."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root / "log"
        (root / "config").mkdir()
        entry = {
            "command": sys.executable,
            "args": [PEER, str(self.log)],
            "plan": {"readOnly": ["find", "slow"], "openWorld": False},
        }
        (root / "config" / "mcp.json").write_text(json.dumps({"mcpServers": {"ledger": entry}}))
        self.process: subprocess.Popen[str] | None = None

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "TOOLYARD_STATE_DIR": str(self.root / "state"),
            "TOOLYARD_CONFIG_DIR": str(self.root / "config"),
        }
        return {**os.environ, **own, "PYTHONIOENCODING": "utf-8"}

    def serve(self) -> None:
        command = [sys.executable, "-m", "gateway", "serve", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--config", str(self.root / "config" / "mcp.json")],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout
        assert "http://" in self.process.stdout.readline()
        deadline = time.monotonic() + WAIT
        while "ledger__keep" not in self.run("tools").stdout:
            assert time.monotonic() < deadline

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(WAIT)
            assert self.process.stdout
            self.process.stdout.close()
            self.process = None

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *arguments: str, stdin: str = "") -> Any:
        return json.loads(self.run(*arguments, "--json", stdin=stdin).stdout)

    @property
    def kept(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    yard = Yard(tmp_path_factory.mktemp("yard"))
    yard.serve()
    yield yard
    yard.end()


def step(id_: str, tool: str, arguments: dict[str, Any] | None = None, *needs: str) -> dict[str, Any]:
    return {"id": id_, "tool": f"ledger__{tool}", "arguments": arguments or {}, "depends_on": list(needs)}


FOUND = {"$ref": "1", "path": "id"}


def test_a_plan_runs_up_to_what_needs_a_word_and_on_after_it(shared: Yard, tmp_path: Path) -> None:
    before = len(shared.kept)
    plan = [step("1", "find"), step("2", "slow", {"x": FOUND}), step("3", "keep", {"id": FOUND})]
    waiting = shared.run("run", "-", "--json", stdin=json.dumps(plan))
    assert waiting.returncode == 1
    found = json.loads(waiting.stdout)
    states = {one["id"]: one["status"] for one in found["steps"]}
    assert states == {"1": "done", "2": "done", "3": "waiting_approval"}
    question = found["steps"][2]["question"]
    assert question["rules"] == ["consent", "untrusted_to_write"]
    assert question["flows"] == [
        "/id of ledger__keep is what step 1 (ledger__find) returned at id: untrusted, from ledger."
    ]
    assert len(shared.kept) == before
    shown = shared.run("runs", "show", found["id"])
    assert f"toolyard runs approve {found['id']} 3" in shown.stdout
    approved = shared.run("runs", "approve", found["id"], "3")
    assert approved.returncode == 0, approved.stdout + approved.stderr
    assert "done" in approved.stdout
    assert shared.kept[before:] == ["7"]
    listed = shared.json("runs", "list")["runs"]
    assert (listed[0]["id"], listed[0]["status"]) == (found["id"], "done")
    picture = tmp_path / "run.svg"
    history = shared.run("runs", "show", found["id"], "--svg", str(picture), "--history").stdout
    assert "step 3: decided" in history or "step 3: calling" in history
    assert len(ET.parse(picture).getroot().findall("{http://www.w3.org/2000/svg}g")) == 3


def test_a_dry_run_calls_nothing(shared: Yard) -> None:
    before = len(shared.kept)
    plan = json.dumps([step("1", "find"), step("2", "keep", {"id": FOUND})])
    found = shared.json("run", "-", "--dry-run", stdin=plan)
    assert [one["asks"] for one in found["steps"]] == [[], ["consent", "untrusted_to_write"]]
    assert not found["unasked"]
    assert "asks about" in shared.run("run", "-", "--dry-run", stdin=plan).stdout.lower()
    wrong = shared.run("run", "-", "--dry-run", stdin=json.dumps([step("1", "keep")]))
    assert wrong.returncode == 1
    assert "'id' is a required property" in wrong.stderr
    assert len(shared.kept) == before


def test_a_no_ends_the_step_and_a_cancelled_run_stays_so(shared: Yard) -> None:
    plan = json.dumps([step("1", "keep", {"id": 1}), step("2", "find", {}, "1")])
    run = shared.json("run", "-", "--no-wait", stdin=plan)["id"]
    denied = shared.json("runs", "deny", run, "1")
    assert [one["status"] for one in denied["steps"]] == ["failed", "skipped"]
    run = shared.json("run", "-", stdin=plan)["id"]
    assert shared.json("runs", "cancel", run)["status"] == "cancelled"
    again = shared.run("runs", "approve", run, "1")
    assert again.returncode == 1
    assert "nobody's word" in again.stderr


def test_what_cannot_be_run_is_refused_with_the_reason(shared: Yard) -> None:
    for text, code, words in (
        ("{", 2, "not JSON"),
        ('{"x": 1}', 1, "no plan in it"),
        (json.dumps([step("1", "nothing")]), 1, "ledger__nothing"),
        (json.dumps([step("1", "find", {"x": {"$ask": "Which?"}})]), 1, "Which?"),
    ):
        done = shared.run("run", "-", stdin=text)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert shared.run("runs", "show", "nothing").returncode == 4
    assert shared.run("run", "-", "--approve", "everything", stdin="[]").returncode == 2


def test_a_gateway_that_was_killed_takes_its_runs_up_again_and_repeats_no_write(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.serve()
    try:
        plan = [
            step("1", "slow", {"seconds": 2}),
            step("2", "keep", {"id": 1, "seconds": 600}),
            step("3", "find", {}, "1"),
        ]
        run = yard.json("run", "-", "--no-wait", "--approve", "all", stdin=json.dumps(plan))["id"]
        deadline = time.monotonic() + WAIT
        while not yard.kept:
            assert time.monotonic() < deadline
        yard.end(signal.SIGKILL)
        yard.serve()
        deadline = time.monotonic() + WAIT
        found = yard.json("runs", "show", run)
        while found["status"] == "running":
            assert time.monotonic() < deadline
            found = yard.json("runs", "show", run)
        states = {one["id"]: one["status"] for one in found["steps"]}
        assert states == {"1": "done", "2": "outcome_unknown", "3": "done"}
        done = yard.json("runs", "approve", "--happened", run, "2")
        assert done["status"] == "done"
        assert yard.kept == ["1"]
    finally:
        yard.end()
