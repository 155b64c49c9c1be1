"""The store keeps what it was given, byte for byte, and never changes a name."""

from __future__ import annotations

import stat
import threading
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.errors import StoreError, UnknownServer
from registry.model import (
    Approval,
    AssignedName,
    ItemKind,
    Origin,
    Server,
    ServerCatalog,
    ServerSpec,
    Transport,
)
from registry.store import Store

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
SPECS = st.builds(
    ServerSpec,
    name=NAME,
    transport=st.sampled_from(Transport),
    command=st.none() | st.text(),
    args=st.lists(st.text(), max_size=3).map(tuple),
    env=st.dictionaries(st.text(), st.text(), max_size=3),
    cwd=st.none() | st.text(),
    url=st.none() | st.text(),
    headers=st.dictionaries(st.text(), st.text(), max_size=3),
    disabled=st.booleans(),
    timeout=st.none() | st.floats(min_value=0.001, max_value=1e9),
    extra=st.dictionaries(st.text(), JSON, max_size=3),
)
BODIES = st.lists(st.binary(max_size=60), max_size=6).map(tuple)
CATALOGS = st.builds(
    ServerCatalog,
    server=st.sampled_from(["a", "b"]),
    era=st.sampled_from(["handshake", "stateless"]),
    protocol_version=st.sampled_from(["2025-11-25", "2026-07-28"]),
    server_info=st.binary(max_size=40),
    capabilities=st.binary(max_size=40),
    instructions=st.none() | st.text(),
    tools=BODIES,
    resources=BODIES,
    templates=BODIES,
    prompts=BODIES,
    synced_at=st.floats(min_value=0, max_value=4e9),
)
FAST = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def server(name: str, ordinal: int = 0) -> Server:
    return Server(ServerSpec(name, Transport.STDIO, command="true"), Origin.CONFIG, ordinal)


