"""``registry toolset``, ``search``, ``approve-call`` and ``stdio --toolset``, as a person uses them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_parts import PEER, WAIT, Place, end

from registry.store import Store
from registry.tools import ToolRecords

META = ["call_tool", "find_tools", "plan", "run", "run_status"]
CONFIG = """
[gateway]
starters = ["time"]
[search]
model = ""
[toolsets.fixed]
include = ["*/echo"]
expose = "search"
"""


def configure(place: Place, text: str = CONFIG) -> Place:
    (place.root / "config").mkdir(exist_ok=True)
    (place.root / "config" / "config.toml").write_text(text)
    return place


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place whose gateway runs, with the echo peer, one toolset, and search by words."""
    place = configure(Place(tmp_path_factory.mktemp("yard")))
    process = place.serve()
    assert place.run("add", "peer", "--", sys.executable, PEER).returncode == 0
    assert (
        place.run("registry", "approve", "peer/mixed").returncode == 0
    )  # held back: its description is coloured
    yield place
    assert end(process) == 0


def toolset(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    return place.run("registry", "toolset", *arguments)


def as_json(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_toolset_is_made_changed_shown_and_removed(yard: Place) -> None:
    flags = ["--exclude", "steps", "--rename", "peer/echo=say", "--expose", "all", "--consent", "always"]
    made = as_json(toolset(yard, "create", "mine", "peer/*", *flags, "--json"))
    assert (made["tools"], made["mode"], made["consent"]) == (3, "all", "always")
    shown = as_json(toolset(yard, "show", "mine", "--json"))
    assert {tool["name"] for tool in shown["tool_names"]} == {"say", "peer__mixed", "peer__fails"}
    changed = toolset(yard, "edit", "mine", "--rename", "peer/echo=", "--exclude", "", "--expose", "search")
    assert "4 tools, shown as search" in changed.stdout
    after = as_json(toolset(yard, "show", "mine", "--json"))
    assert after["definition"] == {"include": ["peer/*"], "expose": "search", "consent": "always"}
    assert "/mcp/mine" in toolset(yard, "show", "mine").stdout
    assert {row["name"] for row in as_json(toolset(yard, "list", "--json"))["toolsets"]} == {"mine", "fixed"}
    assert toolset(yard, "remove", "mine").returncode == 0
    assert toolset(yard, "show", "mine").returncode == 4


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("show", "nobody"), 4, "no toolset 'nobody'"),
        (("edit", "nobody", "--expose", "all"), 4, "nobody"),
        (("remove", "nobody"), 4, "nobody"),
        (("create", "Bad Name"), 1, "no name for a toolset"),
        (("create", "x", "--expose", "some"), 1, "expose is all, search, both, auto"),
        (("create", "x", "--rename", "peer/echo"), 2, "lacks its '='"),
        (("create", "fixed"), 1, "already"),
        (("edit", "fixed", "--expose", "all"), 1, "config.toml"),
        (("remove", "fixed"), 1, "config.toml"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_exit_code(
    yard: Place, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = toolset(yard, *arguments)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_search_finds_tools_and_stays_within_a_toolset(yard: Place) -> None:
    found = as_json(yard.run("search", "say it back", "--json", "-k", "2"))
    assert found["tools"][0]["name"] == "peer__echo"
    assert found["mode"] == "lexical"
    assert "peer__echo" in yard.run("search", "say it back").stdout
    assert as_json(yard.run("search", "red", "--toolset", "fixed", "--json"))["tools"] == []
    assert yard.run("search", "x", "--toolset", "nobody").returncode == 4
    assert yard.run("search").returncode == 2


def test_a_call_that_waits_is_listed_in_status_and_allowed_by_its_number(yard: Place) -> None:
    with face(yard, "fixed") as client:
        listed = client.ask("tools/list")["result"]["tools"]
        assert [tool["name"] for tool in listed] == META
        call = {"name": "call_tool", "arguments": {"name": "peer__echo", "arguments": {"text": "hi"}}}
        refused = client.ask("tools/call", call)["error"]
        ident = refused["data"]["approval"]
        assert f"toolyard approve-call {ident}" in refused["message"]
        assert "approve-call" in yard.run("status").stdout
        [row] = as_json(yard.run("approve-call", "--json"))["approvals"]
        assert (row["id"], row["tool"], row["toolset"]) == (ident, "peer__echo", "fixed")
        assert yard.run("approve-call", ident).returncode == 0
        assert client.ask("tools/call", call)["result"]["content"][0]["text"] == "hi"
    assert "No call waits" in yard.run("approve-call").stdout
    assert yard.run("approve-call", ident).returncode == 4


def test_a_face_of_an_unknown_toolset_is_told_so_and_ends_with_its_client(yard: Place) -> None:
    with face(yard, "nobody", shake=False) as client:
        error = client.ask("initialize", INITIALIZE)["error"]
        assert "There is no toolset named 'nobody'" in error["message"]
    assert yard.run("stdio", "--toolset", "Not/A/Name").returncode == 2


def test_a_face_whose_toolset_is_removed_is_told_so_and_finds_it_when_it_is_back(yard: Place) -> None:
    assert toolset(yard, "create", "brief", "*/echo", "--expose", "all").returncode == 0
    with face(yard, "brief") as client:
        assert [t["name"] for t in client.ask("tools/list")["result"]["tools"]] == ["peer__echo"]
        call = {"name": "peer__echo", "arguments": {"text": "hi"}}
        assert "result" in client.ask("tools/call", call)
        assert toolset(yard, "remove", "brief").returncode == 0
        error = client.ask("tools/call", call)["error"]
        while error["data"]["type"] == "gateway_lost":  # it was on its way when the line was cut
            error = client.ask("tools/call", call)["error"]
        assert "There is no toolset named 'brief'" in error["message"]
        assert toolset(yard, "create", "brief", "*/echo", "--expose", "all").returncode == 0
        while "error" in (answer := client.ask("tools/call", call)):
            assert answer["error"]["data"]["type"] in ("gateway_unreachable", "gateway_lost")
        assert toolset(yard, "remove", "brief").returncode == 0


def test_a_face_answers_from_the_cache_of_its_toolset(yard: Place) -> None:
    with face(yard, "fixed") as client:
        client.ask("tools/list")
    cached = json.loads((yard.state / "cache" / "toolset-fixed.json").read_text())
    assert [t["name"] for t in cached["results"]["tools/list"]["tools"]] == META


def test_without_a_gateway_toolsets_are_kept_in_the_store_and_search_reads_it(tmp_path: Path) -> None:
    place = configure(Place(tmp_path))
    process = place.serve()
    assert place.run("add", "peer", "--", sys.executable, PEER).returncode == 0
    assert as_json(place.run("search", "echo", "--json"))["tools"]
    assert end(process) == 0
    assert as_json(toolset(place, "create", "mine", "*/steps", "--json"))["tools"] == 1
    assert toolset(place, "create", "mine").returncode == 1
    assert toolset(place, "edit", "mine", "--expose", "search").returncode == 0
    assert [row["mode"] for row in as_json(toolset(place, "list", "--json"))["toolsets"]] == ["search"] * 2
    found = as_json(place.run("search", "say it back", "--json"))
    assert found["tools"][0]["name"] == "peer__echo"
    assert as_json(place.run("search", "say it back", "--toolset", "mine", "--json"))["tools"] == []
    assert toolset(place, "remove", "mine").returncode == 0
    assert toolset(place, "remove", "mine").returncode == 4
    assert place.run("approve-call").returncode == 3


def test_a_batch_of_requests_is_answered_from_the_store(tmp_path: Path) -> None:
    place = configure(Place(tmp_path))
    place.state.mkdir(parents=True)
    tools, queries, run = tmp_path / "tools.jsonl", tmp_path / "queries.jsonl", tmp_path / "run.jsonl"
    lines = [{"id": "a", "server": "s", "name": "book_flight"}, {"id": "b", "server": "s", "name": "weather"}]
    tools.write_text("\n".join(map(json.dumps, lines)))
    with Store.open(place.state / "toolyard.db") as store:
        from registry.exchange import import_tools

        import_tools(ToolRecords(store), tools)
    queries.write_text(json.dumps({"id": 1, "query": "a flight"}) + "\n")
    done = place.run("search", "--batch", str(queries), "--out", str(run), "-k", "1")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in run.read_text().splitlines()] == [{"query_id": 1, "ranked": ["a"]}]
    missing = place.run("search", "--batch", str(tmp_path / "nothing"))
    assert (missing.returncode, "nothing" in missing.stderr) == (1, True)


INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "desk", "version": "1"},
}


class Face:
    """A client that launched ``toolyard stdio --toolset NAME``."""

    def __init__(self, place: Place, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "stdio", "--toolset", name],
            env=place.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._ids = iter(range(1, 1000))

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def ask(self, method: str, params: Any = None) -> Any:
        ident = next(self._ids)
        self.send({"id": ident, "method": method, "params": params or {}})
        assert self.process.stdout
        for line in self.process.stdout:
            message = json.loads(line)
            if message.get("id") == ident:
                return message
        raise EOFError(self.process.stderr)

    def __enter__(self) -> Face:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(WAIT) == 0
        for stream in (self.process.stdout, self.process.stderr):
            assert stream
            stream.close()


def face(place: Place, name: str, *, shake: bool = True) -> Face:
    client = Face(place, name)
    if shake:
        assert "result" in client.ask("initialize", INITIALIZE)
        client.send({"method": "notifications/initialized"})
    return client
