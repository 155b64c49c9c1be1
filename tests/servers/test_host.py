"""The service on its wire: both eras, bad input, calls at once, time limits, cancelling, crashes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from trap_packages import ROOT, Client


def test_the_handshake_era_is_spoken(service: Client) -> None:
    result = service.request("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}})["result"]
    assert result["protocolVersion"] == "2025-06-18"
    assert result["serverInfo"]["name"] == "traps"
    assert "resultType" not in service.request("tools/list")["result"]


def test_the_stateless_era_is_spoken(service: Client) -> None:
    meta = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
    found = service.request("server/discover", meta)["result"]
    assert found["supportedVersions"] == ["2026-07-28"]
    listed = service.request("tools/list", meta)["result"]
    assert (listed["resultType"], listed["cacheScope"]) == ("complete", "public")
    called = service.request("tools/call", {**meta, "name": "add", "arguments": {"a": 1}})["result"]
    assert called["resultType"] == "complete"


def test_a_version_nobody_speaks_is_refused(service: Client) -> None:
    meta = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2030-01-01"}}
    assert service.request("tools/list", meta)["error"]["code"] == -32022


@pytest.mark.parametrize("line", [b"not json", b"[]", b"5", b'{"jsonrpc":"2.0"}', b"\xff\xfe", b""])
def test_garbage_does_not_stop_the_service(service: Client, line: bytes) -> None:
    service.line(line)
    assert service.request("ping")["result"] == {}


def test_unknown_methods_tools_and_cursors_are_refused(service: Client) -> None:
    assert service.request("no/such")["error"]["code"] == -32601
    assert "Unknown tool: nothing" in service.request("tools/call", {"name": "nothing"})["error"]["message"]
    assert service.request("tools/list", {"cursor": "x"})["error"]["code"] == -32602
    assert service.request("tools/call", {"name": "add", "arguments": [1]})["error"]["code"] == -32602


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "'a' is missing"),
        ({"a": "x"}, "'a': 'x' is not of type 'integer'"),
        ({"a": 1, "c": 2}, "'c' was unexpected"),
    ],
)
def test_arguments_that_do_not_fit_are_told_why(
    service: Client, arguments: dict[str, object], said: str
) -> None:
    assert said in service.problem("add", **arguments)


def test_hidden_tools_are_found_and_called_by_name(service: Client) -> None:
    found = service.value("find_tools", query="never come back")
    assert "hang" in [each["name"] for each in found]
    called = service.request(
        "tools/call", {"name": "call_tool", "arguments": {"name": "hang", "arguments": {"seconds": 0}}}
    )
    assert not called["result"]["isError"]


def test_prints_never_reach_the_protocol_and_come_back_as_log(service: Client) -> None:
    service.request("tools/call", {"name": "says", "arguments": {"text": '{"jsonrpc": "2.0"}'}})
    assert service.request("ping")["result"] == {}


def test_a_crash_takes_one_worker_and_one_call(service: Client) -> None:
    assert "SIGSEGV" in service.problem("crash", really=True)
    assert service.value("add", a=1) == 3


def test_calls_run_at_the_same_time(converted: Path) -> None:
    with Client(converted, "--workers", "3") as client:
        for _ in range(2):
            client.send("tools/call", {"name": "hang", "arguments": {"seconds": 600}})
        assert client.value("add", a=1) == 3


def test_a_cancelled_call_stops_working_and_is_not_answered(converted: Path) -> None:
    with Client(converted, "--workers", "1") as client:
        ident = client.send(
            "tools/call", {"name": "hang", "arguments": {"seconds": 600}, "_meta": {"progressToken": 7}}
        )
        second = client.send("tools/call", {"name": "add", "arguments": {"a": 1}})
        while not client.notices:
            client.request("ping")
        assert client.notices[0]["params"]["progressToken"] == 7
        client.line(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}' % ident)
        assert client.wait(second)["result"]["structuredContent"] == {"result": 3}
        assert ident not in client._answers


def test_a_call_ends_at_its_time_limit(converted: Path, tmp_path: Path) -> None:
    text = (converted / "manifest.json").read_text()
    import json

    data = json.loads(text)
    data["limits"] = {"seconds": 0.5}
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    with Client(tmp_path) as client:
        assert "did not finish within 0.5 s" in client.problem("hang", seconds=600)
        assert client.value("add", a=1) == 3


def test_a_handle_dies_with_its_worker(converted: Path) -> None:
    with Client(converted, "--workers", "1") as client:
        handle = client.call("make_box", content=1)["_meta"]["toolyard/handle"]
        client.problem("crash", really=True)
        assert "gone with the worker" in client.problem("open_box", box=handle)


def test_a_handle_is_its_callers_own(service: Client) -> None:
    mine = {"_meta": {"toolyard/caller": "a"}}
    made = service.request("tools/call", {**mine, "name": "make_box", "arguments": {"content": 1}})["result"]
    handle = made["_meta"]["toolyard/handle"]
    asked = {"name": "open_box", "arguments": {"box": handle}}
    assert service.request("tools/call", {**asked, "_meta": {"toolyard/caller": "b"}})["result"]["isError"]
    assert not service.request("tools/call", {**asked, **mine})["result"]["isError"]


def test_usage_of_each_call_is_told(service: Client) -> None:
    usage = service.call("add", a=1)["_meta"]["toolyard/usage"]
    assert set(usage) == {"wall_ms", "cpu_ms", "peak_kb"}
    assert usage["peak_kb"] > 1000


def test_a_tool_that_reaches_out_is_refused_and_the_service_goes_on(service: Client, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    text = service.problem("steal", path=str(tmp_path / "secret"))
    assert "key" not in text
    assert "PermissionError" in text or "No such file" in text
    assert "MemoryError" in service.problem("big", n=10 << 30) or "memory" in service.problem(
        "big", n=10 << 30
    )
    assert service.value("add", a=1) == 3


@pytest.mark.anyio
async def test_the_official_client_gets_on_with_it(converted: Path) -> None:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "servers", "host", str(converted)],
        cwd=str(ROOT),
        env=dict(os.environ),
    )
    async with stdio_client(server) as (source, sink), ClientSession(source, sink) as session:
        await session.initialize()
        assert "add" in [each.name for each in (await session.list_tools()).tools]
        result = await session.call_tool("add", {"a": 1})
        assert result.structured_content == {"result": 3}
