"""The servers file: both shapes, one bad entry alone, every fault with its place, no secret told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.servers import ServersFile, from_command, from_url, parse, read, resolve
from gateway.errors import ConfigError
from registry.model import ServerSpec, Transport

FILE = Path("/etc/servers.json")


def parsed(text: str) -> ServersFile:
    return parse(FILE, text.encode())


def one(entry: Any) -> ServerSpec:
    result = parsed(json.dumps({"mcpServers": {"s": entry}}))
    assert result.problems == ()
    (spec,) = result.specs
    return spec


def test_claude_desktops_shape_is_read_in_its_own_order() -> None:
    result = parsed(
        """{
          "mcpServers": {
            "time": {"command": "uvx", "args": ["mcp-server-time"], "env": {"TZ": "UTC"}, "cwd": "/tmp"},
            "docs": {"url": "https://docs.example/mcp", "headers": {"Authorization": "Bearer ${T}"},
                     "timeout": 5, "autoApprove": ["search"]},
            "a": {"url": "http://127.0.0.1/sse", "type": "sse", "disabled": true}
          }
        }"""
    )
    assert result == ServersFile(
        FILE,
        (
            ServerSpec(
                "time",
                Transport.STDIO,
                command="uvx",
                args=("mcp-server-time",),
                env={"TZ": "UTC"},
                cwd="/tmp",
            ),
            ServerSpec(
                "docs",
                Transport.HTTP,
                url="https://docs.example/mcp",
                headers={"Authorization": "Bearer ${T}"},
                timeout=5.0,
                extra={"autoApprove": ["search"]},
            ),
            ServerSpec("a", Transport.SSE, url="http://127.0.0.1/sse", disabled=True),
        ),
        (),
    )


def test_vs_codes_shapes_are_read_with_comments_and_trailing_commas() -> None:
    text = """// mine
    {"inputs": [], "servers": {"s": {"type": "stdio", "command": "x", "args": ["${env:HOME}",], }, }, }"""
    assert [spec.name for spec in parsed(text).specs] == ["s"]
    nested = '{"editor.fontSize": 12, "mcp": {"servers": {"s": {"type": "http", "url": "http://x"}}}}'
    assert parsed(nested).specs == (ServerSpec("s", Transport.HTTP, url="http://x"),)


@pytest.mark.parametrize(
    ("entry", "transport"),
    [
        ({"command": "x"}, Transport.STDIO),
        ({"command": "x", "type": "stdio"}, Transport.STDIO),
        ({"url": "http://x"}, Transport.HTTP),
        ({"url": "HTTPS://x", "type": "http"}, Transport.HTTP),
        ({"url": "http://x", "type": "streamable-http"}, Transport.HTTP),
        ({"url": "http://x", "transport": "streamableHttp"}, Transport.HTTP),
        ({"url": "http://x", "transport": "sse"}, Transport.SSE),
        ({"url": "${BASE}/mcp"}, Transport.HTTP),
        ({"command": "x", "url": None, "env": None, "args": None, "timeout": None}, Transport.STDIO),
    ],
)
def test_the_transport_follows_type_command_and_url(entry: Any, transport: Transport) -> None:
    assert one(entry).transport is transport


def test_a_server_is_disabled_by_either_key() -> None:
    assert one({"command": "x", "disabled": True}).disabled
    assert one({"command": "x", "enabled": False}).disabled
    assert not one({"command": "x", "enabled": True, "disabled": False}).disabled


@pytest.mark.parametrize("text", ["{}", " // none yet\n{}", '{"mcpServers": {}}', '{"servers": {},}'])
def test_a_file_may_name_no_server(text: str) -> None:
    assert parsed(text) == ServersFile(FILE, (), ())


@pytest.mark.parametrize(
    ("entry", "message", "expected"),
    [
        ('"npx x"', "the entry is a string", "an object"),
        ("{}", "neither a command nor a url", '"command" to start it'),
        ('{"command": "x", "url": "http://x"}', "both a command and a url", "one of the two"),
        ('{"command": 1}', "command is a number", "a string"),
        ('{"command": " "}', "command is empty", "some text"),
        ('{"command": "x", "args": "a b"}', "args is a string", "an array of strings"),
        ('{"command": "x", "args": ["a", 1]}', "args[1] is a number", "a string"),
        ('{"command": "x", "args": ["a\\u0000"]}', "args[0] holds a NUL", "text without"),
        ('{"command": "x", "args": ["\\ud800"]}', "half a surrogate pair", "text without"),
        ('{"command": "x", "env": ["A=1"]}', "env is an array", "an object of strings"),
        ('{"command": "x", "env": {"A": 1}}', "env.A is a number", "a string"),
        ('{"command": "x", "env": {"A=B": "1"}}', "env has the name 'A=B'", "a variable's name"),
        ('{"command": "x", "cwd": false}', "cwd is false", "a string"),
        ('{"command": "x", "timeout": 0}', "timeout cannot be used", "seconds, a number over 0"),
        ('{"command": "x", "timeout": 1e999}', "timeout cannot be used", "seconds"),
        ('{"command": "x", "timeout": true}', "timeout cannot be used", "seconds"),
        ('{"command": "x", "timeout": "5s"}', "timeout cannot be used", "seconds"),
        ('{"command": "x", "disabled": "no"}', "disabled is a string", "true or false"),
        ('{"command": "x", "enabled": null}', "enabled is null", "true or false"),
        ('{"command": "x", "type": "http"}', "the transport http needs a url", '"url"'),
        ('{"url": "http://x", "type": "stdio"}', "the transport stdio needs a command", '"command"'),
        ('{"url": "http://x", "type": "pigeon"}', "type is 'pigeon'", "one of stdio, http"),
        ('{"url": "http://x", "transport": 3}', "transport is a number", "one of stdio, http"),
        ('{"url": "ftp://x"}', "url is not an address", "http://… or https://…"),
        ('{"url": "http://x", "headers": {"A b": "c"}}', "headers has the name 'A b'", "a header's name"),
    ],
)
def test_a_bad_entry_is_a_problem_and_leaves_the_others_alone(
    entry: str, message: str, expected: str
) -> None:
    result = parsed(
        f'{{"mcpServers": {{"a": {{"command": "x"}},\n "bad": {entry},\n "z": {{"command": "x"}}}}}}'
    )
    assert [spec.name for spec in result.specs] == ["a", "z"]
    (problem,) = result.problems
    assert (problem.server, problem.line, problem.file) == ("bad", 2, FILE)
    assert message in problem.message
    assert expected in problem.expected
    assert str(problem).startswith(f"/etc/servers.json:2:{problem.column}: server 'bad': ")


def test_a_fault_of_shape_points_at_the_very_value() -> None:
    result = parsed('{"mcpServers": {"s": {\n  "command": "x",\n  "args": ["a",\n     7]}}}')
    assert [(problem.line, problem.column) for problem in result.problems] == [(4, 6)]


def test_every_fault_of_an_entry_is_reported_at_once_in_order() -> None:
    result = parsed('{"servers": {"s": {"command": "x", "env": {"A": 1},\n "cwd": 2,\n "args": 3}}}')
    assert [problem.line for problem in result.problems] == [1, 2, 3]
    assert result.specs == ()


def test_names_given_twice_and_empty_names_are_problems() -> None:
    result = parsed(
        '{"mcpServers": {"a": {"command": "1"},\n "": {"command": "x"},\n "a": {"command": "2"}},\n'
        '"servers": {"a": {"command": "3", "command": "4"}}}'
    )
    assert [spec.command for spec in result.specs] == ["4"]
    assert [(problem.line, problem.server) for problem in result.problems] == [
        (2, ""),
        (3, "a"),
        (4, "a"),
        (4, "a"),
    ]
    assert "'a' is given twice and the last stands" in result.problems[1].message


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "1:1", "found the end. Expected a JSON value"),
        ('{"mcpServers": {\n  "a": {"command": "x"}\n  "b": {}}}', "3:3", 'Expected "," or "}"'),
        ("[]", "1:1", "the file holds an array. Expected {"),
        ('{"mcpServers": []}', "1:2", "mcpServers is an array. Expected an object"),
        ('{\n"mcp": {"servers": 1}}', "2:9", "mcp.servers is a number. Expected an object"),
        ('\n{"mcpServer": {}}', "2:1", "the file has no servers. Expected {"),
        ('{"servers": {"a": {"command": "x"}},\n"servers": {}}', "2:1", "'servers' is given twice"),
    ],
)
def test_a_file_that_cannot_be_used_at_all_is_refused(text: str, place: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    shown = str(caught.value.to_error()["message"])
    assert shown.startswith(f"/etc/servers.json:{place}: ")
    assert message in shown


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no servers file at .*gone\.json"):
        read(tmp_path / "gone.json")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="2:3: not UTF-8"):
        parse(FILE, b'{\n  \xff"')


@given(
    entry=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["command", "args", "env", "cwd", "url", "headers", "type", "timeout", "x"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=10,
    ),
    name=st.text(max_size=3),
)
def test_no_entry_spoils_another(entry: Any, name: str) -> None:
    text = json.dumps({"mcpServers": {"good": {"command": "x"}, "bad" + name: entry}})
    text = text.replace("NaN", "0").replace("-Infinity", "0").replace("Infinity", "0")
    result = parsed(text)
    assert result.specs[0] == ServerSpec("good", Transport.STDIO, command="x")
    assert len(result.specs) == 2 or len(result.problems) >= 1


def test_references_are_replaced_in_every_field() -> None:
    spec = ServerSpec(
        "s",
        Transport.STDIO,
        command="${BIN}/run",
        args=(
            "--key=${KEY}",
            "${env:KEY}",
            "${GONE:-a:-b}",
            "${EMPTY:-x}",
            "${KEY:-no}",
            "$KEY",
            "${",
            "${GONE:-}",
        ),
        env={"A": "${KEY}${KEY}", "${KEY}": "kept"},
        cwd="${BIN}",
    )
    environ = {"BIN": "/bin", "KEY": "k${BIN}", "EMPTY": ""}
    resolved = resolve(spec, environ)
    assert resolved.command == "/bin/run"
    assert resolved.args == ("--key=k${BIN}", "k${BIN}", "a:-b", "x", "k${BIN}", "$KEY", "${", "")
    assert resolved.env == {"A": "k${BIN}k${BIN}", "${KEY}": "kept"}
    assert resolved.cwd == "/bin"
    remote = ServerSpec("s", Transport.HTTP, url="${BASE}/mcp", headers={"Authorization": "Bearer ${T}"})
    resolved = resolve(remote, {"BASE": "https://x", "T": "secret"})
    assert resolved.url == "https://x/mcp"
    assert resolved.headers == {"Authorization": "Bearer secret"}


def test_a_missing_variable_is_named_when_the_server_is_to_start_not_before() -> None:
    spec = one({"command": "x", "args": ["a", "${NOT_SET}"]})
    with pytest.raises(ConfigError) as caught:
        resolve(spec, {})
    assert "Server 's': args[1] needs the environment variable NOT_SET" in caught.value.message
    assert caught.value.data == {"server": "s", "variable": "NOT_SET"}


@pytest.mark.parametrize("reference", ["${input:token}", "${workspaceFolder }", "${}", "${A:+b}"])
def test_a_reference_that_is_not_known_is_refused(reference: str) -> None:
    with pytest.raises(ConfigError, match="which is not known here"):
        resolve(one({"command": "x", "args": [reference]}), {"A": "1"})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"url": "${V}"}, "url is not an http"),
        ({"url": "http://x", "headers": {"A": "${V}"}}, "headers.A holds a line break"),
        ({"url": "http://x/${V}"}, "url is not an http"),
    ],
)
def test_a_value_that_cannot_be_used_is_not_told(entry: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(one(entry), {"V": "secret\r\nvalue"})
    assert message in caught.value.message
    assert "secret" not in str(caught.value.to_error())


def test_no_problem_tells_a_secret() -> None:
    entry = {
        "command": 5,
        "env": {"KEY": ["secret-1"]},
        "headers": {"X": {"v": "secret-2"}},
        "args": "secret-3",
    }
    result = parsed(json.dumps({"servers": {"s": entry}}))
    assert len(result.problems) == 4
    assert "secret" not in "".join(map(str, result.problems))


def test_entries_made_by_hand_pass_the_same_checks() -> None:
    made = from_command("s", ["uvx", "x", "--flag"], env={"A": "1"}, cwd="/tmp", timeout=3)
    assert made == ServerSpec(
        "s", Transport.STDIO, command="uvx", args=("x", "--flag"), env={"A": "1"}, cwd="/tmp", timeout=3.0
    )
    made = from_url("s", "https://x/mcp", headers={"A": "b"}, transport="sse")
    assert made == ServerSpec("s", Transport.SSE, url="https://x/mcp", headers={"A": "b"})
    assert from_url("s", "https://x").transport is Transport.HTTP
    with pytest.raises(ConfigError, match="has no command"):
        from_command("s", [])
    with pytest.raises(ConfigError, match="the name '' is empty"):
        from_command("", ["x"])
    with pytest.raises(ConfigError, match="url is not an address"):
        from_url("s", "x.example")
    with pytest.raises(ConfigError, match="needs a command"):
        from_url("s", "http://x", transport="stdio")
