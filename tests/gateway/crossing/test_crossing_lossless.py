"""Nothing is lost on the way but what the table of rewrites says: generated messages, through every cell.

A real gateway stands before a server that answers with the very bytes it is told to. Numbers are
compared as they are spelled, so that 1.10, 1e400 and 30 digits have to arrive as they left.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from crossing_parts import SERVERS, entry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_caller import META, STATELESS, RawCaller, exact, member, spell
from yard import raw_client, serving, until

from gateway import jsonrpc
from gateway.bridge.rewrites import Leg
from gateway.bridge.table import CROSSINGS, ROUTED, Part, rewrites

MIRROR = Path(__file__).with_name("mirror_peer.py")
REVISIONS = ("2024-11-05", "2025-06-18", "2025-11-25", STATELESS)
SERVER_INFO = {"name": "mirror", "version": "1"}
LEG_OWN = {f"{META}{name}" for name in ("protocolVersion", "clientInfo", "clientCapabilities", "logLevel")}

# JSON text

numbers = st.sampled_from(
    ["0", "-0.0", "1.10", "1e400", "-2.5E-7", "9007199254740993", "1" * 30, "0.1000000000000000055"]
) | st.integers(-(2**70), 2**70).map(str)
strings = st.builds(
    json.dumps,
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
    | st.sampled_from(["\u2028", "a\u0000b", "🌍", "\u202ertl", "é́", '"\\/', "input_required"]),
    ensure_ascii=st.booleans(),
)
scalars = numbers | strings | st.sampled_from(["null", "true", "false"])
keys = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=8
) | st.sampled_from(
    ["$ref", "$defs", "anyOf", "x-vendor", "icons", "annotations", "_meta", "title", "type", "com.example/x"]
)


def objects(values: st.SearchStrategy[str], least: int = 0) -> st.SearchStrategy[str]:
    return st.dictionaries(keys, values, min_size=least, max_size=4).map(spell)


values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: "[" + ", ".join(items) + "]") | objects(inner)
    ),
    max_leaves=12,
) | st.integers(20, 90).map(lambda deep: "[" * deep + "1.0" + "]" * deep)
vendor = st.dictionaries(
    st.sampled_from(["com.example/a", "example.test/b", "traceparent", "baggage", "org.x/", "plain"]),
    values,
    max_size=4,
)
unknown = st.dictionaries(keys.map(lambda key: f"x-{key}"), values, max_size=3)
annotations = st.just(
    '{"audience":["user"],"priority":0.50,"lastModified":"2025-01-12T15:00:58Z"}'
) | objects(scalars)
blocks = st.one_of(
    st.builds(lambda text, more: spell({"type": '"text"', "text": text, **more}), strings, unknown),
    st.builds(
        lambda data, a: spell(
            {"type": '"audio"', "data": f'"{data}"', "mimeType": '"audio/wav"', "annotations": a}
        ),
        st.sampled_from(["UklGRg==", ""]),
        annotations,
    ),
    st.builds(
        lambda name, more: spell({"type": '"resource_link"', "uri": '"x://y"', "name": name, **more}),
        strings,
        unknown,
    ),
    objects(values),
)


@st.composite
def results(draw: st.DrawFn) -> dict[str, str]:
    """The members of a tool's result."""
    fields = {"content": "[" + ",".join(draw(st.lists(blocks, max_size=4))) + "]", **draw(unknown)}
    if draw(st.booleans()):
        fields["structuredContent"] = draw(values)
    if draw(st.booleans()):
        fields["isError"] = draw(st.sampled_from(["true", "false"]))
    if meta := draw(vendor):
        fields["_meta"] = spell(meta)
    return fields


# cells


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One gateway before a mirror of either era over either transport."""
    with ExitStack() as stack:
        servers = {name: entry(stack, MIRROR, *_flags(name)) for name in SERVERS}
        yard = stack.enter_context(serving(tmp_path_factory.mktemp("mirrors"), servers))
        with raw_client(yard) as client:
            until("tools of every server", lambda: True if len(client.names()) >= 16 else None)
        yield yard.url


def _flags(name: str) -> tuple[str, str]:
    era, transport = name.split("-")
    return era, transport


@pytest.fixture(scope="module", params=REVISIONS)
def caller(request: pytest.FixtureRequest, url: str) -> Iterator[RawCaller]:
    """A client of each revision that differs."""
    caller = RawCaller(url, request.param)
    yield caller
    caller.close()


def revision_of(server: str) -> str:
    return STATELESS if server.startswith("stateless") else "2025-11-25"


def predicted(part: Part, caller: RawCaller, server: str, method: str, fields: str) -> Any:
    """What the table makes of it."""
    shallow = jsonrpc.shallow(fields.encode())
    leg = Leg(server, method, server_info=jsonrpc.raw(SERVER_INFO))
    for rewrite in rewrites(part, caller.revision, revision_of(server), method):
        shallow = rewrite(shallow, leg)
    return exact(jsonrpc.encode(shallow))


often = settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def in_era(server: str, fields: dict[str, str]) -> dict[str, str]:
    """A complete result of the server's era."""
    return {**fields, "resultType": '"complete"'} if server.startswith("stateless") else fields


