"""Opening: schema, damage, other processes. Every fault names the file and what to do."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from registry import schema
from registry.errors import (
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreMissing,
    StoreNewer,
    StoreOutdated,
)
from registry.model import Origin, Server, ServerCatalog, ServerSpec, Transport
from registry.store import Store, migrate


def server(name: str, ordinal: int = 0) -> Server:
    return Server(ServerSpec(name, Transport.STDIO, command="true"), Origin.CONFIG, ordinal)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "toolyard.db"


def tables(path: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("select name, sql from sqlite_master where sql is not null order by name")
        return [(name, " ".join(sql.split())) for name, sql in rows]
    finally:
        connection.close()


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    try:
        with connection:
            connection.execute(statement)
    finally:
        connection.close()


def test_the_known_revisions_are_alembics_own_chain() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "registry:migrations")
    script = ScriptDirectory.from_config(config)
    chain = [revision.revision for revision in script.walk_revisions()]
    assert script.get_heads() == [schema.HEAD]
    assert tuple(reversed(chain)) == schema.REVISIONS


def test_a_new_database_and_a_migrated_one_have_the_same_schema(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    new, migrated = tmp_path / "new.db", tmp_path / "migrated.db"
    Store.open(new).close()
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.begin() as connection:
        migrate(connection)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()
    assert tables(new) == tables(migrated)
    with Store.open(migrated) as store:
        store.put_server(server("a"))


def test_opening_a_current_database_does_not_import_alembic(path: Path) -> None:
    code = (
        "import sys; from registry.store import Store\n"
        f"for _ in range(2):\n    Store.open({str(path)!r}).close()\n"
        "heavy = {'alembic', 'mcp', 'pydantic', 'httpx'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_database_from_a_later_version_is_left_alone(path: Path) -> None:
    Store.open(path).close()
    execute(path, "update alembic_version set version_num = '9999'")
    before = path.read_bytes()
    for readonly in (False, True):
        with pytest.raises(StoreNewer, match=r"has schema 9999.*Use the newer version"):
            Store.open(path, readonly=readonly)
    assert path.read_bytes() == before


def test_an_older_database_is_not_upgraded_by_a_reader(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(path).close()
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "0999"))
    monkeypatch.setattr(schema, "HEAD", "0999")
    with pytest.raises(StoreOutdated, match="Start the gateway once"):
        Store.open(path, readonly=True)


def test_reading_says_clearly_that_there_is_no_database_yet(path: Path) -> None:
    with pytest.raises(StoreMissing, match=r"no store at .*toolyard\.db yet.*toolyard serve"):
        Store.open(path, readonly=True)
    assert not path.exists()
    path.touch()
    with pytest.raises(StoreMissing):
        Store.open(path, readonly=True)


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere/toolyard\.db cannot be created"):
        Store.open(tmp_path / "nowhere" / "toolyard.db")
    with pytest.raises(StoreError, match="could not be read"):
        Store.open(tmp_path)


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_reported_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for readonly in (False, True):
        with pytest.raises(StoreDamaged, match=r"toolyard\.db is damaged.*move toolyard\.db"):
            Store.open(path, readonly=readonly)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    execute(path, "create table bookmarks (url text)")
    with pytest.raises(StoreDamaged, match="not toolyard's: it has the tables bookmarks"):
        Store.open(path)
    assert [name for name, _ in tables(path)] == ["bookmarks"]


def test_damage_in_the_middle_is_reported_where_it_is_read(path: Path) -> None:
    with Store.open(path) as store:
        store.put_server(server("a"))
        store.put_catalog(ServerCatalog("a", "handshake", "2025-11-25", tools=(b"x" * 200_000,)))
    with path.open("r+b") as file:
        file.truncate(60_000)
    with pytest.raises(StoreDamaged, match="is damaged"), Store.open(path) as store:
        store.catalogs()


def test_a_row_that_cannot_be_read_back_is_named(path: Path) -> None:
    with Store.open(path) as store:
        store.put_server(server("a"))
    execute(path, 'update servers set spec = \'{"transport": "pigeon"}\'')
    with Store.open(path) as store, pytest.raises(StoreDamaged, match=r"server 'a'.*pigeon"):
        store.servers()


def test_a_reader_never_writes(path: Path) -> None:
    Store.open(path).close()
    with Store.open(path, readonly=True) as store:
        with pytest.raises(StoreError, match="open for reading only"):
            store.put_server(server("a"))
        with pytest.raises(StoreError, match="open for reading only"):
            store.key("new")


def test_a_reader_sees_each_commit_of_an_open_writer(path: Path) -> None:
    with Store.open(path) as writer, Store.open(path, readonly=True) as reader:
        assert reader.servers() == []
        for number in range(5):
            writer.put_server(server(f"s{number}", number))
            assert len(reader.servers()) == number + 1
            with writer._write() as connection:  # in the middle of a write
                connection.exec_driver_sql("delete from servers")
                assert len(reader.servers()) == number + 1
                connection.rollback()


def test_a_writer_that_waits_too_long_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.sqlite.BUSY_TIMEOUT", 0.05)
    with Store.open(path) as first, Store.open(path) as second:
        with first._write(), pytest.raises(StoreBusy, match="another process has held it"):
            second.put_server(server("a"))
        second.put_server(server("a"))


def test_many_may_create_the_database_at_once(path: Path) -> None:
    def create(number: int) -> None:
        with Store.open(path) as store:
            store.put_server(server(f"s{number}", number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(create, range(8)))
    with Store.open(path, readonly=True) as store:
        assert [entry.ordinal for entry in store.servers()] == list(range(8))


WRITER = """
import sys
from registry.model import *
from registry.store import Store
with Store.open(sys.argv[1]) as store:
    store.put_server(Server(ServerSpec("a", Transport.STDIO, command="true"), Origin.CONFIG))
    number = 0
    while True:
        number += 1
        body = b"%d" % number
        store.put_catalog(ServerCatalog("a", "handshake", "2025-11-25", tools=(body,) * 50, synced_at=number))
        store.put_names("prefix", [AssignedName(ItemKind.TOOL, "a", f"t{number}", f"a__t{number}")])
        print(number, flush=True)
"""


def test_a_writer_killed_in_the_middle_leaves_every_committed_row(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for wanted in (3, 20, 45):
            for line in writer.stdout:
                if int(line) >= wanted:
                    break
            with Store.open(path, readonly=True) as reader:  # while it writes
                assert len(reader.names("prefix")) >= wanted
                assert len(set(reader.catalogs()["a"].tools)) == 1
        os.kill(writer.pid, signal.SIGKILL)
        last = max([wanted, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    for readonly in (True, False):
        with Store.open(path, readonly=readonly) as store:
            names = store.names("prefix")
            assert len(names) in (last, last + 1)
            assert {name.exposed for name in names} == {f"a__t{n + 1}" for n in range(len(names))}
            catalog = store.catalogs()["a"]
            assert catalog.tools == (b"%d" % catalog.synced_at,) * 50
            assert catalog.synced_at in (last, last + 1, last + 2)
