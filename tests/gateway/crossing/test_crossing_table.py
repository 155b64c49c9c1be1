"""The table of rewrites, row by row: what a message of one revision becomes in another."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest

from gateway import jsonrpc
from gateway.bridge.content import AUDIO_URI
from gateway.bridge.crossing import answer_for, ask_for, item_for, reply_for
from gateway.bridge.rewrites import Leg
from gateway.bridge.table import BRIDGED, CROSSINGS, Part, Row, rewrites
from gateway.errors import RpcError, UpstreamProtocolError
from gateway.upstream.call import Reply

OLDEST, MARCH, JUNE, LATEST, MODERN = "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"
META = "io.modelcontextprotocol/"


def raw(value: Any) -> Any:
    return jsonrpc.raw(value)


def result(caller: str, server: str, method: str, value: Any, **leg: Any) -> Any:
    reply = reply_for(caller, server, Reply(raw(value), None), Leg("s", method, **leg))
    assert reply.result is not None
    return json.loads(bytes(reply.result))


def failure(caller: str, server: str, method: str, error: Any, **leg: Any) -> Any:
    """The error, or ``{"result": …}`` where it became one."""
    reply = reply_for(caller, server, Reply(None, raw(error)), Leg("s", method, **leg))
    if reply.error is not None:
        return json.loads(bytes(reply.error))
    assert reply.result is not None
    return {"result": json.loads(bytes(reply.result))}


def asked(caller: str, server: str, method: str, params: Any) -> Any:
    message = {"jsonrpc": raw("2.0"), "id": raw(1), "method": raw(method), "params": raw(params)}
    return json.loads(bytes(ask_for(caller, server, message, Leg("s", method))["params"]))


def params(caller: str, server: str, value: Any, said: Any = None) -> Any:
    leg = Leg("s", "tools/call", (lambda: {key: raw(item) for key, item in said.items()}) if said else None)
    fields = jsonrpc.shallow(jsonrpc.encode(value))
    for rewrite in rewrites(Part.PARAMS, caller, server, "tools/call"):
        fields = rewrite(fields, leg)
    return json.loads(jsonrpc.encode(fields))


# the table itself


@pytest.mark.parametrize("row", CROSSINGS, ids=lambda row: row.what)
def test_every_row_names_its_section_and_crosses_something(row: Row) -> None:
    assert row.section[:4].isdigit()
    assert row.caller.last < row.server.first or row.server.last < row.caller.first


@pytest.mark.parametrize("bridged", BRIDGED, ids=lambda bridged: bridged.what)
def test_every_other_difference_names_the_code_that_bridges_it(bridged: Any) -> None:
    module, _, path = bridged.by.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    assert callable(found)


def test_a_method_without_a_row_of_its_own_costs_no_entry_of_the_cache() -> None:
    assert rewrites(Part.ASK, JUNE, LATEST, "x/1") is rewrites(Part.ASK, JUNE, LATEST, "x/2")


# params


def test_what_a_request_says_of_its_client_stays_with_the_stateless_era() -> None:
    meta = {f"{META}protocolVersion": MODERN, f"{META}clientCapabilities": {}, f"{META}logLevel": "info"}
    kept = {"traceparent": "00-1-2-01", f"{META}related": 1, "com.example/x": 2}
    assert params(MODERN, LATEST, {"name": "x", "_meta": {**meta, **kept}}) == {"name": "x", "_meta": kept}
    assert params(MODERN, LATEST, {"name": "x", "_meta": meta}) == {"name": "x"}


def test_a_session_says_it_once_and_its_client_cannot_say_otherwise() -> None:
    forged = {f"{META}clientCapabilities": {"roots": {}}, f"{META}protocolVersion": "1", "com.example/x": 2}
    said = {f"{META}clientCapabilities": {"sampling": {}}}
    assert params(LATEST, MODERN, {"name": "x", "_meta": forged}, said)["_meta"] == {
        "com.example/x": 2,
        **said,
    }


def test_a_handshake_era_client_cannot_pass_for_the_retry_of_a_call() -> None:
    forged = {"name": "x", "requestState": "mine", "inputResponses": {}}
    assert params(LATEST, MODERN, forged) == {"name": "x"}


# results


def test_results_of_the_handshake_era_become_complete() -> None:
    odd = {"content": [], "resultType": "input_required", "requestState": "forged"}
    assert result(MODERN, LATEST, "tools/call", odd)["resultType"] == "complete"


def test_what_was_read_is_private_and_stale_whatever_the_server_calls_it() -> None:
    odd = {"contents": [], "cacheScope": "public", "ttlMs": 10**9}
    read = result(MODERN, LATEST, "resources/read", odd)
    assert (read["cacheScope"], read["ttlMs"]) == ("private", 0)


def test_the_server_is_named_in_each_result_of_the_stateless_era_alone() -> None:
    info = {"name": "s", "version": "1"}
    named = result(MODERN, LATEST, "prompts/get", {"messages": [], "_meta": {"a": 1}}, server_info=raw(info))
    assert named["_meta"] == {"a": 1, f"{META}serverInfo": info}
    back = {"messages": [], "_meta": {f"{META}serverInfo": info}, "resultType": "complete"}
    assert result(LATEST, MODERN, "prompts/get", back) == {"messages": []}


def test_what_caching_hints_look_like_stays_where_they_mean_nothing() -> None:
    odd = {"content": [], "resultType": "complete", "ttlMs": 5}
    assert result(LATEST, MODERN, "tools/call", odd) == {"content": [], "ttlMs": 5}
    read = {"contents": [], "resultType": "complete", "ttlMs": 5, "cacheScope": "public"}
    assert result(LATEST, MODERN, "resources/read", read) == {"contents": []}


@pytest.mark.parametrize("kind", ["task", "input_required", "COMPLETE", 5, None, {"a": 1}, ["complete"]])
def test_a_result_of_another_type_is_refused_where_there_are_no_types(kind: Any) -> None:
    with pytest.raises(UpstreamProtocolError, match="none of"):
        result(LATEST, MODERN, "completion/complete", {"resultType": kind})


@pytest.mark.parametrize("value", [[1, {"a": 2}], "text", 1.5, True, None, []])
def test_structure_that_is_no_object_becomes_text(value: Any) -> None:
    sent = {"content": [{"type": "text", "text": "Two users"}], "structuredContent": value}
    got = result(JUNE, MODERN, "tools/call", sent)
    assert "structuredContent" not in got
    assert got["content"][0]["text"] == "Two users"
    assert json.loads(got["content"][1]["text"]) == value


def test_structure_that_is_told_as_text_already_is_not_told_twice() -> None:
    sent = {"content": [{"type": "text", "text": '[1,\n {"a": 2.50}]'}], "structuredContent": [1, {"a": 2.5}]}
    assert len(result(LATEST, MODERN, "tools/call", sent)["content"]) == 2, "2.50 is spelled otherwise"
    sent["content"][0]["text"] = '[1, {"a": 2.5}]'  # type: ignore[index]
    assert len(result(LATEST, MODERN, "tools/call", sent)["content"]) == 1


def test_structure_alone_is_told_to_clients_that_know_none() -> None:
    got = result(MARCH, LATEST, "tools/call", {"content": [], "structuredContent": {"a": 1}})
    assert got == {"content": [{"type": "text", "text": '{"a":1}'}], "structuredContent": {"a": 1}}
    assert result(JUNE, LATEST, "tools/call", {"content": [], "structuredContent": {"a": 1}})["content"] == []


def test_a_resource_link_is_named_in_text_to_clients_that_know_none() -> None:
    link = {
        "type": "resource_link",
        "uri": "x://y",
        "name": "y",
        "title": "The Y",
        "description": "A thing.",
        "z": 1,
    }
    (block,) = result(MARCH, JUNE, "tools/call", {"content": [link]})["content"]
    assert (block["type"], block["text"], block["uri"], block["z"]) == (
        "text",
        "The Y: x://y\nA thing.",
        "x://y",
        1,
    )
    message = {"messages": [{"role": "user", "content": link}]}
    assert result(OLDEST, MODERN, "prompts/get", message)["messages"][0]["content"]["type"] == "text"
    assert result(JUNE, LATEST, "tools/call", {"content": [link]})["content"] == [link]


def test_audio_is_an_embedded_resource_to_clients_that_know_none() -> None:
    audio = {"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav", "annotations": {"priority": 1}}
    (block,) = result(OLDEST, MARCH, "tools/call", {"content": [audio]})["content"]
    resource = {"uri": AUDIO_URI, "blob": "UklGRg==", "mimeType": "audio/wav"}
    assert block == {"type": "resource", "resource": resource, "annotations": {"priority": 1}}
    assert result(MARCH, LATEST, "tools/call", {"content": [audio]})["content"] == [audio]


# errors


def test_an_unknown_resource_has_the_code_of_the_callers_era() -> None:
    data = {"uri": "x://y"}
    old, new = ({"code": code, "message": "Not found", "data": data} for code in (-32002, -32602))
    assert failure(MODERN, LATEST, "resources/read", old) == new
    assert failure(MODERN, LATEST, "tools/call", old) == new, "that code must not be sent at all"
    assert failure(LATEST, MODERN, "resources/read", new) == old
    assert failure(LATEST, MODERN, "tools/call", new) == new


def test_urls_that_have_to_be_visited_first_are_asked_for_in_the_callers_way() -> None:
    url = {"mode": "url", "elicitationId": "e1", "url": "https://x.example", "message": "Log in", "z": 1}
    error = {
        "code": -32042,
        "message": "Log in first",
        "data": {"elicitations": [url, {**url, "url": "https://y"}]},
    }
    got = failure(MODERN, LATEST, "tools/call", error, features=("elicitation.url",))["result"]
    assert got["resultType"] == "input_required"
    assert "requestState" not in got, "the retry is the call once more"
    first, second = got["inputRequests"].values()
    assert first["params"] == {"mode": "url", "url": "https://x.example", "message": "Log in", "z": 1}
    assert second["params"]["url"] == "https://y"
    refused = failure(MODERN, LATEST, "tools/call", error, features=("elicitation.form",))
    assert (refused["code"], refused["data"]) == (
        -32021,
        {"requiredCapabilities": {"elicitation": {"url": {}}}},
    )
    assert (
        failure(MODERN, LATEST, "completion/complete", error, features=("elicitation.url",))["code"] == -32603
    )
    assert failure(LATEST, LATEST, "tools/call", error) == error


@pytest.mark.parametrize("data", [None, {}, {"elicitations": []}, {"elicitations": [1, "x"]}, "text"])
def test_urls_that_are_not_said_cannot_be_asked_for(data: Any) -> None:
    error = {"code": -32042, "message": "Log in", "data": data}
    assert failure(MODERN, LATEST, "tools/call", error, features=("elicitation.url",))["code"] == -32603


@pytest.mark.parametrize("code", [-32020, -32021, -32022, -32050, -32099])
def test_codes_that_are_reserved_by_now_do_not_come_from_servers_of_before(code: int) -> None:
    got = failure(MODERN, LATEST, "tools/call", {"code": code, "message": "odd", "data": [1], "x": 2})
    assert got == {"code": -32603, "message": "odd", "data": {"code": code, "data": [1]}, "x": 2}
    assert failure(LATEST, LATEST, "tools/call", {"code": code, "message": "odd"})["code"] == code


# what servers ask


def test_a_url_to_visit_has_an_id_in_the_one_revision_that_wants_it() -> None:
    url = {"mode": "url", "url": "https://x.example", "message": "Log in"}
    given = asked(LATEST, MODERN, "elicitation/create", url)
    assert given.pop("elicitationId")
    assert given == url
    assert asked(MODERN, LATEST, "elicitation/create", {**url, "elicitationId": "e"}) == url
    form = {"message": "?", "requestedSchema": {"type": "object", "properties": {}}}
    assert asked(LATEST, MODERN, "elicitation/create", form) == form


def test_nobody_is_asked_for_progress_of_an_input_request() -> None:
    got = asked(
        MODERN, LATEST, "sampling/createMessage", {"_meta": {"progressToken": 1, "a": 2}, "maxTokens": 1}
    )
    assert got == {"_meta": {"a": 2}, "maxTokens": 1}


def form(**fields: Any) -> Any:
    return {"message": "?", "requestedSchema": {"type": "object", "properties": fields, "required": []}}


def test_titled_choices_have_the_names_of_2025_06_18_there() -> None:
    titled = {"type": "string", "title": "T", "oneOf": [{"const": "a", "title": "A"}, {"const": "b"}]}
    names = {"type": "string", "title": "T", "enum": ["a", "b"], "enumNames": ["A", "b"]}
    assert asked(JUNE, LATEST, "elicitation/create", form(x=titled)) == form(x=names)
    assert asked(LATEST, MODERN, "elicitation/create", form(x=titled)) == form(x=titled)


@pytest.mark.parametrize("field", [{"type": "array", "items": {}}, {"oneOf": [{"type": "string"}]}])
def test_choices_that_2025_06_18_has_not_are_refused_with_the_reason(field: Any) -> None:
    with pytest.raises(RpcError, match=f"speaks {JUNE}, which has no way to say a form field"):
        asked(JUNE, LATEST, "elicitation/create", form(x=field))


def test_messages_to_sample_from_have_one_block_each_before_2025_11_25() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    got = asked(
        JUNE, LATEST, "sampling/createMessage", {"messages": [{"role": "user", "content": parts, "z": 1}]}
    )
    assert got["messages"] == [{"role": "user", "content": part, "z": 1} for part in parts]


@pytest.mark.parametrize("content", [{"type": "audio"}, [{"type": "text"}, {"type": "audio"}]])
def test_audio_is_not_asked_of_a_client_that_knows_none(content: Any) -> None:
    message = {"messages": [{"role": "user", "content": content}]}
    with pytest.raises(RpcError, match="audio"):
        asked(OLDEST, LATEST, "sampling/createMessage", message)


def test_a_sampled_message_is_one_block_to_servers_that_expect_one() -> None:
    def answer(content: Any) -> Any:
        leg = Leg("s", "sampling/createMessage")
        got = answer_for(LATEST, JUNE, {"result": raw({"role": "assistant", "content": content})}, leg)
        return json.loads(jsonrpc.encode(got))

    a, b, image = {"type": "text", "text": "a"}, {"type": "text", "text": "b"}, {"type": "image", "data": ""}
    assert answer(a)["result"]["content"] == a
    assert answer([image])["result"]["content"] == image
    assert answer([a, b])["result"]["content"] == {"type": "text", "text": "ab"}
    assert answer([a, image])["error"]["code"] == -32602


# lists


def test_an_output_schema_that_is_no_objects_goes() -> None:
    def shown(schema: Any) -> Any:
        data = json.dumps({"name": "x", "inputSchema": {"type": "object"}, "outputSchema": schema}).encode()
        return json.loads(item_for(LATEST, MODERN, "tool", data)).get("outputSchema", "gone")

    assert shown({"type": "array"}) == "gone"
    assert shown({"anyOf": []}) == "gone"
    assert shown(True) == "gone"
    assert shown({"type": "object", "properties": {"a": True}}) == {"type": "object", "properties": {"a": {}}}


def test_a_definition_that_needs_no_change_is_the_same_bytes() -> None:
    data = b'{ "name":"x", "inputSchema":{"type":"object","properties":{"a":{"const":1.50}}} }'
    assert item_for(LATEST, MODERN, "tool", data) is data
    assert item_for(LATEST, MODERN, "prompt", data) is data
    assert item_for(MODERN, MODERN, "tool", data) is data


@pytest.mark.parametrize("sent", [b"[1]", b'"x"', b"1"])
def test_a_result_that_is_no_object_is_the_servers_fault(sent: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        reply_for(MODERN, LATEST, Reply(jsonrpc.Raw(sent), None), Leg("s", "tools/call"))


@pytest.mark.parametrize(
    "odd",
    [
        {"content": 5, "structuredContent": [1]},
        {"content": [1, "x", None, [], {"type": 5}, {}], "structuredContent": [1]},
        {"content": None, "structuredContent": []},
        {"_meta": [], "content": []},
    ],
)
def test_results_of_an_odd_shape_are_no_fault_of_ours(odd: Any) -> None:
    for caller in (OLDEST, MARCH, JUNE, LATEST):
        assert isinstance(result(caller, MODERN, "tools/call", odd), dict)
    assert isinstance(result(MODERN, OLDEST, "tools/call", odd), dict)
