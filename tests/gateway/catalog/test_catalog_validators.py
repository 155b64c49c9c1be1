"""Arguments against schemas, none of which can hang or fetch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.catalog import ValidatorCache
from registry.validation.patterns import PatternError, compiled, search

DIALECTS = [
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-04/schema#",
]
BOMB = r"^(?:(a|aa)+|(a+a?)+)+$"
FUSE = "a" * 60 + "b"


def check(schema: Any, arguments: Any) -> list[str]:
    return ValidatorCache().check("h", json.dumps(schema).encode(), json.dumps(arguments).encode())


def test_valid_arguments_have_no_problems() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert check(schema, {"n": 1}) == []
    assert ValidatorCache().check("h", json.dumps(schema).encode(), {"n": 1}) == []


def test_each_problem_says_where_it_is() -> None:
    ids = {"type": "array", "items": {"properties": {"id": {"type": "integer"}}, "required": ["id"]}}
    got = check(
        {"properties": {"items": ids}, "additionalProperties": False}, {"items": [{"id": "x"}, {}], "b": 1}
    )
    assert got == [
        "at $.items[0].id: 'x' is not of type 'integer'",
        "at $.items[1]: 'id' is a required property",
        "at $: additional properties are not allowed: 'b'",
    ]


def test_of_several_alternatives_the_closest_is_named() -> None:
    got = check({"anyOf": [{"type": "string"}, {"properties": {"n": {"type": "integer"}}}]}, {"n": "x"})
    assert "closest: at $.n: 'x' is not of type 'integer'" in got[0]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (b'{"type":"nope"}', "not a valid JSON schema: at $.type"),
        (b'{"properties":[]}', "not a valid JSON schema: at $.properties"),
        (b"[]", "not an object"),
        (b"{", "not JSON"),
        (b'"\xff"', "not JSON"),
        (b'{"$schema":"http://example.com/mine"}', "unknown dialect"),
        (b'{"not":' * 70 + b"{}" + b"}" * 70, "nests deeper"),
        (b'{"anyOf":[' + b"{}," * 10_001 + b"{}]}", "more than 10000 parts"),
        (b'{"description":"' + b"x" * 300_000 + b'"}', "larger than"),
    ],
)
def test_a_schema_that_cannot_be_used_is_one_problem_that_says_so(schema: bytes, said: str) -> None:
    (problem,) = ValidatorCache().check("h", schema, {})
    assert problem.startswith("The tool's schema")
    assert said in problem


@pytest.mark.parametrize("arguments", [b"{", b"\xff", b'{"a":"\xff"}', b"[" * 500 + b"]" * 500])
def test_arguments_that_are_not_json_are_one_problem(arguments: bytes) -> None:
    (problem,) = ValidatorCache().check("h", b"{}", arguments)
    assert problem.startswith("The arguments")


@pytest.mark.parametrize(
    "ref", ["https://example.com/s.json", "http://127.0.0.1:9/s", "file:///etc/passwd", "#/$defs/no"]
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_reference_outside_the_schema_is_a_clear_error_and_nothing_is_fetched(
    ref: str, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib.request

    opened: list[object] = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **k: opened.append(a))
    (problem,) = check({"$schema": dialect, "properties": {"a": {"$ref": ref}}}, {"a": 1})
    assert "which is not in it; nothing is fetched" in problem
    assert opened == []


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"pattern": BOMB}}},
        {"patternProperties": {BOMB: {}}, "additionalProperties": False},
        {"additionalProperties": False, "patternProperties": {BOMB: {"type": "object"}}},
        {"allOf": [{"patternProperties": {BOMB: {}}}], "unevaluatedProperties": False},
        {"propertyNames": {"pattern": BOMB}},
        {"properties": {"a": {"$schema": DIALECTS[0], "pattern": BOMB}}},
        {"allOf": [{"$schema": DIALECTS[2], "patternProperties": {BOMB: {}}, "additionalProperties": False}]},
        {"$ref": "#/definitions/b", "definitions": {"b": {"properties": {"a": {"pattern": BOMB}}}}},
    ],
)
def test_a_regular_expression_bomb_is_stopped(dialect: str, schema: dict[str, Any]) -> None:
    start = time.process_time()
    check({"$schema": dialect, **schema}, {"a": FUSE, FUSE: 1})
    assert time.process_time() - start < 1.5


def test_the_bomb_would_go_off_without_a_limit() -> None:
    with pytest.raises(TimeoutError):
        search(BOMB, FUSE, 0.05)


@pytest.mark.parametrize(
    "pattern",
    ["(?:a{1000}){1000}", "(" * 30 + "a{9}" + "){9}" * 30, "a{99999999999}", "(" * 2000 + ")" * 2000, "("],
)
def test_a_pattern_that_would_fill_the_memory_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        compiled(pattern)


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        (r"^a$", "a\n", False),
        (r"^\d+$", "٣", False),
        (r"^[\d\-]+$", "1-2", True),
        (r"^\w+$", "é", False),
        (r"^\p{L}+$", "é", True),
        (r"^[^]$", "\n", True),
        (r"[]", "a", False),
        (r"^[a[]$", "[", True),
        (r"^\$\d{2}\.\d{2}$", "$12.50", True),
        (r"^[$]$", "$", True),
        (r"^(?<year>\d{4})-\d{2}$", "2026-11", True),
        (r"\/", "/", True),
        (r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", "123e4567-e89b-12d3-a456-426614174000", True),
    ],
)
def test_patterns_mean_what_ecma_262_says(pattern: str, text: str, matches: bool) -> None:
    assert search(pattern, text, 1) is matches


def test_a_schema_that_multiplies_itself_is_stopped() -> None:
    defs: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    start = time.process_time()
    (problem,) = check({"$ref": "#/$defs/d0", "$defs": {**defs, "d40": {}}}, {})
    assert "took too long" in problem
    assert time.process_time() - start < 2


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"$dynamicRef": "#"}])
def test_a_schema_that_refers_to_itself_without_end_is_stopped(schema: dict[str, Any]) -> None:
    (problem,) = check(schema, {})
    assert "without end" in problem


def test_a_recursive_schema_that_ends_works() -> None:
    schema = {"properties": {"next": {"$ref": "#"}, "v": {"type": "integer"}}}
    assert check(schema, {"next": {"next": {"v": 1}}}) == []
    assert check(schema, {"next": {"next": {"v": "x"}}}) == ["at $.next.next.v: 'x' is not of type 'integer'"]


def test_a_large_array_of_objects_is_compared_in_linear_time() -> None:
    schema = {"properties": {"a": {"uniqueItems": True}}}
    start = time.process_time()
    assert check(schema, {"a": [{"i": n} for n in range(30_000)]}) == []
    assert time.process_time() - start < 1
    assert check(schema, {"a": [{"i": 1}, {"i": 1.0}]}) == ["at $.a: items 0 and 1 are the same"]
    assert check(schema, {"a": [1, True, "1", [1], None, 0, False]}) == []


def test_huge_arguments_do_not_come_back_whole() -> None:
    got = check({"anyOf": [False, {"type": "integer"}] * 50, "maxProperties": 0}, {"a": "x" * 1_000_000})
    assert sum(map(len, got)) < 2000


def test_no_more_problems_are_listed_than_a_person_reads() -> None:
    got = check({"items": {"type": "string"}}, list(range(1000)))
    assert len(got) == 21
    assert got[-1] == "There are more problems than these."


@pytest.mark.parametrize("dialect", DIALECTS[:2])
@pytest.mark.parametrize(
    ("schema", "bad"),
    [
        ({"properties": {"a": {}}}, "b"),
        ({"allOf": [{"properties": {"a": {}}}]}, "b"),
        (
            {
                "anyOf": [
                    {"properties": {"a": {"type": "integer"}}},
                    {"properties": {"b": {"type": "string"}}},
                ]
            },
            "b",
        ),
        ({"patternProperties": {"^a": {}}}, "b"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"properties": {"a": {}}}}}, "b"),
        (
            {"if": {"required": ["a"]}, "then": {"properties": {"a": {}}}, "else": {"properties": {"b": {}}}},
            "b",
        ),
        ({"dependentSchemas": {"a": {"properties": {"b": {}}}}}, "a"),
        ({"properties": {"a": {}}, "additionalProperties": {"type": "integer"}}, None),
        ({"allOf": [{"unevaluatedProperties": True}]}, None),
    ],
)
def test_unevaluated_properties_are_those_no_keyword_applies_to(
    dialect: str, schema: dict[str, Any], bad: str | None
) -> None:
    got = check({"$schema": dialect, **schema, "unevaluatedProperties": False}, {"a": 1, "b": 2})
    assert got == ([f"at $: unevaluated properties are not allowed: {bad!r}"] if bad else [])


def test_a_validator_is_compiled_once_and_the_cache_is_bounded() -> None:
    cache = ValidatorCache(maxsize=2)
    for name in ("a", "b", "a", "c"):
        cache.check(name, b'{"title":"%b"}' % name.encode(), {})
    assert len(cache) == 2


def test_the_input_and_output_schema_of_one_definition_are_kept_apart() -> None:
    cache = ValidatorCache()
    assert cache.check("h", b'{"required":["a"]}', {}) != []
    assert cache.check("h", b"{}", {}) == []


def test_the_catalog_loads_neither_jsonschema_nor_regex() -> None:
    code = "import sys, gateway.catalog; print([m for m in ('jsonschema', 'regex', 'pydantic') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


keywords = st.sampled_from(
    [
        "type",
        "properties",
        "items",
        "anyOf",
        "$ref",
        "pattern",
        "multipleOf",
        "required",
        "enum",
        "not",
        "$id",
        "additionalProperties",
        "unevaluatedProperties",
        "unevaluatedItems",
        "$schema",
        "minLength",
        "dependentRequired",
        "$anchor",
        "$recursiveRef",
        "contains",
        "minContains",
        "uniqueItems",
        "patternProperties",
        "propertyNames",
        "const",
        "maximum",
        "if",
        "then",
        "else",
    ]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["object", "#", "a", "(", "#/x", DIALECTS[4], "\x00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keywords, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=200)
@given(st.dictionaries(keywords, values, max_size=4), values)
def test_any_schema_and_any_arguments_give_problems_or_none_and_never_raise(
    schema: Any, arguments: Any
) -> None:
    assert all(isinstance(problem, str) and problem for problem in check(schema, arguments))
