"""JSON with comments: the values of json.loads, and the right line for a fault."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.jsonc import MAX_DEPTH, JsoncError, parse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Equal, and of equal types (1 is not 1.0 and not True)."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@given(value=VALUES, indent=st.sampled_from([None, 0, 2]), ascii_only=st.booleans())
def test_it_agrees_with_json_loads(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert same(parse(text).value, json.loads(text))


@given(text=st.text('[]{}",:0123456789.-+eE\\ truefalsn/*\n\t', max_size=20))
def test_whatever_json_loads_takes_it_takes_alike_and_it_never_fails_otherwise(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        fault: JsoncError | None = None
        try:
            parse(text)
        except JsoncError as error:
            fault = error
        assert fault is None or (1 <= fault.line <= text.count("\n") + 1 and fault.column >= 1)
    else:
        assert same(parse(text).value, expected)


@given(value=VALUES, data=st.data())
def test_comments_and_trailing_commas_change_nothing(value: Any, data: st.DataObject) -> None:
    comma = st.booleans()
    blank = st.sampled_from(["", " ", "\n", '// a " { comment\n', "/* b } * / */", "/**/\t"])

    def spell(item: Any) -> str:
        def gap() -> str:
            return str(data.draw(blank))

        parts: list[str]
        if isinstance(item, dict):
            parts = [f"{gap()}{json.dumps(key)}{gap()}:{spell(inner)}" for key, inner in item.items()]
        elif isinstance(item, list):
            parts = [spell(inner) for inner in item]
        else:
            return gap() + json.dumps(item) + gap()
        opening, closing = ("{", "}") if isinstance(item, dict) else ("[", "]")
        trailing = data.draw(comma)
        tail = "," if parts and trailing else ""
        return gap() + opening + ",".join(parts) + tail + gap() + closing + gap()

    assert same(parse(spell(value)).value, value)


@given(
    value=st.dictionaries(st.text(min_size=1, max_size=4), VALUES, min_size=1, max_size=5),
    data=st.data(),
    fault=st.sampled_from(["@", "'x'", "]", ":"]),
)
def test_an_injected_fault_is_reported_on_its_line(value: Any, data: st.DataObject, fault: str) -> None:
    lines = ["{", *(f"  {json.dumps(key)}: {json.dumps(item)}," for key, item in value.items()), "}"]
    number = data.draw(st.integers(1, len(lines) - 1))
    lines.insert(number, f"    {fault}")
    with pytest.raises(JsoncError) as caught:
        parse("\n".join(lines))
    assert (caught.value.line, caught.value.column) == (number + 1, 5)


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "found the end, expected a JSON value"),
        ("  // nothing\n", 2, 1, "found the end, expected a JSON value"),
        ('{"a": 1 "b": 2}', 1, 9, """found '"', expected "," or "}\""""),
        ('{"a" 1}', 1, 6, """found '1', expected ":\""""),
        ("{a: 1}", 1, 2, """found 'a', expected a key in double quotes or "}\""""),
        ('{"a":\n nope}', 2, 2, "found 'nope', expected a JSON value"),
        ('{"a": NaN}', 1, 7, "found 'NaN', expected a JSON value"),
        ("[1,,2]", 1, 4, "found ',', expected a JSON value"),
        ("[1] []", 1, 5, "found '[', expected the end of the file"),
        ("[1,\n/* never", 2, 1, "found a comment without end, expected */ at the end of the comment"),
        ('{"a": "x\n"}', 1, 9, "Invalid control character"),
        ('{"a": "x', 1, 7, "Unterminated string"),
        ('["\\q"]', 1, 3, "Invalid \\escape"),
        ("9" * 5000, 1, 1, "found a number of 5000 digits, expected fewer digits"),
        ("[" * 200, 1, MAX_DEPTH + 1, "found another level of nesting"),
    ],
)
def test_a_fault_names_line_column_and_what_belongs_there(
    text: str, line: int, column: int, message: str
) -> None:
    with pytest.raises(JsoncError) as caught:
        parse(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert message in str(caught.value)


def test_a_fault_shows_little_of_what_stands_there() -> None:
    with pytest.raises(JsoncError) as caught:
        parse('{"token": sk-very-long-secret-value}')
    assert "secret" not in str(caught.value)


def test_every_value_knows_where_it_was_written() -> None:
    text = '\ufeff// mine\n{\n  "a": [1,\n    {"b": null}],\r\n  "c": "x"\n}\n'
    document = parse(text)
    assert document.value == {"a": [1, {"b": None}], "c": "x"}
    assert document.position(()) == (2, 1)
    assert document.position(("a",)) == (3, 3)
    assert document.position(("a", 0)) == (3, 9)
    assert document.position(("a", 1, "b")) == (4, 6)
    assert document.position(("c",)) == (5, 3)
    assert document.position(("a", 1, "not there", "deeper")) == (4, 5)


def test_a_key_given_twice_is_reported_and_the_last_stands() -> None:
    document = parse('{"a": {"x": 1},\n "b": 2,\n "a": {"y": 3}}')
    assert document.value == {"a": {"y": 3}, "b": 2}
    assert [path for path, _ in document.repeated] == [("a",)]
    assert document.lines.position(document.repeated[0][1]) == (3, 2)
    assert document.position(("a", "y")) == (3, 8)
    assert document.position(("a", "x")) == (3, 2)
