"""Who may talk to the endpoint: Host and Origin on every route, the token everywhere but at liveness."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gateway_parts import TOKEN, WAIT, HttpPeer, Running, http_peer, mcp, remote, running_gateway, stdio

from gateway.errors import StateError
from gateway.policy import guard
from gateway.policy.token import load_token

pytestmark = pytest.mark.anyio

ROUTES = [
    ("GET", "/healthz"),
    ("POST", "/mcp"),
    ("GET", "/mcp"),
    ("DELETE", "/mcp"),
    ("OPTIONS", "/mcp"),
    ("GET", "/x"),
]


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with running_gateway(
        [], allowed_hosts=("Tools.Example",), allowed_origins=("https://App.Example",), first_list_grace=0.0
    ) as running:
        yield running


async def test_a_foreign_or_odd_host_is_403_on_every_route(running: Running) -> None:
    client = running.client()
    for method, path in ROUTES:
        for host in (
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:80",
            "evil.example:127.0.0.1",
            "user@127.0.0.1",
            "0.0.0.0",
            "[::1",
            "tools.example.evil",
            "\xe4",
            "127.0.0.1,evil.example",
        ):
            answer = await client.http(method, path, client.headers(Host=host))
            assert answer.status == 403, (method, path, host)
    for raw in (
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
    ):
        async with client.wire() as wire:
            wire.writer.write(raw)
            assert (await wire.answer()).status == 403


async def test_loopback_and_allowed_hosts_are_served_with_any_port(running: Running) -> None:
    client = running.client()
    for host in ("127.0.0.1", "localhost:1", "[::1]:99", "LOCALHOST", "tools.example", "TOOLS.EXAMPLE:443"):
        assert (await client.http("GET", "/healthz", {"Host": host})).status == 200


async def test_a_foreign_origin_is_403_on_every_route_token_or_not(running: Running) -> None:
    client = running.client()
    for method, path in ROUTES:
        for origin in (
            "https://evil.example",
            "null",
            "http://127.0.0.1.evil.example",
            "http://localhost@evil.example",
            "https://app.example.evil",
            "http://app.example",
            "file://",
            "chrome-extension://x",
            "http://[::1",
            "\xff",
        ):
            answer = await client.http(method, path, client.headers(Origin=origin))
            assert answer.status == 403, (method, path, origin)
            assert "access-control-allow-origin" not in answer.headers


async def test_an_allowed_origin_passes_its_preflight_without_a_token(running: Running) -> None:
    client = running.client(token=None)
    for origin in ("https://app.example", "http://localhost:5173", "http://127.0.0.1"):
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, Mcp-Param-Region, x-evil",
        }
        answer = await client.http("OPTIONS", "/mcp", headers)
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == origin
        allowed = answer.headers["access-control-allow-headers"].split(", ")
        assert {"authorization", "mcp-session-id", "mcp-method", "mcp-name", "Mcp-Param-Region"} <= set(
            allowed
        )
        assert "x-evil" not in allowed
        assert "access-control-allow-credentials" not in answer.headers
    answer = await client.http("POST", "/mcp", {"Origin": "https://app.example"}, b"{}")
    assert answer.status == 401  # and readable by the page
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "mcp-session-id" in answer.headers["access-control-expose-headers"]


async def test_without_the_right_token_there_is_401_everywhere_but_at_liveness(running: Running) -> None:
    for token in (None, "", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\xe9" * 20, "a" * 10_000):
        client = running.client(token)
        for method, path in (("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp"), ("GET", "/nothing")):
            answer = await client.http(method, path)
            assert answer.status == 401, (token, method)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert TOKEN.encode() not in answer.body
        assert (await client.http("GET", "/healthz")).status == 200
    for scheme in ("Basic", "Token", ""):
        headers = {**running.client(None).headers(), "Authorization": f"{scheme} {TOKEN}".strip()}
        assert (await running.client(None).http("POST", headers=headers, body=b"{}")).status == 401
    assert (await running.client().http("GET", "/mcp?token=" + TOKEN, {})).status == 401


async def test_the_token_is_compared_in_constant_time() -> None:
    assert "compare_digest" in inspect.getsource(guard.Guard)


async def test_without_authentication_host_and_origin_still_hold() -> None:
    async with running_gateway([], token=None, first_list_grace=0.0) as running:
        client = running.client(None)
        await client.initialize()
        assert (await client.request("ping")).status == 200
        assert (
            await client.http("POST", headers=client.headers(Host="evil.example"), body=b"{}")
        ).status == 403
        assert (
            await client.http("POST", headers=client.headers(Origin="http://evil.example"), body=b"{}")
        ).status == 403


async def test_no_secret_of_a_client_reaches_a_server_or_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    own = "credential-of-the-server"
    async with http_peer(mcp()) as peer:
        spec = remote("far", peer.url, headers={"Authorization": f"Bearer {own}"})
        async with running_gateway([spec, stdio()]) as running:
            await running.gateway.settled()
            client = await running.session()
            assert client.session is not None
            await client.call("far__echo")
            await client.post(b"{", Cookie="a-cookie-of-the-client")
            await running.client().modern_call("far__echo", X_Api_Key="a-key-of-the-client")
            await running.client("wrong" + TOKEN).http("POST")
            environment = Path(f"/proc/{running.upstream().pid}/environ").read_bytes()
            session = client.session
    sent = json.dumps([[request.headers, request.body.decode()] for request in peer.seen])
    assert isinstance(peer, HttpPeer)
    assert own in sent
    for secret in (TOKEN, session, "a-cookie-of-the-client", "a-key-of-the-client"):
        assert secret not in sent
        assert secret not in caplog.text
        assert secret.encode() not in environment
    assert own not in caplog.text


async def test_a_child_gets_none_of_our_secrets_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "do-not-share")
    async with running_gateway([stdio("plain"), stdio("given", env={"KEY": "${MY_API_KEY}"})]) as running:
        await running.gateway.settled()
        environments = {
            name: Path(f"/proc/{running.upstream(name).pid}/environ").read_bytes()
            for name in ("plain", "given")
        }
    assert b"do-not-share" not in environments["plain"]
    assert b"KEY=do-not-share" in environments["given"]


def test_a_token_is_made_once_private_and_strong(tmp_path: Path) -> None:
    token = load_token(tmp_path / "token")
    assert len(token) >= 32
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert load_token(tmp_path / "token") == token


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff\xfe\xfd" * 20])
def test_a_token_file_that_holds_no_token_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(StateError):
        load_token(path)


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    load_token(tmp_path / "token")
    os.chmod(tmp_path / "token", 0o644)
    with pytest.raises(StateError) as caught:
        load_token(tmp_path / "token")
    assert "chmod 600" in (caught.value.hint or "")
    with pytest.raises(StateError):
        load_token(tmp_path / "no" / "such" / "token")


async def test_thousands_of_connections_are_bounded(
    monkeypatch: pytest.MonkeyPatch, running: Running
) -> None:
    monkeypatch.setattr("gateway.httpd.MAX_CONNECTIONS", 100)
    opened: list[Any] = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(150)]
    closed = 0
    for reader, _ in opened[100:]:
        closed += await asyncio.wait_for(reader.read(), WAIT) == b""
    assert closed == 50
    for _, writer in opened:
        writer.close()
