"""Our own catalog as a registry lists it: by the schema of server.json, and with nothing that is private."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from official_schema import LIST

from registry.errors import BadFilter
from registry.model import Origin, Server, ServerCatalog, ServerSpec, Transport
from registry.official.publish import PUBLISHED, Query, page, published
from registry.profiles import Profile

SECRET = "sk-9f8e7d6c5b4a3f2e1d0c"


def listed(*specs: ServerSpec, info: Any = None, version: str = "2.1.0") -> list[dict[str, Any]]:
    """What is listed of servers that were all reached, after it was found to be by the schema."""
    servers = [Server(spec, Origin.ADDED, number) for number, spec in enumerate(specs)]
    body = json.dumps(info or {}).encode()
    catalogs = {spec.name: ServerCatalog(spec.name, "handshake", "2025-11-25", body) for spec in specs}
    profiles = {spec.name: [Profile(spec.name, 1, "d", 3, version, 1e9 + n)] for n, spec in enumerate(specs)}
    entries = published(servers, catalogs, profiles)
    answer = page(entries, Query(limit=100))
    jsonschema.Draft202012Validator(LIST, format_checker=jsonschema.FormatChecker()).validate(answer)
    return [one["server"] for one in answer["servers"]]


def command(*words: str, **more: Any) -> ServerSpec:
    return ServerSpec("it", Transport.STDIO, words[0], words[1:], **more)


def remote(url: str, **more: Any) -> ServerSpec:
    return ServerSpec("it", Transport.HTTP, url=url, **more)


def test_a_package_is_listed_with_the_names_of_its_variables_alone() -> None:
    (one,) = listed(command("npx", "-y", "@a/it@1.2.3", env={"KEY": SECRET}))
    assert one["name"] == "local.toolyard/it"
    assert one["version"] == "2.1.0"
    assert one["packages"] == [
        {
            "registryType": "npm",
            "identifier": "@a/it",
            "version": "1.2.3",
            "runtimeHint": "npx",
            "transport": {"type": "stdio"},
            "environmentVariables": [{"name": "KEY", "isRequired": True, "isSecret": True}],
        }
    ]


def test_a_remote_is_listed_with_the_names_of_its_headers_alone() -> None:
    (one,) = listed(remote("https://example.com/mcp", headers={"Authorization": f"Bearer {SECRET}"}))
    assert one["remotes"][0]["url"] == "https://example.com/mcp"
    assert one["remotes"][0]["headers"] == [{"name": "Authorization", "isRequired": True, "isSecret": True}]


@pytest.mark.parametrize(
    "spec",
    [
        command("/home/me/private/server", "--key", SECRET),
        command("npx", "-y", "it@1.2.3", "/home/me/private"),
        command("npx", "-y", "it@latest"),
        command("npx", "-y", "it"),
        command("/home/me/private/npx", "it@1.2.3"),
        command("uvx", "it@1.2.3", cwd="/home/me/private"),
        command("uvx", "--from", "/home/me/private", "it@1.2.3"),
        command("docker", "run", "-v", "/home/me/private:/x", "it:1"),
        remote(f"https://example.com/mcp?key={SECRET}"),
        remote(f"https://me:{SECRET}@example.com/mcp"),
        remote(f"https://example.com/{SECRET}/mcp"),
        remote(f"https://{SECRET}.example.com/mcp"),
        remote("https://example.com/${KEY}"),
        remote("http://localhost:8080/private"),
        remote("http://127.0.0.1:8080/private"),
        remote("http://[::1]:8080/private"),
    ],
)
def test_of_any_other_it_is_said_that_it_is_there(spec: ServerSpec) -> None:
    (one,) = listed(spec)
    assert "packages" not in one
    assert "remotes" not in one
    assert one["description"] == "An MCP server with 3 tools"
    assert SECRET not in json.dumps(one)
    assert "private" not in json.dumps(one)


def test_an_imported_server_is_listed_as_it_was_published() -> None:
    written = {
        "name": "io.example/it",
        "description": "d" * 300,
        "version": "7",
        "websiteUrl": "javascript:alert(1)",
        "packages": [
            {"registryType": "npm", "identifier": "it", "version": "7", "transport": {"type": "stdio"}},
            {"registryType": "npm", "identifier": "it", "version": "latest", "transport": {"type": "stdio"}},
        ],
        "remotes": [{"type": "sse", "url": "no address"}],
    }
    (one,) = listed(command("npx", "-y", "it@7", SECRET, extra={PUBLISHED: {"server": written}}))
    assert one["name"] == "io.example/it"
    assert len(one["description"]) == 100
    assert len(one["packages"]) == 1
    assert "remotes" not in one
    assert "websiteUrl" not in one
    assert SECRET not in json.dumps(one)


def test_a_server_nobody_reached_or_that_is_off_is_not_listed() -> None:
    off = Server(command("uvx", "it@1", disabled=True), Origin.ADDED)
    new = Server(command("uvx", "it@1"), Origin.ADDED)
    catalog = {"it": ServerCatalog("it", "handshake", "2025-11-25")}
    profile = {"it": [Profile("it", 1, "d", 0, "1", 0.0)]}
    assert published([off], catalog, profile) == []
    assert published([new], {}, profile) == []
    assert len(published([new], catalog, profile)) == 1


@given(st.text(), st.text(), st.text(), st.text(min_size=1))
def test_whatever_a_server_says_of_itself_is_listed_by_the_schema(
    title: str, description: str, version: str, name: str
) -> None:
    spec = ServerSpec(name, Transport.STDIO, "x")
    listed(spec, info={"title": title, "description": description}, version=version[:200])


@given(st.integers(0, 30), st.integers(1, 12))
def test_pages_hold_every_server_once_and_in_order(count: int, limit: int) -> None:
    specs = [ServerSpec(f"s{number:02}", Transport.STDIO, "x") for number in range(count)]
    servers = [Server(spec, Origin.ADDED) for spec in specs]
    catalogs = {spec.name: ServerCatalog(spec.name, "handshake", "2025-11-25") for spec in specs}
    entries = published(servers, catalogs, {s.name: [Profile(s.name, 1, "d", 0, "1", 0.0)] for s in specs})
    seen: list[str] = []
    fields = {"limit": str(limit)}
    while True:
        answer = page(entries, Query.parse(fields))
        assert answer["metadata"]["count"] == len(answer["servers"]) <= limit
        seen += [one["server"]["name"] for one in answer["servers"]]
        if "nextCursor" not in answer["metadata"]:
            break
        fields["cursor"] = answer["metadata"]["nextCursor"]
    assert seen == [f"local.toolyard/{spec.name}" for spec in specs]


def test_a_list_of_what_is_new_holds_nothing_older() -> None:
    specs = [ServerSpec(name, Transport.STDIO, "x") for name in ("old", "new")]
    servers = [Server(spec, Origin.ADDED) for spec in specs]
    catalogs = {spec.name: ServerCatalog(spec.name, "handshake", "2025-11-25") for spec in specs}
    profiles = {"old": [Profile("old", 1, "d", 0, "1", 1e9)], "new": [Profile("new", 1, "d", 0, "1", 2e9)]}
    entries = published(servers, catalogs, profiles)
    since = datetime.fromtimestamp(1.5e9, UTC).isoformat().replace("+00:00", "Z")
    answer = page(entries, Query.parse({"updated_since": since}))
    assert [one["server"]["name"] for one in answer["servers"]] == ["local.toolyard/new"]


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": "0"},
        {"limit": "x"},
        {"cursor": "%%"},
        {"cursor": "/w"},
        {"updated_since": "yesterday"},
        {"updated_since": "2026-01-01T00:00:00"},
    ],
)
def test_a_question_that_cannot_be_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(BadFilter):
        Query.parse(fields)
