"""JSON-RPC framing: what is a message, what is refused, and that no byte of the rest is touched."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import jsonrpc, protocol
from gateway.errors import RpcError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=6), children, max_size=4)
    ),
    max_leaves=12,
)


def code(data: bytes) -> int:
    with pytest.raises(RpcError) as caught:
        jsonrpc.parse(data)
    return caught.value.code


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b'{"a":1',
        b'{"a":1}}',
        b'{"a":1} x',
        b"{'a':1}",
        b'{"a":01}',
        b'{"a":NaN}',
        b'{"a":1,}',
        b'{"a":"\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"a":"\\ud800"}',
        b'{"a":"\x00"}',
        b"\x00" * 100,
        b'{"a":"\\q"}',
        '{"a":1}'.encode("utf-16"),
    ],
)
def test_what_is_not_json_in_utf8_is_a_parse_error(data: bytes) -> None:
    assert code(data) == protocol.PARSE_ERROR


@pytest.mark.parametrize(
    "data", [b"1", b'"text"', b"null", b"true", b"[]", b"[1]", b"[[]]", b'[{"a":1},null]']
)
def test_json_that_is_no_object_is_an_invalid_request(data: bytes) -> None:
    assert code(data) == protocol.INVALID_REQUEST


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"a":[', b'[{"b":'])
def test_a_nest_of_a_million_levels_is_refused_without_walking_it(opening: bytes) -> None:
    started = time.process_time()
    assert code(b'{"x":' + opening * 1_000_000) == protocol.PARSE_ERROR
    assert time.process_time() - started < 2  # 20 ms


def test_nesting_at_the_limit_passes_and_one_level_more_does_not() -> None:
    def nested(levels: int) -> bytes:
        return b'{"x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"

    assert jsonrpc.parse(nested(jsonrpc.MAX_DEPTH))
    assert code(nested(jsonrpc.MAX_DEPTH + 1)) == protocol.PARSE_ERROR


def test_brackets_inside_strings_are_no_nesting() -> None:
    text = json.dumps({"x": '[{"' * 5000 + "\\"}).encode()
    assert isinstance(jsonrpc.parse(text), dict)


@pytest.mark.parametrize("ident", [b"null", b"1.5", b"1e3", b"true", b"{}", b"[1]", b"-"])
def test_an_id_is_a_string_or_an_integer_and_nothing_else(ident: bytes) -> None:
    with pytest.raises(RpcError) as caught:
        jsonrpc.request_id({"id": msgspec.Raw(ident)})
    assert caught.value.code == protocol.INVALID_REQUEST


@pytest.mark.parametrize("ident", [b"0", b"-7", b'"a"', b'""', b"9" * 5000, '"\U0001f600"'.encode()])
def test_a_valid_id_comes_back_byte_for_byte(ident: bytes) -> None:
    found = jsonrpc.request_id(jsonrpc.shallow(b'{"id":' + ident + b"}"))
    assert found is not None
    assert bytes(found) == ident
    assert jsonrpc.result(found, b"{}") == b'{"jsonrpc":"2.0","id":' + ident + b',"result":{}}'


@given(st.dictionaries(st.text(), JSON))
def test_every_object_comes_back_as_it_was(value: dict[str, Any]) -> None:
    data = json.dumps(value).encode()
    message = jsonrpc.parse(data)
    assert isinstance(message, dict)
    assert json.loads(jsonrpc.encode(message)) == value
    for item in message.values():
        assert bytes(item) in data


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_typed_error(data: bytes) -> None:
    fault = None
    try:
        jsonrpc.parse(data)
    except RpcError as error:
        fault = error.to_error()
    assert fault is None or fault["code"] in (protocol.PARSE_ERROR, protocol.INVALID_REQUEST)
    assert jsonrpc.encode(fault)


@given(st.text())
def test_a_string_is_read_as_it_was_written(text: str) -> None:
    for data in (json.dumps(text).encode(), json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")):
        if "\\ud" not in data.decode() or text.isprintable():
            try:
                item = jsonrpc.shallow(b'{"a":' + data + b"}")["a"]
            except msgspec.MsgspecError:
                continue  # half a surrogate pair is no text
            assert jsonrpc.text(item) == json.loads(data)


@pytest.mark.parametrize("item", [b"1", b"null", b"{}", b"[]", b"true"])
def test_what_is_no_string_reads_as_none(item: bytes) -> None:
    assert jsonrpc.text(msgspec.Raw(item)) is None


def test_a_batch_of_millions_is_refused_before_its_messages_are_looked_at() -> None:
    started = time.process_time()
    assert code(b"[" + b"{}," * 1_000_000 + b"{}]") == protocol.INVALID_REQUEST
    assert time.process_time() - started < 5  # 50 ms
    assert len(jsonrpc.parse(b"[" + b'{"a":1},' * 99 + b"{}]")) == 100
