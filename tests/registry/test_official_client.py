"""Reading other registries of MCP servers: what is asked of them, and what they cannot do to us."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from official_parts import other_registry

from registry.errors import (
    NotPublished,
    OfficialAnswerBad,
    OfficialError,
    OfficialRefused,
    OfficialUnreachable,
)
from registry.official import client as module
from registry.official.client import OfficialClient, Page, base_of


@pytest.fixture(scope="module")
def peer() -> Iterator[str]:
    with other_registry() as url:
        yield url


def pages(url: str, token: str | None = None, seconds: float = 10.0, **query: Any) -> list[Page]:
    async def read() -> list[Page]:
        async with OfficialClient(url, token=token, seconds=seconds) as registry:
            return [page async for page in registry.pages(**query)]

    return asyncio.run(read())


def names(found: list[Page]) -> list[str]:
    return [one.server.name.rpartition(".")[2] for page in found for one in page.servers]


def test_every_page_of_a_list_is_read(peer: str) -> None:
    found = pages(f"{peer}/good")
    assert [len(page.servers) for page in found] == [2, 2, 1]
    assert names(found) == ["alice/weather", "bob/weather", "carol/notes", "dave/bundle", "eve/thief"]


def test_a_list_can_be_of_a_part_of_the_names_or_of_what_is_new(peer: str) -> None:
    assert names(pages(f"{peer}/good", search="weather")) == ["alice/weather", "bob/weather"]
    assert names(pages(f"{peer}/good/v0.1", updated_since="2026-03-02T00:00:00+00:00")) == [
        "dave/bundle",
        "eve/thief",
    ]


def test_entries_that_cannot_be_read_leave_the_others_alone(peer: str) -> None:
    (page,) = pages(f"{peer}/odd")
    assert [one.server.name for one in page.servers] == ["io.example.alice/weather"]
    assert len(page.faults) == 3
    assert "io.example.carol/notes" in page.faults[2]


def test_a_token_is_sent_where_one_is_given(peer: str) -> None:
    assert len(pages(f"{peer}/secret", "open sesame")) == 3
    with pytest.raises(OfficialRefused, match="401"):
        pages(f"{peer}/secret")


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ("circle", OfficialAnswerBad, "circle"),
        ("endless", OfficialAnswerBad, "pages"),
        ("huge", OfficialAnswerBad, "bytes"),
        ("garbage", OfficialAnswerBad, "cannot be read"),
        ("deep", OfficialAnswerBad, "cannot be read"),
        ("packed", OfficialAnswerBad, "compressed"),
        ("away", OfficialRefused, "169.254.169.254"),
        ("down", OfficialUnreachable, "503"),
        ("drip", OfficialUnreachable, "within"),
    ],
)
def test_a_registry_that_misbehaves_is_an_error_soon(
    peer: str, how: str, error: type[OfficialError], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PAGES", 20)
    with pytest.raises(error, match=says):  # what drips in would do so for a minute
        pages(f"{peer}/{how}", seconds=1.0 if how == "drip" else 600.0)


def test_a_registry_that_is_not_there_is_an_error_that_may_pass() -> None:
    with pytest.raises(OfficialUnreachable) as caught:
        pages("http://127.0.0.1:9")
    assert caught.value.retriable


def test_one_server_is_read_by_its_name(peer: str) -> None:
    async def read(how: str, name: str) -> str:
        async with OfficialClient(f"{peer}/{how}") as registry:
            return (await registry.server(name)).server.version

    assert asyncio.run(read("good", "io.example.alice/weather")) == "1.0.0"
    with pytest.raises(NotPublished, match="nobody/nothing"):
        asyncio.run(read("good", "nobody/nothing"))
    with pytest.raises(OfficialAnswerBad, match="answered with"):
        asyncio.run(read("other", "io.example.alice/weather"))


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "https://", "https://user:word@x", "https://x?y=1", "https://x:port"]
)
def test_what_is_no_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(OfficialError) as caught:
        base_of(url)
    assert "word" not in caught.value.message


def test_an_address_may_be_that_of_the_list_itself() -> None:
    assert base_of("https://x.example/y/v0.1/servers/") == "https://x.example/y"
