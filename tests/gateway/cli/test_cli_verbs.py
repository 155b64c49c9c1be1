"""The verbs of the command line against a running gateway, and without one."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
from cli_parts import PEER, WAIT, Place, end


def test_help_alone_names_every_verb_every_exit_code_and_every_place(place: Place) -> None:
    done = place.run("--help")
    assert done.returncode == 0
    for verb in (
        "serve",
        "stdio",
        "add",
        "remove",
        "approve",
        "enable",
        "disable",
        "restart",
        "status",
        "inspect",
        "logs",
        "import",
        "connect",
        "tools",
        "call",
        "search",
        "registry",
        "doctor",
        "version",
    ):
        assert f"\n  {verb} " in done.stdout
        assert place.run(verb, "--help").returncode == 0
    assert all(f"  {code}  " in done.stdout for code in range(8))
    assert str(place.state) in done.stdout
    assert max(map(len, done.stdout.replace(str(place.root), "").splitlines())) <= 80


def test_no_verb_at_all_is_a_usage_error_and_an_unknown_one_too(place: Place) -> None:
    assert place.run().returncode == 2
    assert place.run("fly").returncode == 2
    assert place.run("call").returncode == 2


def test_version_is_said_both_ways(place: Place) -> None:
    assert place.run("--version").stdout == place.run("version").stdout
    assert place.run("version").stdout.startswith("toolyard ")


def test_status_lists_the_servers_of_the_gateway(served: Place) -> None:
    done = served.run("status")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "http://127.0.0.1:" in done.stdout
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("peer "))
    assert row.split()[:4] == ["peer", "ready", "stdio", "4"]
    seen = json.loads(served.run("status", "--json").stdout)
    assert {"gateway", "servers", "conflicts"} <= seen.keys()


def test_tools_show_one_line_each_and_cannot_steer_a_terminal(served: Place) -> None:
    done = served.run("tools", "peer")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "TOOL",
        "peer__echo",
        "peer__fails",
        "peer__mixed",
        "peer__steps",
    ]
    assert "Say it back." in done.stdout
    assert "no more" not in done.stdout
    assert "\x1b" not in done.stdout
    tools = json.loads(served.run("tools", "--json").stdout)["tools"]
    assert {"name", "server", "original", "definition"} <= tools[0].keys()


def test_inspect_shows_a_server_or_a_tool(served: Place) -> None:
    server = served.run("inspect", "peer").stdout
    assert "echo-peer 1.2" in server
    assert "Echo kindly." in server
    tool = served.run("inspect", "peer__echo").stdout
    assert "text  (string, required)" in tool
    assert json.loads(served.run("inspect", "peer", "--json").stdout)["spec"]["args"] == [PEER]


def test_call_prints_the_text_and_sums_up_the_rest(served: Place) -> None:
    done = served.run("call", "peer__echo", '{"text": "zwölf\\n\\u001b[0m"}')
    assert (done.returncode, done.stdout) == (0, "zwölf\n\x1b[0m\n")
    done = served.run("call", "peer__mixed")
    assert done.stdout == "plain\n"
    assert done.stderr == "[image image/png 3 bytes]\n[resource_link x file:///x]\n"
    assert json.loads(served.run("call", "peer__steps").stdout) == {"done": True}


def test_call_reads_its_arguments_from_stdin_and_gives_the_result_as_it_came(served: Place) -> None:
    done = served.run("call", "peer__echo", "-", "--json", stdin='{"text": "x"}')
    assert done.stdout == '{"content":[{"type":"text","text":"x"}],"n":1.50}\n'


def test_a_tool_that_answers_with_an_error_is_exit_code_5(served: Place) -> None:
    done = served.run("call", "peer__fails")
    assert (done.returncode, done.stdout) == (5, "no luck\n")


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (("call", "peer__ecko"), "peer__echo"),
        (("tools", "pear"), "peer"),
        (("inspect", "peer__fail"), "peer__fails"),
        (("remove", "pear"), "pear"),
        (("approve", "pear"), "pear"),
        (("enable", "pear"), "pear"),
        (("disable", "pear"), "pear"),
        (("restart", "pear"), "pear"),
        (("logs", "pear"), "pear"),
    ],
)
def test_a_name_that_does_not_exist_is_exit_code_4(
    served: Place, arguments: tuple[str, ...], near: str
) -> None:
    done = served.run(*arguments)
    assert done.returncode == 4
    assert near in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("text", "word"),
    [('{"a": 1 "b": 2}', "column 9"), ("[1]", "object"), ("NaN", "not JSON"), ("", "column 1")],
)
def test_arguments_that_are_no_json_object_are_shown_where_they_fail(
    place: Place, text: str, word: str
) -> None:
    done = place.run("call", "x", text)
    assert done.returncode == 2
    assert word in done.stderr


def test_arguments_that_do_not_fit_the_schema_say_which(served: Place) -> None:
    done = served.run("call", "peer__echo", "{}")
    assert done.returncode == 1
    assert "text" in done.stderr


def test_a_server_is_added_once_and_removed_once(served: Place) -> None:
    assert served.run("add", "again", "--", sys.executable, PEER).returncode == 0
    twice = served.run("add", "again", "--", sys.executable, PEER)
    assert twice.returncode == 1
    assert "already" in twice.stderr
    assert served.run("remove", "again").returncode == 0
    assert served.run("remove", "again").returncode == 4


def test_a_server_that_cannot_be_connected_is_kept_and_said(served: Place) -> None:
    done = served.run("add", "broken", "--", sys.executable, "-c", "raise SystemExit(3)")
    assert done.returncode == 1
    assert "kept" in done.stdout
    assert "broken" in done.stderr
    assert served.run("remove", "broken").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("x",),
        ("x", "http://h/mcp", "--env", "A=1"),
        ("x", "--header", "A=1", "--", "cmd"),
        ("x", "http://h/mcp", "--header", "secret"),
        ("x", "http://h/mcp", "--transport", "pigeon"),
        ("x", "--env", "=1", "--", "cmd"),
        ("x\n", "--", "cmd"),
        ("x", "--env-from", "A=1", "--", "cmd"),
    ],
)
def test_what_cannot_be_added_is_a_usage_error_and_repeats_no_secret(
    place: Place, arguments: tuple[str, ...]
) -> None:
    done = place.run("add", *arguments)
    assert done.returncode == 2
    assert "secret" not in done.stderr
    assert not place.state.exists()


def test_a_flag_of_the_command_without_two_dashes_before_it_says_where_they_go(place: Place) -> None:
    done = place.run("add", "files", "npx", "-y", "server")
    assert done.returncode == 2
    assert "`--`" in done.stderr
    assert "toolyard add NAME -- CMD -y" in done.stderr
    behind = place.run("status", "-y")
    assert behind.returncode == 2
    assert "`--`" not in behind.stderr


def test_without_a_gateway_the_listings_show_the_last_known_state(place: Place) -> None:
    assert place.run("status").stdout.startswith("No servers yet")
    assert not place.state.exists()
    process = place.serve()
    assert place.run("add", "peer", "--", sys.executable, PEER).returncode == 0
    assert end(process) == 0

    for arguments in (("status",), ("tools",), ("inspect", "peer"), ("inspect", "peer__echo")):
        done = place.run(*arguments)
        assert done.returncode == 0
        assert "last known state" in done.stderr
    seen = json.loads(place.run("status", "--json").stdout)
    assert seen["gateway"] is None
    assert [
        (row["name"], row["state"], row["tools"]) for row in seen["servers"] if row["name"] == "peer"
    ] == [("peer", "idle", 4)]
    done = place.run("call", "peer__echo", "{}")
    assert done.returncode == 3
    assert "toolyard serve" in done.stderr


def test_the_shapes_are_the_same_with_and_without_a_gateway(place: Place) -> None:
    process = place.serve()
    assert place.run("add", "peer", "--", sys.executable, PEER).returncode == 0
    verbs = (("status",), ("tools",), ("inspect", "peer"), ("inspect", "peer__echo"))
    running = [json.loads(place.run(*verb, "--json").stdout) for verb in verbs]
    assert end(process) == 0
    stored = [json.loads(place.run(*verb, "--json").stdout) for verb in verbs]
    for before, after in zip(running, stored, strict=True):
        assert before.keys() == after.keys()
    assert running[0]["servers"][0].keys() == stored[0]["servers"][0].keys()
    assert running[2]["spec"] == stored[2]["spec"]
    assert running[2]["approval"] == stored[2]["approval"]
    assert running[3] == stored[3]


def test_without_a_gateway_servers_are_added_approved_and_removed_in_the_store(place: Place) -> None:
    assert place.run("add", "peer", "--", sys.executable, PEER).returncode == 0
    added = place.run("add", "web", "https://example.com/mcp", "--header-env", "Authorization=SECRET")
    assert added.returncode == 0
    assert place.run("add", "web", "https://example.com/mcp").returncode == 1
    assert place.run("add", "none", "--", "no-such-command-anywhere").returncode == 1
    assert place.run("approve", "peer").returncode == 0
    assert place.run("approve", "pear").returncode == 4
    rows = json.loads(place.run("status", "--json").stdout)["servers"]
    assert [(row["name"], row["state"]) for row in rows] == [("peer", "idle"), ("web", "idle")]
    assert place.run("remove", "web").returncode == 0
    process = place.serve()
    done = place.run("call", "peer__echo", '{"text": "approved"}')
    assert done.stdout == "approved\n"
    assert end(process) == 0


def test_a_second_gateway_on_the_same_state_is_exit_code_7(served: Place) -> None:
    assert served.run("serve", "--port", "0").returncode == 7


def test_a_configuration_that_is_not_valid_is_exit_code_6(place: Place) -> None:
    broken = place.root / "mcp.json"
    broken.write_text('{"mcpServers": {')
    done = place.run("serve", "--port", "0", "--config", str(broken))
    assert done.returncode == 6
    assert "mcp.json:1:" in done.stderr


def test_doctor_finds_nothing_wrong_with_a_running_gateway(served: Place) -> None:
    done = served.run("doctor", "--json")
    assert done.returncode == 0, done.stdout
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {checks[name]["level"] for name in ("gateway", "endpoint", "token", "store")} == {"ok"}


def test_doctor_fails_on_what_must_be_mended_and_says_how(place: Place) -> None:
    place.state.mkdir(mode=0o700)
    place.state.chmod(0o755)
    (place.state / "token").write_text("x")
    (place.state / "token").chmod(0o644)
    config = place.root / "config"
    (config / "config.toml").write_text("[gateway]\nport = 'x'\n")
    (config / "mcp.json").write_text('{"mcpServers": {"a": {"command": "no-such-command"}, "b": {}}}')
    done = place.run("doctor", "--json")
    assert done.returncode == 1
    failed = {check["name"] for check in json.loads(done.stdout)["checks"] if check["level"] == "fail"}
    assert failed == {"state directory", "token", "settings", "servers file", "commands"}
    shown = place.run("doctor").stdout
    assert "chmod 700" in shown
    assert "config.toml:2" in shown


def test_a_broken_store_is_a_sentence_and_not_a_trace(place: Place) -> None:
    place.state.mkdir(mode=0o700)
    (place.state / "toolyard.db").write_bytes(b"not a database" * 1000)
    for verb in (("status",), ("tools",), ("add", "x", "https://h/mcp")):
        done = place.run(*verb)
        assert done.returncode == 1
        assert "toolyard.db" in done.stderr


@pytest.mark.parametrize("buffering", ["", "1"])
def test_a_reader_that_leaves_early_ends_it_quietly(served: Place, buffering: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "tools", "--json"],
        env={**served.environment, "PYTHONUNBUFFERED": buffering},
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=WAIT,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_on_a_terminal_no_line_is_wider_than_it(served: Place) -> None:
    for verb in ("status", "tools", "doctor"):
        primary, secondary = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "gateway", verb],
            env={**served.environment, "COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"},
            stdin=secondary,
            stdout=secondary,
            stderr=secondary,
        ) as process:
            os.close(secondary)
            text = b""
            try:
                while chunk := os.read(primary, 65536):
                    text += chunk
            except OSError:  # Linux says so when the last writer is gone
                pass
            assert process.wait(WAIT) == 0
        os.close(primary)
        plain = text.decode().replace("\x1b[2m", "").replace("\x1b[0m", "")
        assert "\x1b[31m" not in plain
        assert [line for line in plain.splitlines() if len(line) > 80] == [], verb
