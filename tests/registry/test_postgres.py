"""The same store in a real Postgres server, which several gateways share."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from postgres_server import PostgresServer, postgres
from registry_parts import WordEncoder, definition
from sqlalchemy import text

from registry import postgres as postgres_store
from registry import schema
from registry.errors import StoreBusy, StoreDamaged, StoreError, StoreMissing, UnknownServer
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
from registry.store import Store, migrate
from registry.sync import sync_server
from registry.tools import Statistics, ToolRecords
from registry.vector.records import VectorRecords

psycopg = pytest.importorskip("psycopg", reason="the driver is missing: install toolyard[postgres]")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres() as running:
        if running is None:
            pytest.skip("Postgres is not installed: its `initdb` was not found")
        yield running


@pytest.fixture
def place(server: PostgresServer) -> str:
    return server.database()


def spec(name: str) -> Server:
    return Server(ServerSpec(name, Transport.HTTP, url="http://127.0.0.1:1/mcp"), Origin.ADDED, 1)


ODD = "a\0b\\c\\0 \u202e é 🧰"


def test_what_one_gateway_writes_another_reads_whatever_its_characters(place: str) -> None:
    catalog = ServerCatalog(ODD, "handshake", "2025-11-25", b"{}", b"\x00\xff", ODD, tools=(b'{"name":"x"}',))
    with Store.open(place) as one, Store.open(place) as other:
        one.put_server(spec(ODD))
        one.put_catalog(catalog)
        one.approve(Approval("key", ODD, "detail", 1.5))
        named = AssignedName(ItemKind.TOOL, ODD, "x\0", "x")
        assert one.put_names("prefix", [named]) == []
        assert other.servers() == [spec(ODD)]
        assert other.catalogs()[ODD] == catalog
        assert other.approvals() == {"key": Approval("key", ODD, "detail", 1.5)}
        assert other.names("prefix") == [named]
        assert other.key("session") == one.key("session")
        assert other.remove_server(ODD)
        assert one.servers() == []
        assert one.approvals() == {}
        with pytest.raises(UnknownServer):
            one.put_catalog(catalog)


def test_a_name_once_given_stays_when_many_gateways_ask_for_it_at_once(place: str) -> None:
    Store.open(place).close()
    kept: list[AssignedName] = []

    def ask(number: int) -> None:
        with Store.open(place) as store:
            wanted = [AssignedName(ItemKind.TOOL, f"s{number}", f"t{n}", f"name{n}") for n in range(20)]
            refused = store.put_names("prefix", wanted)
            kept.extend(name for name in wanted if name not in refused)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with Store.open(place) as store:
        assert sorted(n.exposed for n in kept) == sorted(f"name{n}" for n in range(20))
        assert set(store.names("prefix")) == set(kept)


def test_gateways_that_start_together_make_the_tables_once(place: str) -> None:
    program = "import sys; from registry.store import Store; Store.open(sys.argv[1]).close()"
    running = [subprocess.Popen([sys.executable, "-c", program, place]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]


def test_a_start_waits_for_another_that_upgrades_for_longer_than_writers_wait(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_store, "LOCK_TIMEOUT", 0.2)
    with psycopg.connect(place, autocommit=True) as other:
        other.execute(f"SELECT pg_advisory_lock({postgres_store._LOCK})")
        with ThreadPoolExecutor() as pool:
            opening = pool.submit(Store.open, place)
            waits = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while not opening.done() and other.execute(waits).fetchone() is None:
                time.sleep(0.01)
            time.sleep(0.5)  # a writer would have given up
            other.execute(f"SELECT pg_advisory_unlock({postgres_store._LOCK})")
            with opening.result(60) as store:
                assert store.servers() == []
                other.execute(f"SELECT pg_advisory_lock({postgres_store._LOCK})")
                with pytest.raises(StoreBusy):
                    store.put_server(spec("x"))


def test_a_database_of_the_first_version_is_migrated_to_what_a_new_one_is(server: PostgresServer) -> None:
    new, old = server.database(), server.database()

    def shape(place: str) -> list[tuple[object, ...]]:
        columns = (
            "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable "
            "FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
        )
        with Store.open(place) as store, store.reading() as connection:
            return [tuple(row) for row in connection.execute(text(columns))]

    empty = Store.open(old)
    with empty.writing() as connection:
        schema.metadata.drop_all(connection)
        connection.execute(schema.alembic_version.delete())
        migrate(connection)
    empty.close()
    assert shape(old) == shape(new)


def test_a_writer_that_is_killed_leaves_nothing_of_its_transaction_and_no_lock(place: str) -> None:
    Store.open(place).close()
    program = (
        "import os, signal, sys\n"
        "from sqlalchemy import insert\n"
        "from registry import schema\n"
        "from registry.store import Store\n"
        "with Store.open(sys.argv[1]).writing() as connection:\n"
        "    connection.execute(insert(schema.keys), {'name': 'half', 'value': b'x', 'created_at': 1.0})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, place], check=False)
    assert done.returncode == -9
    with Store.open(place) as store:
        assert len(store.key("half")) == 32  # made anew


def test_a_write_that_must_wait_too_long_says_so_and_can_be_tried_again(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.postgres.LOCK_TIMEOUT", 0.2)
    with Store.open(place) as one, Store.open(place) as other:
        with one.writing(), pytest.raises(StoreBusy) as failure:
            other.put_server(spec("a"))
        assert failure.value.retriable
        other.put_server(spec("a"))
        assert [s.name for s in one.servers()] == ["a"]


def test_a_restarted_server_is_found_again_and_a_stopped_one_is_named_without_the_password(
    server: PostgresServer, place: str
) -> None:
    secret = place.replace("toolyard@", "toolyard:hunter2@")
    with Store.open(secret) as store:
        store.put_server(spec("a"))
        server.stop()
        try:
            with pytest.raises(StoreError) as failure:
                store.servers()
            assert "hunter2" not in str(failure.value)
            assert "***" in str(failure.value)
            assert failure.value.hint
            assert "server runs" in failure.value.hint
        finally:
            server.start()
        assert [s.name for s in store.servers()] == ["a"]


def test_a_reader_makes_and_writes_nothing(place: str) -> None:
    with pytest.raises(StoreMissing):
        Store.open(place, readonly=True)
    Store.open(place).close()
    with Store.open(place, readonly=True) as reader:
        with pytest.raises(StoreError, match="reading only"):
            reader.put_server(spec("a"))
        with pytest.raises(StoreError, match="read-only"), reader.reading() as connection:
            connection.execute(schema.keys.delete())


def test_somebody_elses_database_is_left_as_it_is(server: PostgresServer, place: str) -> None:
    server.run("psql", "-h", str(server.folder), "-U", "toolyard", "-c", "CREATE TABLE theirs (a int)", place)
    with pytest.raises(StoreDamaged, match="theirs"):
        Store.open(place)


def test_a_database_that_is_not_there_says_what_to_do(place: str) -> None:
    with pytest.raises(StoreError) as failure:
        Store.open(place.replace("/t", "/nowhere"))
    assert failure.value.hint
    with pytest.raises(StoreError, match="no database URL"):
        Store.open("postgresql://user@host:port/database")


def test_tools_versions_statistics_and_vectors_are_kept_and_the_counter_tells_replicas(place: str) -> None:
    encoder = WordEncoder()
    with Store.open(place) as one, Store.open(place) as other:
        records, theirs = ToolRecords(one), ToolRecords(other)
        before = theirs.generation()
        report = sync_server(records, "s", [definition("a", "book a flight"), definition("b\0", "weather")])
        assert len(report.created) == 2
        assert theirs.generation() > before
        assert sync_server(theirs, "s", [definition("a", "book a flight")]).deleted
        records.count([("s", "a", Statistics(2, 1, 0.5, 0.0))])
        theirs.count([("s", "a", Statistics(1, 1, 0.5, 0.0))])
        assert records.statistics()["s", "a"] == Statistics(3, 2, 1.0, 0.0)
        vectors = VectorRecords(one, encoder.model, encoder.dimension)
        keys = [(c.server, c.after or "") for c in report.created]
        vectors.put(keys, encoder.encode_documents(["book a flight", "weather"]))
        found, damaged = VectorRecords(other, encoder.model, encoder.dimension).get(keys)
        assert set(found) == set(keys)
        assert not damaged