@often
@given(result=results())
def test_a_result_arrives_as_the_table_says(caller: RawCaller, server: str, result: dict[str, str]) -> None:
    sent = spell(in_era(server, result))
    params = caller.params({"name": f'"{server}__mirror"', "arguments": spell({"reply": json.dumps(sent)})})
    answer = caller.request("tools/call", params)
    assert exact(member(answer, "result")) == predicted(Part.RESULT, caller, server, "tools/call", sent)
    if caller.revision == revision_of(server):
        assert member(answer, "result") == sent, "nothing is crossed, so the bytes are the server's own"


@often
@given(arguments=objects(values), meta=st.none() | vendor, more=unknown)
def test_params_arrive_as_the_table_says(
    caller: RawCaller, server: str, arguments: str, meta: dict[str, str] | None, more: dict[str, str]
) -> None:
    params = caller.params({"name": f'"{server}__mirror"', "arguments": arguments, **more}, meta)
    if exact(arguments).keys() & {"reply", "error"}:
        return
    answer = json.loads(caller.request("tools/call", params))["result"]["content"][0]["text"]
    got = exact(member(answer, "params"))
    wanted = predicted(Part.PARAMS, caller, server, "tools/call", params)
    assert got.pop("name") == "mirror", "the server's own name (ROUTED)"
    del wanted["name"]
    told = got.pop("_meta", {})
    kept = wanted.pop("_meta", {})
    if revision_of(server) == STATELESS:
        assert told[f"{META}protocolVersion"] == STATELESS
        capabilities = told[f"{META}clientCapabilities"]
        assert {"sampling", "elicitation"} <= capabilities.keys()
    else:
        assert not told.keys() & LEG_OWN
    strip = {key: value for key, value in told.items() if key not in LEG_OWN}
    assert strip == {key: value for key, value in kept.items() if key not in LEG_OWN}
    assert got == wanted


@often
@given(
    era=st.sampled_from(["handshake", "stateless"]),
    contents=st.lists(objects(values), max_size=3),
    meta=vendor,
    more=unknown,
)
def test_a_resource_arrives_as_the_table_says(
    caller: RawCaller, era: str, contents: list[str], meta: dict[str, str], more: dict[str, str]
) -> None:
    server = f"{era}-stdio"
    hints = {"ttlMs": "60000", "cacheScope": '"public"'} if era == "stateless" else {}
    sent = spell(
        in_era(server, {"contents": "[" + ",".join(contents) + "]", "_meta": spell(meta), **more, **hints})
    )
    answer = caller.request("resources/read", caller.params({"uri": f'"{era}:{sent.encode().hex()}"'}))
    assert exact(member(answer, "result")) == predicted(Part.RESULT, caller, server, "resources/read", sent)


questions = st.builds(
    lambda message, meta, more, fields: spell(
        {
            "method": '"elicitation/create"',
            "params": spell(
                {
                    "message": message,
                    "requestedSchema": spell({"type": '"object"', "properties": spell(fields)}),
                    **({"_meta": spell(meta)} if meta else {}),
                    **more,
                }
            ),
        }
    ),
    strings,
    vendor,
    unknown,
    st.dictionaries(
        keys,
        st.just('{"type":"string","title":"T","minLength":1.0}')
        | st.just('{"type":"string","oneOf":[{"const":"a","title":"A"},{"const":"b"}]}'),
        max_size=3,
    ),
)


@often
@given(ask=questions, content=objects(values), more=unknown)
def test_a_question_and_its_answer_arrive_as_the_table_says(
    caller: RawCaller, server: str, ask: str, content: str, more: dict[str, str]
) -> None:
    fields = {"name": f'"{server}__ask"', "arguments": spell({"ask": json.dumps(ask)})}
    reply = spell({"action": '"accept"', "content": content, **more})
    caller.seen.clear()
    caller.answer = lambda message: reply
    answer = caller.request("tools/call", caller.params(fields))
    if caller.stateless:
        wanted = json.loads(member(answer, "result"))
        assert wanted["resultType"] == "input_required"
        (key,) = wanted["inputRequests"]
        asked = member(answer, "result", "inputRequests", key)
        back = {"inputResponses": spell({key: reply}), "requestState": json.dumps(wanted["requestState"])}
        answer = caller.request("tools/call", caller.params({**fields, **back}))
    else:
        (asked,) = caller.seen
    assert exact(member(asked, "params")) == predicted(
        Part.ASK, caller, server, "elicitation/create", member(ask, "params")
    )
    said = exact(json.loads(answer)["result"]["content"][0]["text"])
    said = said["q"] if server.startswith("stateless") else said
    assert said == predicted(Part.ANSWER, caller, server, "elicitation/create", reply)


def test_definitions_keep_what_they_do_not_share_with_anybody(caller: RawCaller) -> None:
    tools = {
        tool["name"]: tool
        for tool in exact(caller.request("tools/list", caller.params({})))["result"]["tools"]
    }
    for server in SERVERS:
        assert tools[f"{server}__mirror"]["x-vendor"] == {"a": ("number", "1.5")}
        crossed = server.startswith("stateless") and not caller.stateless
        assert ("outputSchema" in tools[f"{server}__list"]) is not crossed
        odd = tools[f"{server}__odd"]["inputSchema"]["properties"]
        assert odd == ({"any": {}, "none": {"not": {}}} if crossed else {"any": True, "none": False})


@pytest.mark.parametrize("revision", [*REVISIONS, "2025-03-26"])
def test_between_equal_revisions_there_is_nothing_to_rewrite(revision: str) -> None:
    for row in CROSSINGS:
        assert not (revision in row.caller and revision in row.server), row.what
    assert ROUTED
