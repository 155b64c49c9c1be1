"""Switching servers off, on and anew, and reading what they log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from cli_parts import PEER, WAIT, Place, end, on_terminal, read_until

TALKER = """
import sys
sys.stderr.write("I am here\\n\\x1b[31mred\\n")
sys.stderr.flush()
exec(open(sys.argv[1]).read())
"""


def states(place: Place) -> dict[str, str]:
    return {row["name"]: row["state"] for row in json.loads(place.run("status", "--json").stdout)["servers"]}


def test_a_server_is_switched_off_and_on_for_good(place: Place) -> None:
    process = place.serve()
    assert place.run("add", "peer", "--", sys.executable, PEER).returncode == 0
    done = place.run("disable", "peer")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split()[:2] == ["peer", "disabled"]
    assert place.run("call", "peer__echo", '{"text": "x"}').returncode != 0
    assert end(process) == 0

    process = place.serve()
    assert states(place)["peer"] == "disabled"
    done = place.run("enable", "peer")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split()[:2] == ["peer", "ready"]
    assert place.run("call", "peer__echo", '{"text": "x"}').stdout == "x\n"
    assert json.loads(place.run("enable", "peer", "--json").stdout)["server"]["state"] == "ready"
    assert end(process) == 0


def test_a_restart_gives_the_server_a_new_process(served: Place) -> None:
    def pid() -> int:
        return int(json.loads(served.run("inspect", "peer", "--json").stdout)["pid"])

    before = pid()
    done = served.run("restart", "peer")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:2] == ["peer", "ready"]
    assert pid() != before


def test_a_server_that_cannot_be_started_again_is_exit_code_1_and_says_why(place: Place) -> None:
    script = place.root / "peer.py"
    script.write_text(Path(PEER).read_text())
    process = place.serve()
    assert place.run("add", "peer", "--", sys.executable, str(script)).returncode == 0
    script.write_text("raise SystemExit('no more')")
    done = place.run("restart", "peer")
    assert done.returncode == 1
    assert "peer:" in done.stdout
    assert end(process) == 0


def test_a_server_of_the_servers_file_is_switched_there(place: Place) -> None:
    config = place.root / "config"
    config.mkdir(exist_ok=True)
    file = config / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"peer": {"command": sys.executable, "args": [PEER]}}}))
    process = place.serve()
    for running in (True, False):
        done = place.run("disable", "peer")
        assert done.returncode == 1
        assert str(file) in done.stderr
        assert '"disabled": true' in done.stderr
        if running:
            assert end(process) == 0


def test_without_a_gateway_the_store_is_switched_and_a_restart_has_nothing_to_end(place: Place) -> None:
    assert place.run("add", "peer", "--", sys.executable, PEER).returncode == 0
    assert place.run("disable", "peer").returncode == 0
    assert states(place) == {"peer": "disabled"}
    assert place.run("enable", "peer").returncode == 0
    assert states(place) == {"peer": "idle"}
    assert place.run("enable", "pear").returncode == 4
    assert place.run("restart", "peer").returncode == 3


def test_logs_show_what_the_server_said_with_and_without_a_gateway(place: Place) -> None:
    process = place.serve()
    assert place.run("add", "talk", "--", sys.executable, "-c", TALKER, PEER).returncode == 0
    for running in (True, False):
        done = place.run("logs", "talk")
        assert done.returncode == 0
        here, red = (line for line in done.stdout.splitlines() if line.endswith(("here", "red")))
        assert "\x1b" not in red
        assert place.run("logs", "talk", "-n", "0").stdout == ""
        assert len(place.run("logs", "talk", "-n", "1").stdout.splitlines()) == 1
        assert here.endswith("I am here")
        if running:
            assert end(process) == 0
    assert place.run("logs", "nobody").returncode == 4


def lines_until(process: subprocess.Popen[str], count: int) -> None:
    assert process.stdout
    seen = 0
    while seen < count:
        line = process.stdout.readline()
        assert line, "it ended"
        seen += line.endswith("I am here\n")


def test_following_a_log_outlives_the_gateway_and_ends_quietly(place: Place) -> None:
    process = place.serve()
    assert place.run("add", "talk", "--", sys.executable, "-c", TALKER, PEER).returncode == 0
    follower = subprocess.Popen(
        [sys.executable, "-m", "gateway", "logs", "talk", "-f"],
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines_until(follower, 1)
        assert place.run("restart", "talk").returncode == 0
        lines_until(follower, 1)
        assert end(process) == 0
        process = place.serve()
        lines_until(follower, 1)
        # The log turns over to a new file meanwhile.
        log = place.state / "logs" / "talk.log"
        os.replace(log, f"{log}.1")
        assert place.run("restart", "talk").returncode == 0
        lines_until(follower, 1)
        follower.send_signal(signal.SIGINT)
        assert follower.communicate(timeout=WAIT)[1] == ""
        assert follower.returncode == 0
    finally:
        follower.kill()
        follower.wait(WAIT)
        assert end(process) == 0


def test_the_live_status_follows_the_gateway_over_its_restart_until_q(place: Place) -> None:
    process = place.serve()
    assert place.run("add", "peer", "--", sys.executable, PEER).returncode == 0
    with on_terminal(place, "status", "--watch") as (watcher, primary):
        read_until(primary, "peer", "ready", "q ends")
        assert end(process) == 0
        read_until(primary, "No gateway is running", "idle")
        process = place.serve()
        read_until(primary, "http://127.0.0.1:", "ready")
        os.write(primary, b"q")
        assert watcher.wait(WAIT) == 0
    assert end(process) == 0


def test_the_live_status_ends_with_control_c_and_needs_a_terminal(served: Place) -> None:
    with on_terminal(served, "status", "--watch") as (watcher, primary):
        read_until(primary, "peer")
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(WAIT) == 0
    assert served.run("status", "--watch").returncode == 2
    assert served.run("status", "--watch", "--json").returncode == 2
