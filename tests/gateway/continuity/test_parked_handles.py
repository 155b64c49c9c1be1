"""Handles of parked calls, which come back through hands that are not trusted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from continuity_parts import said, stateful
from gateway_parts import Client, Running, running_gateway, until

from gateway.bridge import parking

pytestmark = pytest.mark.anyio

CAPABLE = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_gateway([stateful()], root=tmp_path) as running:
        await running.gateway.settled()
        yield running


async def ask(client: Client, state: str | None = None, key: str = "", name: str = "memo__elicit") -> Any:
    """The answer to a call that is asked for input; with a handle, to the retry that brings the input."""
    params: dict[str, Any] = {"name": name, "arguments": {"rounds": 2}}
    if state is not None:
        answer = {"action": "accept", "content": {"name": "Ada"}}
        params |= {"requestState": state, "inputResponses": {key: answer}}
    body, fields = client.modern("tools/call", params, **CAPABLE)
    answer = await client.http("POST", headers={**client.headers(), **fields}, body=body)
    return answer.json


async def parked(client: Client) -> tuple[str, str]:
    """The handle of a parked call, and the key of what it asks for."""
    result = (await ask(client))["result"]
    assert result["resultType"] == "input_required"
    (key,) = result["inputRequests"]
    return result["requestState"], key


async def test_a_handle_resumes_its_call_once_a_round(running: Running) -> None:
    client = running.client()
    first, key = await parked(client)
    second = (await ask(client, first, key))["result"]
    assert second["resultType"] == "input_required"
    replayed = (await ask(client, first, key))["error"]
    assert replayed["code"] == -32602
    assert "used already" in replayed["message"]
    (key,) = second["inputRequests"]
    assert said(await ask(client, second["requestState"], key))["content"] == {"name": "Ada"}
    assert (await ask(client, second["requestState"], key))["error"]["code"] == -32602


async def test_a_handle_resumes_its_call_on_another_connection_of_the_same_caller(running: Running) -> None:
    state, key = await parked(running.client())
    assert (await ask(running.client(), state, key))["result"]["resultType"] == "input_required"


async def test_a_handle_is_good_for_its_own_request_alone(running: Running) -> None:
    state, key = await parked(running.client())
    refused = (await ask(running.client(), state, key, name="memo__count"))["error"]
    assert refused["code"] == -32602
    assert (await ask(running.client(), state, key))["result"]


async def test_a_handle_that_was_tampered_with_is_refused_and_its_call_goes_on_waiting(
    running: Running,
) -> None:
    client = running.client()
    state, key = await parked(client)
    session = await running.session()
    for forged in (
        state[:-1],
        state + "A",
        state[:-5] + "AAAAA",
        "",
        "x",
        session.session or "",
        state[::-1],
    ):
        assert (await ask(client, forged, key))["error"]["code"] == -32602
    assert (await ask(client, state, key))["result"]


async def test_a_parked_call_that_went_with_its_process_is_a_retriable_error(tmp_path: Path) -> None:
    async with running_gateway([stateful()], root=tmp_path) as first:
        state, key = await parked(first.client())
    async with running_gateway([stateful()], root=tmp_path) as second:
        lost = (await ask(second.client(), state, key))["error"]
        assert lost["data"] == {"type": "parked_call_lost", "retriable": True}
        assert (await ask(second.client()))["result"]["resultType"] == "input_required"


async def test_a_handle_in_another_callers_hands_is_refused(tmp_path: Path) -> None:
    async with running_gateway([stateful()], root=tmp_path) as first:
        state, key = await parked(first.client())
    async with running_gateway([stateful()], root=tmp_path, token="somebody-elses-token") as second:
        refused = (await ask(second.client("somebody-elses-token"), state, key))["error"]
        assert refused["code"] == -32602
        assert "data" not in refused


async def test_calls_that_nobody_comes_back_to_leave_a_server_to_others(tmp_path: Path) -> None:
    """Half of what a server serves at a time may wait for clients; the rest is for calls that do not."""
    specs = [stateful(maxConcurrency=4)]
    async with running_gateway(specs, root=tmp_path) as running:
        await running.gateway.settled()
        client = running.client()
        await parked(client)
        upstream = running.upstream("memo")
        assert upstream.parkable == 2
        limits = running.gateway.dispatcher.parking
        for number in range(10):
            answer = await ask(client)
            assert "error" in answer or answer["result"]["resultType"] == "input_required", number
        assert len(limits) <= upstream.parkable
        assert upstream.in_flight <= upstream.parkable
        assert said(await client.modern_call("memo__count"))[1] == 1


async def test_a_call_beyond_the_limit_is_refused_and_cancelled_until_an_old_one_may_make_way(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "MAX_PARKED", 2)
    client = running.client()
    first, key = await parked(client)
    await parked(client)
    refused = (await ask(client))["error"]
    assert refused["data"] == {"type": "too_many_parked", "retriable": True}
    await until(lambda: running.upstream("memo").in_flight == 2)
    monkeypatch.setattr(parking, "MAKES_WAY", 0.0)
    await parked(client)
    assert len(running.gateway.dispatcher.parking) == 2
    gone = (await ask(client, first, key))["error"]
    assert gone["code"] == -32602, "the one that waited for longest made way"
    await until(lambda: running.upstream("memo").in_flight == 2)
