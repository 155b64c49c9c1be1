"""Toolsets as they are written and kept; what a catalog is about; what of a request is kept."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import BadToolset
from registry.feedback.redact import MAX_KEPT, redact
from registry.search.topics import Described, topics
from registry.store import Store
from registry.toolsets import ToolsetRecords, names_tool, read, selector

FULL: dict[str, Any] = {
    "include": ["github/*", "read_*"],
    "exclude": ["*/delete_*"],
    "servers": ["github"],
    "tags": ["work"],
    "rename": {"github/list_issues": "issues"},
    "describe": {"github/list_issues": "Every open issue."},
    "expose": "both",
    "token_budget": 5,
    "consent": "never",
    "read_only": ["github/list_*"],
    "tools_only": True,
}


def test_a_toolset_comes_back_from_the_store_as_it_was_written(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db") as store:
        records = ToolsetRecords(store)
        records.put(read("full", FULL))
        records.put(read("plain", {}))
        records.put(read("plain", {"include": ["a/*"]}))
        assert records.all() == {"full": read("full", FULL), "plain": read("plain", {"include": ["a/*"]})}
        assert records.all()["full"].fields() == FULL
        assert records.remove("plain")
        assert not records.remove("plain")
    with Store.open(tmp_path / "a.db", readonly=True) as store:
        assert list(ToolsetRecords(store).all()) == ["full"]


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("Big", {}, "no name for a toolset"),
        ("", {}, "no name"),
        ("a/b", {}, "no name"),
        ("x" * 65, {}, "no name"),
        ("x", {"includes": []}, "unknown field `includes`"),
        ("x", {"include": "github/*"}, "include"),
        ("x", {"include": [""]}, "include"),
        ("x", {"include": ["y" * 301]}, "include"),
        ("x", {"expose": "some"}, "expose"),
        ("x", {"consent": "sometimes"}, "consent"),
        ("x", {"token_budget": -1}, "token_budget"),
        ("x", {"rename": {"a/b": "not a name"}}, "not a name"),
        ("x", {"rename": {"a/b": "find_tools"}}, "find_tools"),
        ("x", {"rename": {"a/b": "c", "a/d": "c"}}, "two tools"),
        ("x", {"name": "y"}, "'name'"),
    ],
)
def test_what_cannot_be_used_is_said(name: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadToolset) as caught:
        read(name, fields)
    assert said in str(caught.value)


def test_there_is_a_limit_to_toolsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.toolsets.MAX_TOOLSETS", 3)
    with Store.open(tmp_path / "a.db") as store:
        records = ToolsetRecords(store)
        for number in range(3):
            records.put(read(f"t{number}", {}))
        records.put(read("t0", {"expose": "all"}))  # a change is no new one
        with pytest.raises(BadToolset):
            records.put(read("more", {}))


def test_a_pattern_stands_for_a_server_a_tool_or_both() -> None:
    chosen = selector(read("x", {"include": ["github", "*/get_*", "time__now"], "exclude": ["secret_*"]}))
    assert chosen("github", "anything", "github__anything", ())
    assert chosen("other", "get_it", "other__get_it", ())
    assert chosen("time", "now", "time__now", ())
    assert not chosen("time", "then", "time__then", ())
    assert not chosen("github", "secret_key", "github__secret_key", ())
    assert names_tool(("time/*",))("time", "now", "time__now")
    assert not names_tool(())("time", "now", "time__now")


_names = st.text("abc_", min_size=1, max_size=4)


@given(st.lists(st.tuples(_names, _names), max_size=20), st.lists(_names, max_size=3))
def test_what_is_excluded_is_never_chosen_whatever_is_included(
    tools: list[tuple[str, str]], excluded: list[str]
) -> None:
    chosen = selector(read("x", {"include": ["*"], "exclude": excluded}))
    for server, name in tools:
        out = server in excluded or name in excluded
        assert chosen(server, name, name, ()) is not out


# topics

FEW = [Described("mail", f"send_{x}") for x in ("letter", "card")] + [Described("time", "now")]
MANY = [
    Described(f"server{n}", name)
    for n in range(40)
    for name in (f"get_weather_{n}", f"search_flights_{n}", f"do_{n}", f"undo_{n}")
]


def test_few_servers_are_the_topics_themselves() -> None:
    found = topics(FEW)
    assert [(topic.label, topic.tools) for topic in found] == [("mail", 2), ("time", 1)]
    assert set(found[0].terms) == {"letter", "card"}


def test_of_many_servers_the_words_that_cover_most_are_the_topics() -> None:
    labels = {topic.label: topic.tools for topic in topics(MANY, 4)}
    assert labels["weather"] == labels["flights"] == 40


@given(st.randoms(use_true_random=False))
def test_the_same_tools_give_the_same_topics_in_any_order(shuffle: random.Random) -> None:
    tools = [*FEW, *MANY]
    shuffle.shuffle(tools)
    assert topics(tools) == topics([*FEW, *MANY])


@given(st.lists(st.builds(Described, st.text(max_size=8), st.text(max_size=20)), max_size=30))
def test_any_names_at_all_have_topics(tools: list[Described]) -> None:
    found = topics(tools, 5)
    assert len(found) <= 5
    assert all(0 < topic.tools <= len(tools) for topic in found)


# redaction


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        ("book a flight to Rome for 2 people at 7pm", "book a flight to Rome for 2 people at 7pm"),
        ("mail bob@example.org about it", "mail <address> about it"),
        ("fetch https://user:pw@host.example/x?token=1 now", "fetch <url> now"),
        ("read /home/bob/diary.txt", "read <path>"),
        (r"read C:\Users\bob\diary.txt", "read <path>"),
        ("call +49 170 123 45 67", "call <number>"),
        ("card 4111 1111 1111 1111", "card <number>"),
        ("use sk-ab12CD34ef56GH78ij90", "use <code>"),
        ("password: hunter2 for the wiki", "<secret> for the wiki"),
        ("list github/issues", "list github/issues"),
    ],
)
def test_what_is_private_goes_and_what_finds_tools_stays(request_: str, kept: str) -> None:
    assert redact(request_) == kept


@given(st.text(max_size=3000))
def test_any_request_is_redacted_to_a_bounded_text(request_: str) -> None:
    assert len(redact(request_)) <= MAX_KEPT
