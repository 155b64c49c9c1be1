"""A hostile or broken client over HTTP: every message gets an answer that says what was wrong with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from gateway_parts import HANDSHAKE, STATELESS, WAIT, Answer, Running, meta, running_gateway, stdio, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with running_gateway([stdio()], max_body=200_000) as running:
        yield running


async def alive(running: Running) -> None:
    """A good call is answered."""
    client = await running.session()
    assert (await client.call("peer__echo", {"a": 1}))["result"]["content"][0]["text"] == '{"a": 1}'


def refused(answer: Answer, status: int, code: int | None = None) -> None:
    assert answer.status == status, answer
    assert b"Traceback" not in answer.body
    if code is not None:
        assert answer.error == code, answer


BAD_BODIES = [
    (b"", -32700),
    (b"{", -32700),
    (b"\xff\xfe{}", -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"\xc3\x28"}', -32700),
    (b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}', -32700),
    (b'{"params":' + b"[" * 100_000 + b"]" * 50_000, -32700),
    (b'{"params":' * 20_000, -32700),
    (b"42", -32600),
    (b"null", -32600),
    (b'"initialize"', -32600),
    (b"[]", -32600),
    (b"[1,2,3]", -32600),
    (b"{}", -32600),
    (b'{"jsonrpc":"2.0","id":1}', -32600),
    (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
    (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
    (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600),
    (b'{"jsonrpc":"2.0","id":[1],"method":"ping"}', -32600),
    (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":7}', -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":null}', -32600),
    (b'{"jsonrpc":"2.0","id":1,"method":["ping"]}', -32600),
]


async def test_what_is_no_request_is_refused_with_400_and_a_jsonrpc_error(running: Running) -> None:
    client = await running.session()
    for body, code in BAD_BODIES:
        refused(await client.post(body), 400, code)
    await alive(running)


BAD_PARAMS: list[tuple[str, Any]] = [
    ("tools/call", "text"),
    ("tools/call", [1]),
    ("tools/call", 5),
    ("tools/call", None),
    ("tools/call", {}),
    ("tools/call", {"name": None}),
    ("tools/call", {"name": 5}),
    ("tools/call", {"name": ["peer__echo"]}),
    ("tools/call", {"name": "nobody"}),
    ("tools/call", {"name": "x" * 100_000}),
    ("tools/call", {"name": "peer__echo", "_meta": 5}),
    ("tools/call", {"name": "peer__echo", "_meta": "progressToken"}),
    ("tools/call", {"name": "peer__echo", "_meta": ["progressToken"]}),
    ("tools/list", {"cursor": 5}),
    ("tools/list", {"cursor": "forged"}),
    ("tools/list", {"cursor": "\u0000"}),
    ("tools/list", "x"),
    ("prompts/get", {"name": "nobody"}),
    ("resources/read", {}),
    ("resources/read", {"uri": 5}),
    ("resources/read", {"uri": "file:///nobody"}),
    ("resources/subscribe", {"uri": "file:///nobody"}),
    ("resources/subscribe", {"uri": {}}),
    ("resources/unsubscribe", {}),
    ("completion/complete", {}),
    ("completion/complete", {"ref": 5}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": ["x"]}}),
    ("logging/setLevel", {}),
    ("logging/setLevel", {"level": "loud"}),
    ("logging/setLevel", {"level": ["debug"]}),
]


async def test_wrong_params_of_every_method_are_a_jsonrpc_error_with_the_requests_id(
    running: Running,
) -> None:
    client = await running.session()
    for number, (method, params) in enumerate(BAD_PARAMS):
        message = {"jsonrpc": "2.0", "id": f"id-{number}", "method": method, "params": params}
        answer = await client.post(message)
        assert answer.status == 200, (method, params, answer)
        assert answer.json["id"] == f"id-{number}"
        assert answer.error in (-32600, -32602, -32002), (method, params, answer.body[:300])
        assert len(answer.body) < 4000
    await alive(running)


async def test_wrong_params_of_initialize_are_refused(running: Running) -> None:
    client = running.client()
    for params in (None, 5, [], "x", {}, {"protocolVersion": {}}, {"clientInfo": {}}):
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
        answer = await client.post(message)
        if params != {"protocolVersion": {}}:  # an unknown version is answered with ours
            assert answer.error == -32602, (params, answer)


async def test_odd_client_info_and_unknown_versions_still_get_a_session(running: Running) -> None:
    client = running.client()
    for info in (5, {"name": ["x"]}, {"name": "n" * 10_000}, {"name": "\u0000\U0001f600"}, None):
        params = {"protocolVersion": "1999-01-01", "clientInfo": info, "capabilities": 5}
        answer = await client.post(client.message("initialize", params))
        assert answer.json["result"]["protocolVersion"] == HANDSHAKE
        assert len(answer.headers["mcp-session-id"]) < 1024
        assert answer.headers["mcp-session-id"].isascii()


async def test_an_unknown_method_is_404_for_the_stateless_era_and_200_before_it(running: Running) -> None:
    client = await running.session()
    answer = await client.request("no/such", {})
    refused(answer, 200, -32601)
    refused(await running.client().modern_request("no/such"), 404, -32601)
    for method in ("ping", "initialize", "logging/setLevel", "resources/subscribe"):
        refused(await running.client().modern_request(method), 404, -32601)
    long = await running.client().modern_request("m" * 5000)
    assert long.status == 404
    assert len(long.body) < 1000


async def test_ids_of_any_length_and_script_are_repeated_as_they_are(running: Running) -> None:
    client = await running.session()
    for ident in (b"9" * 4000, b"-1", b'"\\u00e9\\ud83d\\ude00"', '"ü"'.encode(), b'""', b"0"):
        answer = await client.post(b'{"jsonrpc":"2.0","id":' + ident + b',"method":"ping"}')
        assert answer.body == b'{"jsonrpc":"2.0","id":' + ident + b',"result":{}}'


async def test_an_id_in_flight_cannot_be_used_again_and_can_be_afterwards(running: Running) -> None:
    client = await running.session()
    gate = running.root / "gate"
    params = {"name": "peer__hold", "arguments": {"gate": str(gate)}}
    first = asyncio.create_task(client.request("tools/call", params, ident=7))
    await until(lambda: running.upstream().in_flight)
    answer = await client.request("tools/call", params, ident=7)
    refused(answer, 200, -32600)
    gate.touch()
    assert (await first).json["result"]
    assert (await client.request("ping", ident=7)).json["result"] == {}


async def test_batches_live_only_in_the_versions_that_have_them(running: Running) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    new = await running.session()
    refused(await new.post([ping]), 400, -32600)
    old = running.client()
    await old.initialize("2025-03-26")
    more = {"Mcp_Protocol_Version": "2025-03-26"}
    answer = await old.post(
        [ping, {"jsonrpc": "2.0", "method": "x"}, {"id": 2}, {"id": [], "method": "p"}], **more
    )
    assert [item.get("id") for item in answer.json] == [1, 2, None]
    assert [item.get("error", {}).get("code") for item in answer.json] == [None, -32600, -32600]
    refused(await old.post([], **more), 400, -32600)
    refused(await old.post([ping, 5], **more), 400, -32600)
    refused(await old.post([{**ping, "id": i} for i in range(3000)], **more), 400, -32600)
    assert (await old.post([{"jsonrpc": "2.0", "method": "x"}], **more)).status == 202


async def test_a_body_over_the_limit_is_413_with_and_without_its_length_announced(running: Running) -> None:
    client = await running.session()
    big = json.dumps(client.message("tools/call", {"x": "y" * 300_000})).encode()
    refused(await client.post(big), 413, -32600)
    async with client.wire() as wire:
        wire.send("POST", "/mcp", client.headers(Transfer_Encoding="chunked"), b"")
        for start in range(0, len(big), 10_000):
            piece = big[start : start + 10_000]
            wire.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        wire.writer.write(b"0\r\n\r\n")
        refused(await wire.answer(), 413, -32600)
    async with client.wire() as wire:  # announced and never sent
        wire.send("POST", "/mcp", client.headers(Content_Length="99999999999999"), b"")
        refused(await wire.answer(), 413)
    await alive(running)


async def test_a_body_that_trickles_in_small_chunks_is_a_body(running: Running) -> None:
    client = await running.session()
    body = json.dumps(client.message("ping")).encode()
    async with client.wire() as wire:
        wire.send("POST", "/mcp", client.headers(Transfer_Encoding="chunked"), b"")
        for byte in body:
            wire.writer.write(b"1\r\n%c\r\n" % byte)
            await wire.writer.drain()
        wire.writer.write(b"0\r\n\r\n")
        assert (await wire.answer()).json["result"] == {}


async def test_content_type_and_accept_are_checked(running: Running) -> None:
    client = await running.session()
    ping = client.message("ping")
    for kind in ("text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data"):
        refused(await client.post(ping, Content_Type=kind), 415)
    assert (await client.post(ping, Content_Type="Application/JSON; charset=utf-8")).status == 200
    refused(await client.post(ping, Accept="text/html"), 406)
    for accept in ("*/*", "application/json", "application/*", "text/event-stream"):
        assert (await client.post(ping, Accept=accept)).status == 200
    refused(await client.http("GET", headers=client.headers(Accept="application/json")), 406)


async def test_a_client_that_takes_no_stream_gets_plain_json_even_with_progress(running: Running) -> None:
    client = await running.session()
    params = {"name": "peer__progress", "_meta": {"progressToken": 1}}
    answer = await client.request("tools/call", params, Accept="application/json")
    assert answer.headers["content-type"] == "application/json"
    streamed = await client.request("tools/call", params)
    assert streamed.headers["content-type"] == "text/event-stream"
    assert [event["params"]["progress"] for event in streamed.events[:-1]] == [0, 1, 2]


async def test_other_methods_and_paths_are_405_and_404(running: Running) -> None:
    client = await running.session()
    for method in ("PUT", "PATCH", "HEAD", "TRACE"):
        assert (await client.http(method)).status == 405
    for path in ("/", "/mcp/x", "/..", "/mcp%2f..", "/status", "/servers"):
        assert (await client.http("POST", path)).status == 404
    assert (await client.http("GET", "/healthz")).json == {"status": "alive"}
    assert (await client.http("HEAD", "/healthz")).status == 200


async def test_a_session_must_be_named_and_known_and_not_ended(running: Running) -> None:
    client = await running.session()
    good = client.session
    assert good is not None
    ping = client.message("ping")
    client.session = None
    missing = await client.post(ping)
    refused(missing, 400, -32600)
    assert missing.json["id"] == ping["id"]
    half = len(good) // 2
    forged = [
        "x",
        good[:-1],
        good + "A",
        good + "=",
        good[:half],
        good[half:],
        good[half:] + good[:half],
        f"{good[: half - 1]}{'B' if good[half] == 'A' else 'A'}{good[half:]}",
        f"{'B' if good[0] == 'A' else 'A'}{good[1:]}",
        "\xff\xfe",
        "A" * 5000,
        "../../etc/passwd",
    ]
    for token in forged:
        client.session = token
        answer = await client.post(ping)
        refused(answer, 404)
        assert answer.json["id"] == ping["id"]
    client.session = good
    assert (await client.http("DELETE")).status == 204
    refused(await client.post(ping), 404)
    refused(await client.http("DELETE"), 404)
    refused(await client.http("GET", headers=client.headers(Accept="text/event-stream")), 404)


async def test_an_unsupported_version_is_named_with_those_that_are_supported(running: Running) -> None:
    client = await running.session()
    ping = client.message("ping", ident="v")
    answer = await client.post(ping, Mcp_Protocol_Version="2031-01-01")
    refused(answer, 400, -32022)
    assert answer.json["id"] == "v"
    assert STATELESS in answer.json["error"]["data"]["supported"]
    get = await client.http(
        "GET", headers=client.headers(Accept="text/event-stream", Mcp_Protocol_Version="nonsense")
    )
    refused(get, 400, -32022)
    params = {"_meta": meta(**{"io.modelcontextprotocol/protocolVersion": "2031-01-01"})}
    future = client.message("tools/list", params)
    answer = await client.post(future, Mcp_Protocol_Version="2031-01-01", Mcp_Method="tools/list")
    refused(answer, 400, -32022)
    assert answer.json["error"]["data"]["requested"] == "2031-01-01"


async def test_headers_must_repeat_the_body_in_the_stateless_era(running: Running) -> None:
    client = running.client()
    params = {"name": "peer__echo", "arguments": {}}
    for header, value in (
        ("Mcp_Method", "tools/list"),
        ("Mcp_Method", "TOOLS/CALL"),
        ("Mcp_Name", "peer__die"),
        ("Mcp_Name", "=?base64?!!!?="),
        ("Mcp_Name", "=?base64?cGVlcl9fZGll?="),
        ("Mcp_Method", ""),
        ("Mcp_Name", ""),
        ("MCP_Protocol_Version", ""),
        ("MCP_Protocol_Version", HANDSHAKE),
    ):
        body, fields = client.modern("tools/call", params)
        fields[header.replace("_", "-").replace("MCP-", "MCP-")] = value
        answer = await client.http("POST", headers={**client.headers(), **fields}, body=body)
        refused(answer, 400, -32020)
        assert answer.json["id"] == json.loads(body)["id"]
    answer = await client.modern_request("tools/call", params, Mcp_Name="=?base64?cGVlcl9fZWNobw==?=")
    assert answer.json["result"]["resultType"] == "complete"


async def test_a_stateless_request_without_its_meta_is_400(running: Running) -> None:
    client = running.client()
    fields = {"MCP_Protocol_Version": STATELESS, "Mcp_Method": "tools/list"}
    for params in (None, {}, {"_meta": {}}, {"_meta": 5}, {"_meta": None}, [], "x"):
        refused(await client.post(client.message("tools/list", params), **fields), 400, -32602)
    lacking = meta()
    del lacking["io.modelcontextprotocol/clientCapabilities"]
    refused(await client.post(client.message("tools/list", {"_meta": lacking}), **fields), 400, -32602)


async def test_a_stateless_client_needs_no_session_and_is_given_none(running: Running) -> None:
    answer = await running.client().modern_request("tools/list", Mcp_Session_Id="nonsense")
    assert answer.status == 200
    assert "mcp-session-id" not in answer.headers
    for method in ("GET", "DELETE"):
        headers = running.client().headers(MCP_Protocol_Version=STATELESS, Accept="text/event-stream")
        assert (await running.client().http(method, headers=headers)).status == 405
    notification = {"jsonrpc": "2.0", "method": "notifications/whatever"}
    answer = await running.client().post(notification, MCP_Protocol_Version=STATELESS)
    assert (answer.status, answer.body) == (202, b"")
    listening = await running.client().modern_request("subscriptions/listen", {"notifications": 5})
    refused(listening, 400, -32602)


async def test_responses_and_notifications_are_taken_without_an_answer(running: Running) -> None:
    client = await running.session()
    for message in (
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "x"}},
        {"jsonrpc": "2.0", "method": "notifications/unknown", "params": 5},
        {"jsonrpc": "2.0", "method": "notifications/cancelled"},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": 5},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": {}}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99, "reason": 5}},
    ):
        answer = await client.post(message)
        assert (answer.status, answer.body) == (202, b""), message


async def test_oversized_heads_and_nonsense_instead_of_http_get_400(running: Running) -> None:
    client = await running.session()
    answer = await client.http("GET", "/healthz", {"X-Big": "x" * 66_000})
    assert answer.status == 400
    answer = await client.http("GET", "/" + "a" * 66_000, {})
    assert answer.status == 400
    for raw in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELO mail\r\n\r\n",
        b"GET /healthz\r\n\r\n",
    ):
        async with client.wire() as wire:
            wire.writer.write(raw)
            assert (await wire.answer()).status in (400, 403)
    for lengths in (
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
    ):
        async with client.wire() as wire:
            wire.writer.write(f"POST /mcp HTTP/1.1\r\nHost: localhost\r\n{lengths}\r\n\r\nhello".encode())
            assert (await wire.answer()).status in (400, 401, 415)
    await alive(running)


async def test_pipelined_requests_are_answered_in_turn(running: Running) -> None:
    client = await running.session()
    async with client.wire() as wire:
        for number in range(20):
            body = json.dumps(client.message("ping", ident=number)).encode()
            wire.send("POST", "/mcp", client.headers(), body)
        assert [(await wire.answer()).json["id"] for _ in range(20)] == list(range(20))


async def test_half_open_connections_are_dropped_in_time_and_hinder_nobody(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await running.session()
    async with client.wire() as wire:
        body = json.dumps(client.message("ping")).encode()
        wire.send("POST", "/mcp", client.headers(), body)
        assert (await wire.answer()).status == 200
        with monkeypatch.context() as short:
            short.setattr("gateway.httpd.HEADER_TIMEOUT", 0.6)
            short.setattr("gateway.httpd.BODY_TIMEOUT", 0.6)
            idle = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(300)]
            for number, (_, writer) in enumerate(idle):
                if number % 3 == 1:
                    writer.write(b"POST /mcp HTTP/1.1\r\nHost: localh")
                elif number % 3 == 2:
                    fields = {"Host": "localhost", **client.headers()}
                    head = "".join(f"{k}: {v}\r\n" for k, v in fields.items())
                    writer.write(f"POST /mcp HTTP/1.1\r\n{head}Content-Length: 100\r\n\r\n{{".encode())
            wire.writer.write(b"POST /mcp HT")  # the second request of a connection that was used before
            assert await asyncio.wait_for(wire.reader.read(), WAIT) == b""
        await alive(running)
    for reader, writer in idle:
        async with asyncio.timeout(2 * WAIT):
            try:
                await reader.read()
            except ConnectionError:
                pass
        writer.close()


async def test_every_refusal_keeps_the_gateway_serving_the_same_connection_or_closes_it(
    running: Running,
) -> None:
    client = await running.session()
    async with client.wire() as wire:
        for body, _ in BAD_BODIES[:6]:
            wire.send("POST", "/mcp", client.headers(), body)
            assert (await wire.answer()).status == 400
        wire.send("POST", "/mcp", client.headers(), json.dumps(client.message("ping")).encode())
        assert (await wire.answer()).json["result"] == {}


async def test_an_unhandled_error_is_never_logged(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    client = await running.session()
    for body, _ in BAD_BODIES:
        await client.post(body)
    for method, params in BAD_PARAMS:
        await client.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        if isinstance(params, dict) and len(str(params.get("name"))) < 1000:
            params = {key: value for key, value in params.items() if key != "_meta"}
            body, fields = client.modern(method, params)
            fields["Mcp-Name"] = str(fields.get("Mcp-Name", "x"))
            await client.http("POST", headers={**client.headers(), **fields}, body=body)
    assert [record for record in caplog.records if record.exc_info] == []
