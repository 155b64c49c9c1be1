"""Converted services behind a gateway: listed before they are built, built unasked, started by a call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import Running, running_gateway, until

from gateway.hosted.entry import from_manifest
from gateway.upstream.state import State
from registry.model import ItemKind, Origin
from servers.manifest import files, shipped
from servers.manifest.records import Limits

pytestmark = pytest.mark.anyio


def hosted(folder: Path, **more: Any) -> Any:
    return from_manifest("counting", str(folder), **more)


def value(answer: Any) -> Any:
    result = answer.json["result"]
    assert not result.get("isError"), result["content"]
    return result["structuredContent"]["result"]


async def call(run: Running, client: Any, tool: str, arguments: Any, **params: Any) -> Any:
    return await client.request("tools/call", {"name": f"counting__{tool}", "arguments": arguments, **params})


async def test_tools_are_listed_from_the_manifest_before_the_environment_exists(
    service: Path, fresh: Path
) -> None:
    async with running_gateway([hosted(service)]) as run:
        client = await run.session()
        assert "counting__add" in await client.names()
        assert run.upstream("counting").pid is None
        assert not fresh.exists() or not list(fresh.glob("*/toolyard-complete"))


async def test_the_environment_is_built_unasked_and_the_first_call_starts_the_service(
    service: Path, fresh: Path
) -> None:
    async with running_gateway([hosted(service)]) as run:
        upstream = run.upstream("counting")
        await until(lambda: upstream.state is State.BUILDING)
        await until(lambda: upstream.state is State.IDLE)
        assert list(fresh.glob("*/toolyard-complete"))
        assert upstream.pid is None
        assert value(await call(run, await run.session(), "add", {"a": 1})) == 3
        assert upstream.state is State.READY


async def test_a_call_waits_for_the_build_and_is_told_so(service: Path, fresh: Path) -> None:
    async with running_gateway([hosted(service)]) as run:
        client = await run.session()
        assert run.upstream("counting").state is not State.READY
        answer = await call(run, client, "add", {"a": 2}, _meta={"progressToken": "p"})
        assert answer.json["result"]["structuredContent"] == {"result": 4}


async def test_the_host_lists_what_the_manifest_promised(service: Path, fresh: Path) -> None:
    async with running_gateway([hosted(service)]) as run:
        promised = run.gateway.known("counting")
        assert value(await call(run, await run.session(), "add", {"a": 1})) == 3
        found = run.gateway.known("counting")
        assert promised is not None
        assert found is not None
        assert found.tools == promised.tools
        assert found.instructions == promised.instructions
        assert (found.server_info, found.capabilities) == (promised.server_info, promised.capabilities)


async def test_without_a_network_the_service_is_shown_failed_and_says_what_to_do(
    tmp_path: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    async with running_gateway([from_manifest("counting", "humanize")]) as run:
        client = await run.session()
        assert "counting__naturalsize" in await client.names()
        upstream = run.upstream("counting")
        await until(lambda: upstream.state is State.FAILED)
        answer = await call(run, client, "naturalsize", {"value": 1})
        text = answer.json["error"]["message"]
        assert "cannot be reached" in text
        assert "toolyard restart counting" in text
        assert "counting__naturalsize" in await client.names()


async def test_an_unknown_manifest_is_a_failed_server_and_the_others_go_on(
    service: Path, fresh: Path
) -> None:
    async with running_gateway([from_manifest("gone", "no-such-service"), hosted(service)]) as run:
        assert not run.awaited
        await until(lambda: run.upstream("gone").state is State.FAILED)
        assert "no-such-service" in str(run.upstream("gone").error)
        assert value(await call(run, await run.session(), "add", {"a": 1})) == 3


async def test_a_service_nobody_approved_is_neither_listed_nor_built(service: Path, fresh: Path) -> None:
    async with running_gateway([hosted(service)], trust=False) as run:
        await until(lambda: run.upstream("counting").state is State.PENDING)
        client = await run.session()
        assert not run.awaited
        assert await client.names() == []
        assert not fresh.exists()
        detail = await run.gateway.roster.approve("counting")
        assert "lock" in detail
        assert "network: no" in detail
        assert "counting__add" in await client.names()
        assert value(await call(run, client, "add", {"a": 1})) == 3


async def test_a_manifest_that_changes_what_may_run_is_asked_about_again(
    service: Path, fresh: Path, tmp_path: Path
) -> None:
    import msgspec

    manifest = files.read(service)
    files.write(manifest, tmp_path / "own")
    async with running_gateway([hosted(tmp_path / "own")]) as run:
        upstream = run.upstream("counting")
        await until(lambda: upstream.state is State.IDLE)
        rights = msgspec.structs.replace(manifest.permissions, network=True)
        files.write(msgspec.structs.replace(manifest, permissions=rights), tmp_path / "own")
        answer = await call(run, await run.session(), "add", {"a": 1})
        assert "not been approved" in answer.json["error"]["message"]
        assert upstream.state is State.PENDING


async def test_a_handle_belongs_to_the_session_that_made_it(service: Path, fresh: Path) -> None:
    async with running_gateway([hosted(service)]) as run:
        mine, other = await run.session(), await run.session()
        made = (await call(run, mine, "counter", {"start": 5})).json["result"]
        handle = made["_meta"]["toolyard/handle"]
        assert value(await call(run, mine, "counter_up", {"init": handle})) == 6
        forged = {"toolyard/caller": "whoever"}
        for meta in ({}, forged):
            answer = await call(run, other, "counter_up", {"init": handle}, _meta=meta)
            assert answer.json["result"]["isError"]
            assert "no handle of yours" in answer.json["result"]["content"][0]["text"]


async def test_what_calls_took_is_counted_for_each_tool(service: Path, fresh: Path) -> None:
    async with running_gateway([hosted(service)]) as run:
        client = await run.session()
        for _ in range(2):
            assert value(await call(run, client, "slow", {"seconds": 0.05})) == 0.05
        await call(run, client, "add", {"a": "no number"})
        usage = run.gateway.usage.of("counting")
        assert set(usage) == {"slow"}, "what was refused took nothing"
        assert usage["slow"].calls == 2
        assert usage["slow"].wall_ms >= 100
        assert usage["slow"].cpu_ms < usage["slow"].wall_ms
        assert 1000 < usage["slow"].peak_kb < 200_000


async def test_an_idle_service_is_ended_and_the_next_call_starts_it(service: Path, fresh: Path) -> None:
    spec = hosted(service, extra={"idleTimeout": 1})
    async with running_gateway([spec]) as run:
        client = await run.session()
        assert value(await call(run, client, "add", {"a": 1})) == 3
        upstream = run.upstream("counting")
        await until(lambda: upstream.pid is None)
        assert upstream.state is State.IDLE
        assert value(await call(run, client, "add", {"a": 2})) == 4


async def test_starters_are_served_only_where_nothing_else_is(service: Path, fresh: Path) -> None:
    async with running_gateway() as run:
        await run.gateway.start([], [hosted(service)])
        assert {s.origin for s in run.gateway.servers.values()} == {Origin.STARTER}
        assert "counting__add" in run.gateway.catalog.entries[ItemKind.TOOL]
        await run.gateway.roster.configure([from_manifest("other", str(service))])
        assert set(run.gateway.servers) == {"other"}


def test_every_starter_is_shipped_and_its_environment_is_wheels_alone() -> None:
    for name in shipped.STARTERS:
        manifest = files.read(shipped.locate(name))
        assert manifest.limits == Limits()
        assert not manifest.permissions.network
        assert json.loads(files.encode(manifest))["name"] == name
