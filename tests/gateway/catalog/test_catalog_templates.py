"""Which server reads a URI."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Any

import pytest
from catalog_parts import catalog, server
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog import Catalog, NameBook
from gateway.catalog.templates import MAX_URI, Route, TemplateError, matching, order, parse
from registry.model import ItemKind

# RFC 6570, section 3.2: template and expansion, as printed there.
RFC_EXAMPLES = """
{count}  one,two,three
{count*}  one,two,three
{/count}  /one,two,three
{/count*}  /one/two/three
{;count}  ;count=one,two,three
{;count*}  ;count=one;count=two;count=three
{?count}  ?count=one,two,three
{?count*}  ?count=one&count=two&count=three
{&count*}  &count=one&count=two&count=three
{var}  value
{hello}  Hello%20World%21
{half}  50%25
O{empty}X  OX
O{undef}X  OX
{x,y}  1024,768
{x,hello,y}  1024,Hello%20World%21,768
?{x,empty}  ?1024,
?{x,undef}  ?1024
?{undef,y}  ?768
{var:3}  val
{var:30}  value
{list}  red,green,blue
{list*}  red,green,blue
{keys}  semi,%3B,dot,.,comma,%2C
{keys*}  semi=%3B,dot=.,comma=%2C
{+var}  value
{+hello}  Hello%20World!
{base}index  http%3A%2F%2Fexample.com%2Fhome%2Findex
{+base}index  http://example.com/home/index
O{+empty}X  OX
{+path}/here  /foo/bar/here
here?ref={+path}  here?ref=/foo/bar
up{+path}{var}/here  up/foo/barvalue/here
{+x,hello,y}  1024,Hello%20World!,768
{+path,x}/here  /foo/bar,1024/here
{+path:6}/here  /foo/b/here
{+list}  red,green,blue
{+keys}  semi,;,dot,.,comma,,
{+keys*}  semi=;,dot=.,comma=,
{#var}  #value
{#hello}  #Hello%20World!
{#half}  #50%25
foo{#empty}  foo#
foo{#undef}  foo
{#x,hello,y}  #1024,Hello%20World!,768
{#path,x}/here  #/foo/bar,1024/here
{#path:6}here  #/foo/bhere
{#list*}  #red,green,blue
{#keys}  #semi,;,dot,.,comma,,
{.who}  .fred
{.who,who}  .fred.fred
{.half,who}  .50%25.fred
www{.dom*}  www.example.com
X{.var}  X.value
X{.empty}  X.
X{.undef}  X
X{.var:3}  X.val
X{.list}  X.red,green,blue
X{.list*}  X.red.green.blue
X{.keys}  X.semi,%3B,dot,.,comma,%2C
X{.keys*}  X.semi=%3B.dot=..comma=%2C
X{.empty_keys*}  X
{/who}  /fred
{/who,who}  /fred/fred
{/half,who}  /50%25/fred
{/who,dub}  /fred/me%2Ftoo
{/var}  /value
{/var,empty}  /value/
{/var,undef}  /value
{/var,x}/here  /value/1024/here
{/var:1,var}  /v/value
{/list}  /red,green,blue
{/list*}  /red/green/blue
{/list*,path:4}  /red/green/blue/%2Ffoo
{/keys}  /semi,%3B,dot,.,comma,%2C
{/keys*}  /semi=%3B/dot=./comma=%2C
{;who}  ;who=fred
{;half}  ;half=50%25
{;empty}  ;empty
{;v,empty,who}  ;v=6;empty;who=fred
{;v,bar,who}  ;v=6;who=fred
{;x,y}  ;x=1024;y=768
{;x,y,empty}  ;x=1024;y=768;empty
{;x,y,undef}  ;x=1024;y=768
{;hello:5}  ;hello=Hello
{;list}  ;list=red,green,blue
{;list*}  ;list=red;list=green;list=blue
{;keys}  ;keys=semi,%3B,dot,.,comma,%2C
{;keys*}  ;semi=%3B;dot=.;comma=%2C
{?who}  ?who=fred
{?half}  ?half=50%25
{?x,y}  ?x=1024&y=768
{?x,y,empty}  ?x=1024&y=768&empty=
{?x,y,undef}  ?x=1024&y=768
{?var:3}  ?var=val
{?list}  ?list=red,green,blue
{?keys}  ?keys=semi,%3B,dot,.,comma,%2C
{?keys*}  ?semi=%3B&dot=.&comma=%2C
{&who}  &who=fred
?fixed=yes{&x}  ?fixed=yes&x=1024
{&x,y,empty}  &x=1024&y=768&empty=
{&var:3}  &var=val
{&list*}  &list=red&list=green&list=blue
{&keys*}  &semi=%3B&dot=.&comma=%2C
"""


@pytest.mark.parametrize("example", RFC_EXAMPLES.strip().splitlines())
def test_the_expansions_of_rfc_6570_match_their_templates(example: str) -> None:
    template, uri = example.split("  ")
    assert parse(template).matches(uri)


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("file:///{name}", "file:///a/b"),
        ("file:///{name}.txt", "file:///a.md"),
        ("a://x{?q}", "a://x?other=1"),
        ("a://x{?q}", "a://x?q=1&q=2"),
        ("a://x{?q,r}", "a://x?q=1#r=2"),
        ("a://{x}/end", "a://1/end/more"),
        ("a://{x}/end", "b://1/end"),
        ("a://x{/one}", "a://x/1/2"),
        ("a://x{#f}", "a://xf"),
        ("", "a"),
    ],
)
def test_what_a_template_cannot_make_does_not_match(template: str, uri: str) -> None:
    assert not parse(template).matches(uri)


def test_query_parameters_match_in_any_order() -> None:
    template = parse("a://x{?q,r,s}")
    assert template.matches("a://x?s=3&q=1")
    assert not template.matches("a://x?s=3&t=1")


def test_a_literal_matches_as_written_and_percent_encoded() -> None:
    assert parse("a:é {x}").matches("a:%C3%A9%201")
    assert parse("a:é {x}").matches("a:é 1")


@pytest.mark.parametrize(
    "text", ["{", "}", "a{b", "{a}}", "{}", "{{a}}", "{=a}", "{|a}", "{a b}", "{?}", "{a:0}", "{a,}"]
)
def test_what_rfc_6570_does_not_allow_is_an_error(text: str) -> None:
    with pytest.raises(TemplateError):
        parse(text)


PARTS: dict[str, str] = {
    "{v}": "[^/?#]*",
    "{+v}": ".*",
    "{#v}": "(?:#.*)?",
    "{.v}": r"(?:\.[^/?#]*)?",
    "{/v}": "(?:/[^/?#]*)?",
    "{/v,w}": "(?:/[^/?#]*(?:/[^/?#]*)?)?",
    "{/v*}": "(?:/[^?#]*)?",
    "{?a}": r"(?:\?a(?:=[^&#]*)?)?",
    "{&a}": "(?:&a(?:=[^&#]*)?)?",
    "{;a}": "(?:;a(?:=[^/?#;]*)?)?",
    "a": "a",
    "/": "/",
    "a=": "a=",
}


@given(
    st.lists(st.sampled_from(sorted(PARTS)), max_size=6),
    st.text(alphabet="aab=/?&#;.", max_size=12),
)
def test_matching_agrees_with_a_backtracking_expression(parts: list[str], uri: str) -> None:
    wanted = re.fullmatch("".join(PARTS[part] for part in parts), uri, re.DOTALL) is not None
    assert parse("".join(parts)).matches(uri) is wanted


def test_reading_asks_the_listed_owner_then_the_most_specific_template_then_by_priority() -> None:
    capable: dict[str, Any] = {"resources": {}}
    parts = {
        "wide": catalog("wide", capable, templates=["docs://{+all}"]),
        "narrow": catalog("narrow", capable, templates=["docs://guide/{page}"]),
        "twin": catalog("twin", capable, templates=["docs://guide/{name}"]),
        "lister": catalog("lister", capable, resources=["docs://guide/start"]),
        "other": catalog("other", capable),
        "tools": catalog("tools", {"tools": {}}),
    }
    servers = [server(n, i) for i, n in enumerate(["other", "wide", "twin", "narrow", "lister", "tools"])]
    built = Catalog.build(servers, parts, NameBook("prefix"))
    assert built.read_candidates("docs://guide/start") == ["lister", "twin", "narrow", "wide", "other"]
    assert built.read_candidates("docs://guide/a/b") == ["wide", "other", "twin", "narrow", "lister"]
    assert built.read_candidates("x:y") == ["other", "wide", "twin", "narrow", "lister"]


def test_a_template_that_cannot_be_parsed_is_shown_and_reported() -> None:
    built = Catalog.build([server("a")], {"a": catalog("a", templates=["a://{x"])}, NameBook("prefix"))
    assert list(built.entries[ItemKind.TEMPLATE]) == ["a://{x"]
    assert "matches no URI" in built.problems[0].message
    assert built.read_candidates("a://x") == []


def test_a_uri_that_is_too_long_is_not_matched_but_still_has_candidates() -> None:
    parts = {"a": catalog("a", {"resources": {}}, templates=["a:{+x}"])}
    built = Catalog.build([server("a")], parts, NameBook("prefix"))
    assert built.read_candidates("a:" + "x" * MAX_URI) == ["a"]
    assert not parse("a:{+x}").matches("a:" + "x" * MAX_URI)


@pytest.mark.parametrize(
    "text",
    [
        "{a}" * 600,
        "{+a}a" * 400 + "Z",
        "{+a}" * 500 + "!",
        "{/a*}" * 400 + "/b",
        "{.a}" * 500 + "b",
        "{?" + ",".join(f"a{n}" for n in range(32)) + "}" + "{&" + ",".join(["a"] * 32) + "}",
        "{;" + ",".join(["a"] * 32) + "}",
        "a" * 2000,
    ],
)
def test_a_hostile_template_and_uri_are_settled_at_once(text: str) -> None:
    template = parse(text)
    for uri in ("a" * MAX_URI, "?a=" * 2700, "&a" * 4096, "/a" * 4096, ";a" * 4096, "." * MAX_URI):
        start = time.process_time()
        template.matches(uri)
        assert time.process_time() - start < 0.5


def test_thousands_of_costly_templates_are_bounded_together() -> None:
    text = "a{?" + ",".join(f"{'v' * 30}{n}" for n in range(30)) + "}"
    routes = order(Route(parse(f"{text}{n}"), "s", 0) for n in range(5000))
    start = time.process_time()
    matching(routes, "a?" + "&".join("v" * 30 + "1" for _ in range(250)))
    assert time.process_time() - start < 1


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_a_template_that_matches_or_not_or_a_clear_error(text: str, uri: str) -> None:
    with contextlib.suppress(TemplateError):
        assert parse(text).matches(uri) in (True, False)
