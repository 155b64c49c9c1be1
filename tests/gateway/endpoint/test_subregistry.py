"""The gateway's catalog as a registry of MCP servers, over its HTTP port and under its rules."""

from __future__ import annotations

import jsonschema
import pytest
from gateway_parts import TOKEN, WAIT, Running, remote, running_gateway, stdio, until
from official_schema import LIST, RESPONSE

from registry.model import ServerSpec
from registry.official.client import OfficialClient

pytestmark = pytest.mark.anyio


async def reached(running: Running, *specs: ServerSpec) -> None:
    for spec in specs:
        await running.gateway.synced(spec.name, WAIT)
        await until(lambda name=spec.name: name in running.gateway.registrar.reports, what="sync")


async def test_the_catalog_is_listed_by_the_registrys_schema() -> None:
    specs = [stdio(), stdio("zwei", env={"KEY": "sk-secret"})]
    async with running_gateway(specs) as running:
        await reached(running, *specs)
        answer = await running.client().http("GET", "/v0.1/servers?limit=1")
        assert answer.status == 200
        jsonschema.Draft202012Validator(LIST).validate(answer.json)
        assert [one["server"]["name"] for one in answer.json["servers"]] == ["local.toolyard/peer"]
        cursor = answer.json["metadata"]["nextCursor"]
        last = await running.client().http("GET", f"/v0.1/servers?limit=1&cursor={cursor}")
        assert [one["server"]["name"] for one in last.json["servers"]] == ["local.toolyard/zwei"]
        assert "nextCursor" not in last.json["metadata"]
        for text in (b"sk-secret", b"stdio_peer", b"python"):
            assert text not in answer.body + last.body


async def test_one_server_and_its_versions_are_at_their_paths() -> None:
    async with running_gateway([stdio()]) as running:
        await reached(running, stdio())
        client = running.client()
        versions = await client.http("GET", "/v0.1/servers/local.toolyard%2Fpeer/versions")
        jsonschema.Draft202012Validator(LIST).validate(versions.json)
        version = versions.json["servers"][0]["server"]["version"].replace("+", "%2B")
        for asked in ("latest", version):
            one = await client.http("GET", f"/v0.1/servers/local.toolyard%2Fpeer/versions/{asked}")
            jsonschema.Draft202012Validator(RESPONSE).validate(one.json)
            assert one.json == versions.json["servers"][0]
        for path in (
            "/v0.1/servers/local.toolyard%2Fpeer/versions/9.9.9",
            "/v0.1/servers/local.toolyard%2Fnobody/versions",
            "/v0.1/servers/peer",
            "/v0.1/",
            "/v0.1/servers/..%2F..%2Fmcp/versions",
        ):
            assert (await client.http("GET", path)).status == 404, path


async def test_what_is_new_is_asked_for_by_a_moment() -> None:
    async with running_gateway([stdio()]) as running:
        await reached(running, stdio())
        client = running.client()
        past = await client.http("GET", "/v0.1/servers?updated_since=2020-01-01T00:00:00Z")
        future = await client.http("GET", "/v0.1/servers?updated_since=2999-01-01T00:00:00%2B00:00")
        assert len(past.json["servers"]) == 1
        assert future.json["servers"] == []


async def test_questions_that_cannot_be_are_400_and_the_registry_is_for_reading() -> None:
    async with running_gateway([]) as running:
        client = running.client()
        for query in ("limit=x", "cursor=%25", "updated_since=now", "&".join(f"a{n}=1" for n in range(50))):
            answer = await client.http("GET", f"/v0.1/servers?{query}")
            assert answer.status == 400, query
            assert answer.json["error"]
        assert (await client.http("POST", "/v0.1/publish", body=b"{}")).status == 405
        assert (await client.http("HEAD", "/v0.1/servers")).status == 200


async def test_it_is_behind_the_token_and_the_host_check_like_everything_else() -> None:
    async with running_gateway([]) as running:
        assert (await running.client(token=None).http("GET", "/v0.1/servers")).status == 401
        headers = {"Host": "evil.example", "Authorization": f"Bearer {TOKEN}"}
        assert (await running.client().http("GET", "/v0.1/servers", headers)).status == 403
        headers = {"Origin": "https://evil.example", "Authorization": f"Bearer {TOKEN}"}
        assert (await running.client().http("GET", "/v0.1/servers", headers)).status == 403


async def test_our_own_client_reads_it() -> None:
    off = remote("off", "https://example.com/mcp", disabled=True)
    async with running_gateway([stdio(), off]) as running:
        await reached(running, stdio())
        async with OfficialClient(f"http://127.0.0.1:{running.port}", token=TOKEN) as registry:
            pages = [page async for page in registry.pages()]
            assert [one.server.name for page in pages for one in page.servers] == ["local.toolyard/peer"]
            assert (await registry.server("local.toolyard/peer")).latest is True