def tool(server: str, original: str, exposed: str) -> AssignedName:
    return AssignedName(ItemKind.TOOL, server, original, exposed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "toolyard.db"


@FAST
@given(specs=st.lists(SPECS, max_size=4, unique_by=lambda spec: spec.name), data=st.data())
def test_servers_come_back_equal_and_in_order_of_priority(
    tmp_path: Path, specs: list[ServerSpec], data: st.DataObject
) -> None:
    origins = st.sampled_from(Origin)
    servers = [Server(spec, data.draw(origins), ordinal) for ordinal, spec in enumerate(specs)]
    path = tmp_path / f"{uuid.uuid4()}.db"
    with Store.open(path) as store:
        for entry in data.draw(st.permutations(servers)):
            store.put_server(entry)
    with Store.open(path, readonly=True) as store:
        assert store.servers() == servers


def test_the_store_survives_odd_paths(tmp_path: Path) -> None:
    path = tmp_path / "a %41 ?mode=ro #x & ü" / "toolyard.db"
    path.parent.mkdir()
    with Store.open(path) as store:
        store.put_server(server("a"))
    assert path.is_file()
    with Store.open(path, readonly=True) as store:
        assert [entry.name for entry in store.servers()] == ["a"]


def test_catalogs_survive_byte_for_byte(path: Path) -> None:
    with Store.open(path) as store:
        store.put_server(server("a"))
        store.put_server(server("b"))

        @FAST
        @given(catalog=CATALOGS)
        def check(catalog: ServerCatalog) -> None:
            store.put_catalog(catalog)
            assert store.catalogs()[catalog.server] == catalog

        check()
        written = store.catalogs()
    with Store.open(path, readonly=True) as store:
        assert store.catalogs() == written


def test_ten_servers_with_a_hundred_tools_each_load_within_a_few_milliseconds(path: Path) -> None:
    body = b'{"name":"t","description":"' + b"x" * 500 + b'"}'
    with Store.open(path) as store:
        for number in range(10):
            store.put_server(server(f"s{number}", number))
            store.put_catalog(ServerCatalog(f"s{number}", "handshake", "2025-11-25", tools=(body,) * 100))
    with Store.open(path) as store:
        spent = []
        for _ in range(5):
            begun = time.thread_time()
            servers, catalogs = store.servers(), store.catalogs()
            spent.append(time.thread_time() - begun)
    assert len(servers) == 10
    assert sum(len(catalog.tools) for catalog in catalogs.values()) == 1000
    assert min(spent) < 0.05  # of CPU; about 2 ms on an idle machine


def test_a_new_catalog_replaces_the_old_one_whole(path: Path) -> None:
    with Store.open(path) as store:
        store.put_server(server("a"))
        store.put_catalog(ServerCatalog("a", "handshake", "2025-11-25", tools=(b"1", b"2"), prompts=(b"3",)))
        store.put_catalog(ServerCatalog("a", "stateless", "2026-07-28", tools=(b"4",)))
        assert store.catalogs() == {"a": ServerCatalog("a", "stateless", "2026-07-28", tools=(b"4",))}


def test_changing_a_server_keeps_its_catalog_and_approvals(path: Path) -> None:
    with Store.open(path) as store:
        store.put_server(server("a"))
        store.put_catalog(ServerCatalog("a", "handshake", "2025-11-25", tools=(b"1",)))
        store.approve(Approval("k", "a", "true", 1.0))
        store.put_server(server("a", 7))
        assert store.servers() == [server("a", 7)]
        assert store.catalogs()["a"].tools == (b"1",)
        assert "k" in store.approvals()


def test_removing_a_server_drops_its_catalog_and_approvals_but_not_its_names(path: Path) -> None:
    given_name = tool("a", "echo", "a__echo")
    with Store.open(path) as store:
        for name in ("a", "b"):
            store.put_server(server(name))
            store.put_catalog(ServerCatalog(name, "handshake", "2025-11-25", tools=(b"1",)))
            store.approve(Approval(f"key-{name}", name, "true", 1.0))
        store.put_names("prefix", [given_name])
        assert store.remove_server("a") is True
        assert store.remove_server("a") is False
        assert list(store.catalogs()) == ["b"]
        assert list(store.approvals()) == ["key-b"]
        assert store.names("prefix") == [given_name]
        store.put_server(server("a"))
        assert list(store.catalogs()) == ["b"]


def test_a_catalog_or_approval_of_an_unknown_server_is_refused(path: Path) -> None:
    with Store.open(path) as store:
        with pytest.raises(UnknownServer, match="'ghost'"):
            store.put_catalog(ServerCatalog("ghost", "handshake", "2025-11-25", tools=(b"1",)))
        with pytest.raises(UnknownServer, match="Add the server first"):
            store.approve(Approval("k", "ghost", "true", 1.0))
        assert store.catalogs() == {}
        assert store.approvals() == {}


def test_two_servers_with_one_command_are_approved_and_revoked_apart(path: Path) -> None:
    with Store.open(path) as store:
        store.put_server(server("a"))
        store.put_server(server("b"))
        store.approve(Approval("same", "a", "true", 1.0))
        store.approve(Approval("same", "b", "true", 2.0))
        assert store.approvals() == {"same": Approval("same", "b", "true", 2.0)}
        assert store.revoke("b") == 1
        assert store.approvals() == {"same": Approval("same", "a", "true", 1.0)}
        assert store.revoke("a") == 1
        assert store.approvals() == {}


NAMES = st.builds(
    AssignedName,
    kind=st.sampled_from([ItemKind.TOOL, ItemKind.PROMPT]),
    server=st.sampled_from("ab"),
    original=st.sampled_from("xyz"),
    exposed=st.sampled_from(["n1", "n2", "n3", "n4"]),
)


@FAST
@given(batches=st.lists(st.lists(NAMES, max_size=5), max_size=6))
def test_a_name_once_given_never_changes(tmp_path: Path, batches: list[list[AssignedName]]) -> None:
    expected: list[AssignedName] = []
    with Store.open(tmp_path / f"{uuid.uuid4()}.db") as store:
        for batch in batches:
            refused = []
            for name in batch:
                item = (name.kind, name.server, name.original)
                taken = [
                    given
                    for given in expected
                    if (given.kind, given.server, given.original) == item
                    or (given.kind, given.exposed) == (name.kind, name.exposed)
                ]
                if not taken:
                    expected.append(name)
                elif name not in expected:
                    refused.append(name)
            assert store.put_names("prefix", batch) == refused
            assert set(store.names("prefix")) == set(expected)
            assert len(store.names("prefix")) == len(expected)


def test_policies_name_apart_and_in_a_stable_order(path: Path) -> None:
    with Store.open(path) as store:
        assert store.put_names("prefix", [tool("b", "y", "b__y"), tool("a", "x", "a__x")]) == []
        assert store.put_names("priority", [tool("a", "x", "x")]) == []
        assert store.put_names("priority", iter(())) == []
        assert store.names("prefix") == [tool("a", "x", "a__x"), tool("b", "y", "b__y")]
        assert store.names("priority") == [tool("a", "x", "x")]
        assert store.names("on-collision") == []


def test_a_key_is_made_once_and_stays(path: Path) -> None:
    with Store.open(path) as store:
        first = store.key("session")
        assert len(first) == 32
        assert store.key("session") == first
        assert store.key("cursor") != first
        assert len(store.key("short", 16)) == 16
        with pytest.raises(StoreError, match="16 bytes, 32 were asked for"):
            store.key("short")
    with Store.open(path, readonly=True) as store:
        assert store.key("session") == first


def test_the_file_is_private_even_if_it_was_not(path: Path) -> None:
    path.touch(mode=0o644)
    with Store.open(path) as store:
        store.put_server(server("a"))
        files = list(path.parent.glob("toolyard.db*"))
        assert len(files) == 3  # the database, its log and the log's index
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_threads_share_one_store(path: Path) -> None:
    with Store.open(path) as store:

        def work(number: int) -> None:
            for step in range(20):
                store.put_server(server(f"s{number}-{step}", step))
                store.servers()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(store.servers()) == 80


def test_text_that_is_not_unicode_is_refused_and_the_store_goes_on(path: Path) -> None:
    with Store.open(path) as store:
        with pytest.raises(StoreError, match="not valid Unicode"):
            store.put_names("prefix", [tool("a", "\ud800", "a__x")])
        assert store.names("prefix") == []
        store.put_server(server("a"))
        catalog = ServerCatalog("a", "handshake", "2025-11-25", instructions="\ud800\0")
        store.put_catalog(catalog)
        assert store.catalogs()["a"] == catalog
