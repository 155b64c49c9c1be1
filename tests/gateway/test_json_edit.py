"""Changing one entry of a file that people write leaves every other byte as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.config import edit, jsonc

ENTRY = {"command": "/opt/toolyard", "args": ["stdio"]}
BLANKS = st.sampled_from(
    ["", " ", "  ", "\t", "\n", "\n  ", "\r\n    ", "\n\n", " // a, b } ]\n", "/* c, } */", "\n// d\n  "]
)
KEYS = st.sampled_from(["a", "b", "http://x // y", 'quote"', "é", "{", "c,"])
VALUES = st.recursive(
    st.sampled_from(['"x"', "1.50", "true", "null", '"// no comment"', '"}"', "{}", "[]"]),
    lambda inner: st.builds(lambda a, b, c: f"[{a}{b}{c}]", BLANKS, inner, BLANKS),
    max_leaves=2,
)


@st.composite
def objects(draw: st.DrawFn, extra: str | None = None, extra_key: str = "") -> str:
    """The text of an object with comments and blanks anywhere, and perhaps a trailing comma."""
    keys = draw(st.lists(KEYS, unique=True, max_size=3))
    members = [(json.dumps(key), draw(VALUES)) for key in keys]
    if extra is not None:
        members.insert(draw(st.integers(0, len(members))), (json.dumps(extra_key), extra))
    parts = []
    for number, (key, value) in enumerate(members):
        last = number == len(members) - 1
        comma = draw(st.sampled_from(["", ","])) if last else ","
        blanks = [draw(BLANKS) for _ in range(4)]
        parts.append(f"{blanks[0]}{key}{blanks[1]}:{blanks[2]}{value}{blanks[3]}{comma}")
    return "{" + "".join(parts) + draw(BLANKS) + "}"


@st.composite
def files(draw: st.DrawFn) -> str:
    section = draw(st.none() | objects())
    root = draw(objects(extra=section, extra_key="mcpServers"))
    return draw(st.sampled_from(["", "\ufeff"])) + draw(BLANKS) + root + draw(BLANKS)


def value(text: str) -> dict[str, Any]:
    found = jsonc.parse(text).value
    assert isinstance(found, dict)
    return found


@given(files())
@example('{"mcpServers": {"a": 1} // end\n}')
def test_an_entry_put_in_is_there_and_all_the_rest_is_as_it_was(text: str) -> None:
    pieces = edit.put(text, "mcpServers", "toolyard", ENTRY)
    assert all(piece.begin == piece.end for piece in pieces)  # nothing is taken away, only put in
    changed = edit.apply(text, pieces)
    before, after = value(text), value(changed)
    assert after["mcpServers"] == {**before.get("mcpServers", {}), "toolyard": ENTRY}
    assert list(after["mcpServers"])[-1] == "toolyard"
    assert {**after, "mcpServers": None} == {**before, "mcpServers": None}


@given(files())
def test_an_entry_taken_out_again_leaves_the_text_it_was_put_into(text: str) -> None:
    changed = edit.apply(text, edit.put(text, "mcpServers", "toolyard", ENTRY))
    again = edit.apply(changed, edit.remove(changed, "mcpServers", "toolyard"))
    before = value(text)
    assert value(again) == {**before, "mcpServers": before.get("mcpServers", {})}
    for comment in ("// a, b } ]", "/* c, } */", "// d"):
        assert again.count(comment) == text.count(comment)


@given(files(), st.sampled_from([{"url": "http://h/mcp"}, {}, {"command": "x", "args": []}]))
def test_an_entry_replaced_changes_its_own_bytes_alone(text: str, other: dict[str, Any]) -> None:
    first = edit.apply(text, edit.put(text, "mcpServers", "toolyard", ENTRY))
    (piece,) = edit.put(first, "mcpServers", "toolyard", other)
    assert json.loads(first[piece.begin : piece.end]) == ENTRY
    assert value(edit.apply(first, (piece,)))["mcpServers"]["toolyard"] == other


@given(files())
def test_taking_out_what_is_not_there_changes_nothing(text: str) -> None:
    assert edit.remove(text, "mcpServers", "toolyard") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}\n", '{\n  "mcpServers": {\n    "toolyard": 1\n  }\n}\n'),
        ('{"mcpServers": {}}', '{"mcpServers": {"toolyard": 1}}'),
        ('{"mcpServers": {"a": 2}}', '{"mcpServers": {"a": 2, "toolyard": 1}}'),
        (
            '{\n\t"mcpServers": {\n\t\t"a": 2 // two\n\t}\n}',
            '{\n\t"mcpServers": {\n\t\t"a": 2, // two\n\t\t"toolyard": 1\n\t}\n}',
        ),
        (
            '{\r\n  "mcpServers": {\r\n    "a": 2,\r\n  },\r\n}\r\n',
            '{\r\n  "mcpServers": {\r\n    "a": 2,\r\n    "toolyard": 1,\r\n  },\r\n}\r\n',
        ),
    ],
)
def test_an_entry_looks_like_its_neighbours_and_goes_without_a_trace(text: str, expected: str) -> None:
    pieces = edit.put(text, "mcpServers", "toolyard", 1)  # type: ignore[arg-type]
    changed = edit.apply(text, pieces)
    assert changed == expected
    if "a" in value(text).get("mcpServers", {}):
        assert edit.apply(changed, edit.remove(changed, "mcpServers", "toolyard")) == text


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"mcpServers": []}',
        '{"mcpServers": {"toolyard": 1, "toolyard": 2}}',
        '{"mcpServers": {}, "mcpServers": {}}',
    ],
)
def test_a_file_without_a_plain_place_for_the_entry_is_refused_with_the_line(text: str) -> None:
    with pytest.raises(edit.CannotEdit, match=r"^1:\d+: "):
        edit.put(text, "mcpServers", "toolyard", ENTRY)
