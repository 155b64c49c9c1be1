"""What goes back and forth in the midst of a call, and what hostile servers and clients make of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from gateway_parts import STATELESS, Answer, Client, Running, Wire, meta, remote, running_gateway, until
from session_peer import SessionPeer, session_peer
from stateless_peer import META, stateless_peer

from gateway.bridge.parking import MAX_ASKED, MAX_BYTES
from gateway.bridge.rounds import MAX_REQUESTS, MAX_ROUNDS

pytestmark = pytest.mark.anyio
DONE = {"content": [], "resultType": "complete"}
EVERYTHING = {"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {}}
FORM = {"message": "?", "requestedSchema": {"type": "object", "properties": {}}}
ELICIT = {"method": "elicitation/create", "params": FORM}


async def session(running: Running, capabilities: Any = EVERYTHING) -> Client:
    """A handshake-era client that can be asked."""
    client = running.client()
    params = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "t"}}
    answer = await client.post(client.message("initialize", params))
    client.session = answer.headers["mcp-session-id"]
    await client.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
    return client


async def begin(client: Client, ident: Any = 1, **more: Any) -> Wire:
    """A handshake-era call, its response being read."""
    wire = await Wire.open(client.port)
    params = {"name": "far__ask", "arguments": {}, **more}
    body = json.dumps(client.message("tools/call", params, ident)).encode()
    wire.send("POST", "/mcp", client.headers(), body)
    return wire


async def modern(client: Client, capabilities: Any = EVERYTHING, **params: Any) -> Answer:
    """A stateless call of ``far__ask``."""
    whole = {
        "name": "far__ask",
        "arguments": {},
        **params,
        "_meta": meta(**{META + "clientCapabilities": capabilities}),
    }
    fields = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": "tools/call", "Mcp-Name": "far__ask"}
    body = json.dumps(client.message("tools/call", whole)).encode()
    return await client.http("POST", headers={**client.headers(), **fields}, body=body)


def outcome(answer: Answer) -> Any:
    """The response message, whichever way it came."""
    return answer.json


@pytest.fixture
async def old() -> AsyncIterator[SessionPeer]:
    async with session_peer() as peer:
        yield peer


# back and forth


async def test_a_clients_progress_reaches_the_server_that_asked(old: SessionPeer) -> None:
    async with running_gateway([remote("far", old.url)]) as running:
        client = await session(running)
        wire = await begin(client)
        call = await old.called()
        call.ask(5, "sampling/createMessage", messages=[], maxTokens=1, _meta={"progressToken": "theirs"})
        await wire.head()
        asked = await wire.event()
        token = asked["params"]["_meta"]["progressToken"]
        assert token == asked["id"] != "theirs", "servers choose tokens without knowing of each other"
        progress = {"progressToken": token, "progress": 1, "message": "thinking"}
        for params in (progress, {**progress, "progressToken": "nobody's"}, {"progressToken": None}, {}):
            await client.post({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        await client.post({"jsonrpc": "2.0", "id": asked["id"], "result": {"role": "assistant"}})
        await until(lambda: old.sent("answer"))
        (reported,) = old.sent("notifications/progress")
        assert reported["params"] == {"progressToken": "theirs", "progress": 1, "message": "thinking"}
        call.finish()
        assert (await wire.event())["result"]["content"][0]["text"] == "done"
        await wire.close()


async def test_the_end_of_a_visit_is_told_to_the_client_that_was_sent_there(old: SessionPeer) -> None:
    async with running_gateway([remote("far", old.url)]) as running:
        sent, other = await session(running), await session(running)
        streams = []
        for client in (sent, other):
            stream = await Wire.open(client.port)
            stream.send("GET", "/mcp", client.headers(Accept="text/event-stream"))
            await stream.head()
            streams.append(stream)
        wire = await begin(sent)
        call = await old.called()
        call.elicit(mode="url", url="https://x.example", elicitationId="e1", message="Log in")
        await wire.head()
        asked = await wire.event()
        await sent.post({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}})
        call.finish()
        await wire.event()
        await until(lambda: old.stream)
        old.notice("notifications/elicitation/complete", elicitationId="unknown")
        old.notice("notifications/elicitation/complete", elicitationId="e1")
        old.notice("notifications/elicitation/complete", elicitationId="e1")
        while "elicitation" not in (told := await streams[0].event())["method"]:
            pass
        assert (told["method"], told["params"]) == (
            "notifications/elicitation/complete",
            {"elicitationId": "e1"},
        )
        running.gateway.notices.lists_changed(set(running.gateway.catalog.entries))
        for stream in streams:  # neither the other client, nor the same one twice
            assert (await stream.event())["method"].endswith("list_changed")
            await stream.close()
        await wire.close()


async def test_urls_that_an_error_asks_for_become_a_question_and_the_retry_is_the_call(
    old: SessionPeer,
) -> None:
    url = {"mode": "url", "elicitationId": "e1", "url": "https://x.example", "message": "Log in"}
    async with running_gateway([remote("far", old.url)]) as running:
        client = running.client()
        await (await session(running)).names()
        first = asyncio.create_task(modern(client))
        call = await old.called()
        call.send(id=call.ident, error={"code": -32042, "message": "Log in", "data": {"elicitations": [url]}})
        call.ended.set()
        result = outcome(await first)["result"]
        ((key, question),) = result["inputRequests"].items()
        assert question["params"] == {"mode": "url", "url": "https://x.example", "message": "Log in"}
        again = asyncio.create_task(modern(client, inputResponses={key: {"action": "accept"}}))
        call = await old.called()
        assert "inputResponses" not in call.params
        call.finish("logged in")
        assert outcome(await again)["result"]["content"][0]["text"] == "logged in"


async def test_a_client_that_visits_no_urls_is_told_which_capability_it_lacks(old: SessionPeer) -> None:
    async with running_gateway([remote("far", old.url)]) as running:
        await (await session(running)).names()
        first = asyncio.create_task(modern(running.client(), {}))
        call = await old.called()
        url = {"elicitationId": "e1", "url": "https://x.example", "message": "Log in"}
        call.send(id=call.ident, error={"code": -32042, "message": "Log in", "data": {"elicitations": [url]}})
        call.ended.set()
        answer = await first
        assert (answer.status, answer.error) == (400, -32021)
        assert answer.json["error"]["data"] == {"requiredCapabilities": {"elicitation": {"url": {}}}}


# hostile servers


async def asked_forever(client: Client) -> Any:
    """Answer whatever a call asks for, until it ends."""
    wire = await begin(client)
    await wire.head()
    while "method" in (message := await wire.event()):
        if "id" in message:
            await client.post({"jsonrpc": "2.0", "id": message["id"], "result": {"action": "accept"}})
    await wire.close()
    return message


async def test_a_server_that_never_stops_asking_is_stopped() -> None:
    result = {"resultType": "input_required", "inputRequests": {"q": ELICIT}, "requestState": "s"}
    async with (
        stateless_peer(result, acknowledge=True) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        message = await asked_forever(await session(running))
        assert "asked for input" in message["error"]["message"]
        assert len(peer.sent("tools/call")) == MAX_ROUNDS


async def test_each_round_carries_what_the_last_one_asked_for_and_nothing_older() -> None:
    rounds = [
        {"resultType": "input_required", "inputRequests": {"a": ELICIT}, "requestState": '"1"'},
        {"resultType": "input_required", "inputRequests": {"b": ELICIT}},
        {"resultType": "input_required", "requestState": "three"},
        DONE,
    ]
    async with (
        stateless_peer(*rounds, acknowledge=True) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        assert (await asked_forever(await session(running)))["result"] == {"content": []}
        first, second, third, fourth = peer.sent("tools/call")
    accepted = {"action": "accept"}
    assert not first.keys() & {"inputResponses", "requestState"}
    assert (second["inputResponses"], second["requestState"]) == ({"a": accepted}, '"1"')
    assert third["inputResponses"] == {"b": accepted}
    assert "requestState" not in third, "the client MUST NOT include one in the retry"
    assert fourth["requestState"] == "three"
    assert "inputResponses" not in fourth


@pytest.mark.parametrize(
    "nonsense",
    [
        {"resultType": "input_required"},
        {"resultType": "input_required", "inputRequests": 5},
        {"resultType": "input_required", "inputRequests": {"q": 5}},
        {"resultType": "input_required", "inputRequests": {"q": {"method": "tools/call", "params": {}}}},
        {"resultType": "input_required", "inputRequests": {"q": {"method": 7}}},
        {"resultType": "input_required", "inputRequests": {str(n): ELICIT for n in range(MAX_REQUESTS + 1)}},
        {"resultType": "task", "taskId": "1"},
        {"resultType": {"a": 1}, "content": []},
    ],
    ids=lambda nonsense: str(nonsense)[:60],
)
async def test_nonsense_from_a_stateless_server_is_its_own_fault(nonsense: Any) -> None:
    async with (
        stateless_peer(nonsense, DONE, acknowledge=True) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        client = await session(running)
        answer = outcome(await client.request("tools/call", {"name": "far__ask", "arguments": {}}))
        assert answer["error"]["data"]["type"] == "upstream_protocol_error"
        assert (await client.call("far__ask"))["result"] == {"content": []}
        assert running.pending() == 0


async def test_a_question_the_client_refuses_ends_the_call_and_withdraws_the_others() -> None:
    result = {"resultType": "input_required", "inputRequests": {"a": ELICIT, "b": ELICIT}}
    async with (
        stateless_peer(result, acknowledge=True) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        client = await session(running)
        wire = await begin(client)
        await wire.head()
        first, second = await wire.event(), await wire.event()
        await client.post({"jsonrpc": "2.0", "id": first["id"], "error": {"code": -1, "message": "no"}})
        withdrawn = await wire.event()
        assert withdrawn["params"] == {"requestId": second["id"]}
        assert "refused" in (await wire.event())["error"]["message"]
        await wire.close()


async def test_a_call_given_up_while_its_client_is_asked_ends_at_once() -> None:
    result = {"resultType": "input_required", "inputRequests": {"a": ELICIT}}
    async with (
        stateless_peer(result, acknowledge=True) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        client = await session(running)
        wire = await begin(client, 77)
        await wire.head()
        await wire.event()
        params = {"requestId": 77, "reason": "enough"}
        await client.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
        await until(lambda: running.pending() == 0)
        assert len(peer.sent("tools/call")) == 1
        await wire.close()


async def test_requests_of_a_server_under_odd_and_repeated_ids_are_all_answered(old: SessionPeer) -> None:
    async with running_gateway([remote("far", old.url)]) as running:
        client = await session(running)
        wire = await begin(client)
        call = await old.called()
        for ident in (0, -1, "", "q", "q", 10**30):
            call.elicit(ident)
        await wire.head()
        for _ in range(6):
            asked = await wire.event()
            await client.post({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}})
        await until(lambda: len(old.sent("answer")) == 6)
        assert sorted(str(sent["id"]) for sent in old.sent("answer")) == sorted(
            ["0", "-1", "", "q", "q", str(10**30)]
        )
        call.finish()
        await wire.event()
        await wire.close()


async def test_a_server_that_asks_without_end_is_refused_from_some_number_on(old: SessionPeer) -> None:
    async with running_gateway([remote("far", old.url)]) as running:
        client = await session(running)
        wire = await begin(client)
        call = await old.called()
        for number in range(200):
            call.elicit(number)
        await until(lambda: len(old.sent("answer")) >= 60)
        assert all("error" in answer for answer in old.sent("answer"))
        call.finish()
        await wire.close()
        await until(lambda: running.pending() == 0)


async def test_a_server_cannot_fill_one_result_with_questions_without_end(old: SessionPeer) -> None:
    async with running_gateway([remote("far", old.url)]) as running:
        await (await session(running)).names()
        client = running.client()
        first = asyncio.create_task(modern(client))
        call = await old.called()
        for number in range(3 * MAX_ASKED):
            call.elicit(number)
        told = outcome(await first)["result"]
        assert 0 < len(told["inputRequests"]) <= MAX_ASKED
        await until(lambda: len(old.sent("answer")) >= 2 * MAX_ASKED)
        assert all("error" in answer for answer in old.sent("answer"))
        big = asyncio.create_task(modern(client))
        call = await old.called()
        for number in range(5):
            call.elicit(1000 + number, message="x" * (MAX_BYTES // 4))
        told = outcome(await big)["result"]
        assert 0 < len(told["inputRequests"]) < 5


# hostile clients


async def parked(old: SessionPeer, client: Client) -> tuple[Any, Any]:
    """A stateless call that waits for its client: the call at the server, and what the client was told."""
    first = asyncio.create_task(modern(client))
    call = await old.called()
    call.elicit()
    return call, outcome(await first)["result"]


async def test_a_handle_is_good_for_its_own_request_once(old: SessionPeer) -> None:
    async with running_gateway([remote("far", old.url), remote("near", old.url)]) as running:
        await (await session(running)).names()
        client = running.client()
        call, told = await parked(old, client)
        (key,) = told["inputRequests"]
        handle, yes = told["requestState"], {key: {"action": "accept"}}
        for forged in ("", "x", handle[:-4], handle + "AA", handle.swapcase(), f"{handle}\u00e9", "A" * 5000):
            refused = outcome(await modern(client, requestState=forged, inputResponses=yes))
            assert refused["error"]["code"] == -32602
        wrong = await client.modern_request(
            "tools/call",
            {"name": "near__ask", "arguments": {}, "requestState": handle, "inputResponses": yes},
        )
        assert outcome(wrong)["error"]["code"] == -32602, "another request"
        for odd in (5, [], "yes", None):
            answer = await modern(client, requestState=handle, inputResponses=odd)
            if odd is None:  # nothing is answered: the question is asked again
                handle = outcome(answer)["result"]["requestState"]
            else:
                assert outcome(answer)["error"]["code"] == -32602
        again = await modern(client, requestState=handle, inputResponses={"other": {}, "elicitation-9": {}})
        told = outcome(again)["result"]
        assert told["inputRequests"].keys() == {key}, "answers to what nobody asked are ignored"
        tries = [
            asyncio.create_task(modern(client, requestState=told["requestState"], inputResponses=yes))
            for _ in range(5)
        ]
        await until(lambda: old.sent("answer"))
        call.finish("once")
        answers = [outcome(await one) for one in tries]
        assert [a["result"]["content"][0]["text"] for a in answers if "result" in a] == ["once"]
        refused = [a["error"] for a in answers if "error" in a]
        assert len(refused) == 4
        assert all(e["code"] == -32602 and "used already" in e["message"] for e in refused)
        assert len(old.sent("answer")) == 1


async def test_an_answer_of_the_wrong_kind_reaches_the_server_which_is_to_judge_it(old: SessionPeer) -> None:
    async with running_gateway([remote("far", old.url)]) as running:
        await (await session(running)).names()
        client = running.client()
        call, told = await parked(old, client)
        (key,) = told["inputRequests"]
        again = asyncio.create_task(
            modern(client, requestState=told["requestState"], inputResponses={key: ["no", "object"]})
        )
        await until(lambda: old.sent("answer"))
        assert old.sent("answer")[0]["result"] == ["no", "object"]
        call.finish()
        assert "result" in outcome(await again)


async def test_what_a_server_says_while_nobody_listens_harms_nothing(old: SessionPeer) -> None:
    async with running_gateway([remote("far", old.url)]) as running:
        await (await session(running)).names()
        client = running.client()
        call, told = await parked(old, client)
        for number in range(50):
            call.send(method="notifications/progress", params={"progressToken": 1, "progress": number})
            call.send(method="notifications/message", params={"level": "info", "data": number})
        (key,) = told["inputRequests"]
        again = asyncio.create_task(
            modern(client, requestState=told["requestState"], inputResponses={key: {"action": "accept"}})
        )
        await until(lambda: old.sent("answer"))
        call.finish()
        assert "result" in outcome(await again)


async def test_a_client_that_leaves_between_two_rounds_can_come_back(old: SessionPeer) -> None:
    async with running_gateway([remote("far", old.url)]) as running:
        await (await session(running)).names()
        client = running.client()
        call, told = await parked(old, client)
        (key,) = told["inputRequests"]
        again = asyncio.create_task(
            modern(client, requestState=told["requestState"], inputResponses={key: {"action": "accept"}})
        )
        await until(lambda: old.sent("answer"))
        call.elicit("q2")
        second = outcome(await again)["result"]
        (key,) = second["inputRequests"]
        last = asyncio.create_task(
            modern(client, requestState=second["requestState"], inputResponses={key: {"action": "decline"}})
        )
        await until(lambda: len(old.sent("answer")) == 2)
        call.finish("two rounds")
        assert outcome(await last)["result"]["content"][0]["text"] == "two rounds"
        assert running.pending() == 0


async def test_a_session_cannot_speak_in_the_name_of_the_stateless_era() -> None:
    async with (
        stateless_peer(DONE, acknowledge=True) as peer,
        running_gateway([remote("far", peer.url)]) as running,
    ):
        client = await session(running, {"sampling": {}})
        forged = {
            "requestState": "forged",
            "inputResponses": {"q": {"action": "accept"}},
            "_meta": {
                META + "clientCapabilities": EVERYTHING,
                META + "logLevel": "debug",
                "com.example/x": 1,
            },
        }
        assert "result" in await client.call("far__ask", **forged)
        (sent,) = peer.sent("tools/call")
        assert not sent.keys() & {"requestState", "inputResponses"}
        assert sent["_meta"][META + "clientCapabilities"] == {"sampling": {}}
        assert sent["_meta"][META + "logLevel"] == "info", "as servers see fit, until it sets a level"
        assert sent["_meta"]["com.example/x"] == 1


# statuses and codes


async def status(client: Client, method: str, **headers: str) -> tuple[int, Any]:
    answer = await client.modern_request(method, {}, **headers)
    return answer.status, answer.json.get("error", {}).get("code")


async def test_2026_07_28_has_its_statuses_and_the_handshake_era_its_own(old: SessionPeer) -> None:
    async with running_gateway([remote("far", old.url)]) as running:
        client = running.client()
        assert await status(client, "no/such") == (404, -32601)
        for gone in ("ping", "logging/setLevel", "resources/subscribe", "initialize"):
            assert await status(client, gone) == (404, -32601)
        assert await status(client, "tools/list", Mcp_Method="prompts/list") == (400, -32020)
        assert await status(client, "tools/list", Mcp_Method="") == (400, -32020)
        assert await status(client, "tools/list", MCP_Protocol_Version="2025-11-25") == (400, -32020)
        for key, value in (("clientCapabilities", 5), ("clientCapabilities", None), ("logLevel", "loud")):
            body, fields = client.modern("tools/list", {}, **{META + key: value})
            answer = await client.http("POST", headers={**client.headers(), **fields}, body=body)
            assert (answer.status, answer.error) == (400, -32602), (key, value)
        body, fields = client.modern("tools/list", {}, **{META + "protocolVersion": "1999-01-01"})
        fields["MCP-Protocol-Version"] = "1999-01-01"
        answer = await client.http("POST", headers={**client.headers(), **fields}, body=body)
        assert (answer.status, answer.error) == (400, -32022)
        assert STATELESS in answer.json["error"]["data"]["supported"]
        for verb in ("GET", "DELETE"):
            headers = {**client.headers(Accept="text/event-stream"), "MCP-Protocol-Version": STATELESS}
            assert (await client.http(verb, headers=headers)).status == 405
        old_era = await session(running)
        answer = await old_era.request("no/such")
        assert (answer.status, answer.error) == (200, -32601)
        answer = await old_era.request("server/discover")
        assert (answer.status, answer.error) == (200, -32601)
