"""Tool parameters in headers, towards 2026-07-28 servers and from 2026-07-28 clients."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import msgspec
import pytest
from gateway_parts import (
    ECHOED,
    STATELESS,
    WAIT,
    Request,
    http_peer,
    modern_mcp,
    remote,
    reply,
    running_gateway,
    tool,
    until,
)
from hypothesis import given
from hypothesis import strategies as st

from gateway import jsonrpc
from gateway.errors import RpcError
from gateway.upstream.mirror import (
    InvalidAnnotation,
    Mirror,
    check_headers,
    header_text,
    header_value,
    mirrors,
    param_headers,
)

SQL = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "where": {"type": "object", "properties": {"shard": {"type": "integer", "x-mcp-header": "Shard"}}},
        "dry": {"type": "boolean", "x-mcp-header": "Dry-Run"},
        "query": {"type": "string"},
    },
}


def definition(schema: Any) -> bytes:
    return json.dumps({"name": "t", "inputSchema": schema}).encode()


def params(arguments: Any) -> jsonrpc.Shallow:
    return {"arguments": msgspec.Raw(json.dumps(arguments).encode())}


def prop(**fields: Any) -> Any:
    return {"properties": {"p": {"type": "string", "x-mcp-header": "P", **fields}}}


def test_annotations_on_chains_of_properties_are_found() -> None:
    assert set(mirrors(definition(SQL))) == {
        Mirror("mcp-param-region", ("region",)),
        Mirror("mcp-param-shard", ("where", "shard")),
        Mirror("mcp-param-dry-run", ("dry",)),
    }


def test_a_tool_without_annotations_has_none_even_where_the_word_is_only_data() -> None:
    for schema in (
        {},
        {"properties": {"x-mcp-header": {"type": "string"}}},
        {"properties": {"p": {"default": {"x-mcp-header": ""}, "enum": [{"x-mcp-header": 1}]}}},
        {"description": "see x-mcp-header"},
    ):
        assert mirrors(definition(schema)) == ()
    assert mirrors(b'{"name":"t","inputSchema":5}') == ()
    assert mirrors(b'{"name":"t"}') == ()


INVALID = [
    prop(**{"x-mcp-header": ""}),
    prop(**{"x-mcp-header": "a b"}),
    prop(**{"x-mcp-header": "a\r\nEvil: 1"}),
    prop(**{"x-mcp-header": "ü"}),
    prop(**{"x-mcp-header": "a:"}),
    prop(**{"x-mcp-header": 5}),
    prop(**{"x-mcp-header": None}),
    prop(type="number"),
    prop(type="object"),
    prop(type=["string", "null"]),
    prop(type=None),
    {"x-mcp-header": "Root", "type": "string"},
    {"items": prop()},
    {"anyOf": [prop()]},
    {"if": prop()},
    {"$defs": {"d": prop()}},
    {"additionalProperties": {"type": "string", "x-mcp-header": "A"}},
    {"patternProperties": {"^a": {"type": "string", "x-mcp-header": "A"}}},
    {"properties": {"p": {"allOf": [{"properties": {"q": {"type": "string", "x-mcp-header": "A"}}}]}}},
    {
        "properties": {
            "a": {"type": "string", "x-mcp-header": "Same"},
            "b": {"type": "string", "x-mcp-header": "sAME"},
        }
    },
]


@pytest.mark.parametrize("schema", INVALID)
def test_an_annotation_that_breaks_the_rules_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidAnnotation):
        mirrors(definition(schema))


def test_an_annotation_spelled_with_escapes_is_found_too() -> None:
    data = definition(prop()).replace(b"x-mcp-header", b"x\\u002dmcp-header")
    assert mirrors(data) == (Mirror("mcp-param-p", ("p",)),)


def test_values_become_headers_as_the_specification_says() -> None:
    found = mirrors(definition(SQL))
    sent = param_headers(
        found, params({"region": "us-west1", "where": {"shard": -7}, "dry": True, "query": "x"})
    )
    assert sorted(sent.decode().split("\r\n")) == [
        "",
        "mcp-param-dry-run: true",
        "mcp-param-region: us-west1",
        "mcp-param-shard: -7",
    ]
    for arguments in (
        {},
        {"region": None, "where": None},
        {"where": 5},
        {"where": {"shard": {}}, "dry": []},
        5,
        None,
    ):
        assert param_headers(found, params(arguments)) == b""
    assert param_headers(found, {}) == b""


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("us-west1", "us-west1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
    ],
)
def test_the_examples_of_the_specification(value: str, header: str) -> None:
    assert header_value(value) == header
    assert header_text(header, "x") == value


@given(st.text())
def test_every_text_survives_a_header_and_never_breaks_out_of_it(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    header = header_value(text)
    assert header.isascii()
    assert header.isprintable()
    assert header_text(header.strip(), "x") == text


def test_headers_of_a_client_must_repeat_its_arguments() -> None:
    found = mirrors(definition(SQL))
    arguments = params({"region": "ü", "where": {"shard": 42}})
    encoded = b"=?base64?" + base64.b64encode("ü".encode()) + b"?="
    check_headers(found, arguments, {b"mcp-param-region": encoded, b"mcp-param-shard": b"42.0"})
    for headers in (
        {},
        {b"mcp-param-region": encoded},
        {b"mcp-param-region": encoded, b"mcp-param-shard": b"43"},
        {b"mcp-param-region": encoded, b"mcp-param-shard": b"x"},
        {b"mcp-param-region": b"us", b"mcp-param-shard": b"42"},
        {b"mcp-param-region": b"=?base64?!?=", b"mcp-param-shard": b"42"},
        {b"mcp-param-region": encoded, b"mcp-param-shard": b"42", b"mcp-param-dry-run": b"true"},
    ):
        with pytest.raises(RpcError) as caught:
            check_headers(found, arguments, headers)
        assert caught.value.code == -32020
        assert caught.value.status == 400


@pytest.mark.anyio
async def test_a_2026_server_is_discovered_and_gets_its_headers_and_bad_tools_are_left_out() -> None:
    bad = tool("bad", inputSchema=INVALID[0])
    tools = [tool("sql", inputSchema=SQL), bad, tool("wörld")]
    async with http_peer(modern_mcp(tools)) as peer, running_gateway([remote("far", peer.url)]) as running:
        client = await running.session()
        names = await client.names()
        assert len(names) == 2
        assert "far__sql" in names
        assert any("'bad' is left out" in problem for problem in running.upstream("far").problems)
        arguments = {"region": "münchen", "where": {"shard": 3}}
        for result in (
            await client.call("far__sql", arguments),
            await running.client().modern_call(
                "far__sql", arguments, Mcp_Param_Region=header_value("münchen"), Mcp_Param_Shard="3"
            ),
        ):
            assert result["result"]["content"] == ECHOED["content"]
        sent = [request for request in peer.seen if request.rpc == "tools/call"]
        for request in sent:
            assert request.headers["mcp-protocol-version"] == STATELESS
            assert request.headers["mcp-method"] == "tools/call"
            assert request.headers["mcp-name"] == "sql"
            assert request.headers["mcp-param-region"] == header_value("münchen")
            assert request.headers["mcp-param-shard"] == "3"
            assert "mcp-param-dry-run" not in request.headers
            assert "mcp-session-id" not in request.headers
            assert request.json["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == STATELESS
        refused = await running.client().modern_request(
            "tools/call", {"name": "far__sql", "arguments": arguments}
        )
        assert (refused.status, refused.error) == (400, -32020)
        assert len([request for request in peer.seen if request.rpc == "tools/call"]) == len(sent)
        other = next(name for name in names if name != "far__sql")
        await client.call(other)
        assert peer.seen[-1].headers["mcp-name"] == header_value("wörld")


@pytest.mark.anyio
async def test_a_stateless_client_that_leaves_closes_the_call_of_a_2026_server() -> None:
    left = asyncio.Event()

    async def call(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n: open\n\n")

        async def watch() -> None:
            while not writer.transport.is_closing():
                await asyncio.sleep(0.01)
            left.set()

        watching.append(asyncio.create_task(watch()))

    watching: list[asyncio.Task[None]] = []
    async with (
        http_peer(modern_mcp(tools_call=call)) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        await running.gateway.settled()
        client = running.client()
        async with client.wire() as wire:
            body, fields = client.modern("tools/call", {"name": "far__echo"})
            wire.send("POST", "/mcp", {**client.headers(), **fields}, body)
            await until(lambda: watching)
            wire.abort()
        await asyncio.wait_for(left.wait(), WAIT)
        await asyncio.gather(*watching)
        assert "notifications/cancelled" not in peer.methods()


@pytest.mark.anyio
async def test_a_server_of_an_unknown_future_is_a_visible_failure() -> None:
    async def refuse(request: Request, writer: asyncio.StreamWriter) -> None:
        data = {"supported": ["2031-01-01"], "requested": "x"}
        error = {"code": -32022, "message": "Unsupported protocol version", "data": data}
        reply(
            writer, 400, json.dumps({"jsonrpc": "2.0", "id": request.json.get("id"), "error": error}).encode()
        )

    async with http_peer(refuse) as peer, running_gateway([remote("far", peer.url)]) as running:
        await until(lambda: running.upstream("far").state == "failed")
        assert "2026-07-28" in running.upstream("far").error.message
