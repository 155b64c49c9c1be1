"""A session goes on in the next process: same id, same wishes; and not in anybody else's hands."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from continuity_parts import listen, said, stateful
from gateway_parts import WAIT, Client, running_gateway

from gateway.endpoint.sessions import LIFETIME, Sessions
from gateway.sealing import KeyRing, Purpose, Sealer
from registry.continuity import ContinuityRecords, SessionRecord, StreamRecord
from registry.ring import SealKey
from registry.store import Store

pytestmark = pytest.mark.anyio


async def moved(client: Client, port: int) -> Client:
    """The same client at the next process."""
    client.port = port
    return client


async def test_a_session_goes_on_after_a_restart_without_noticing(tmp_path: Path) -> None:
    async with running_gateway([stateful()], root=tmp_path) as first:
        client = await first.session()
        assert said(await client.call("memo__count"))[1] == 1
        token = client.session
    async with running_gateway([stateful()], root=tmp_path) as second:
        await moved(client, second.port)
        assert said(await client.call("memo__count"))[1] == 1
        assert client.session == token
        assert len(second.gateway.sessions) == 1


async def test_subscriptions_and_the_log_level_hold_after_a_restart(tmp_path: Path) -> None:
    async with running_gateway([stateful()], root=tmp_path) as first:
        client = await first.session()
        await client.call("memo__count")
        assert (await client.request("resources/subscribe", {"uri": "memo://1"})).json["result"] == {}
        assert (await client.request("logging/setLevel", {"level": "error"})).json["result"] == {}
    async with running_gateway([stateful()], root=tmp_path) as second:
        await moved(client, second.port)
        stream = await listen(client)
        told: list[Any] = []

        async def has_subscribed() -> bool:
            told[:] = said(await client.call("memo__told"))
            return {"resources/subscribe": "memo://1"} in told and {"logging/setLevel": "error"} in told

        async with asyncio.timeout(WAIT):
            while not await has_subscribed():
                pass
        await client.call("memo__update")
        methods = []
        while "notifications/resources/updated" not in methods:
            event = await stream.next()
            assert event is not None
            if event.data:
                methods.append(event.message["method"])
        await stream.wire.close()


async def test_what_a_session_asked_for_is_on_disk_before_it_is_told_yes(tmp_path: Path) -> None:
    async with running_gateway([stateful()], root=tmp_path) as running:
        client = await running.session()
        await client.call("memo__count")
        await client.request("resources/subscribe", {"uri": "memo://1"})
        with sqlite3.connect(f"file:{tmp_path}/store.db?mode=ro", uri=True) as database:
            assert database.execute("SELECT subscriptions FROM sessions").fetchall() == [('["memo://1"]',)]
        await client.request("resources/unsubscribe", {"uri": "memo://1"})
        with sqlite3.connect(f"file:{tmp_path}/store.db?mode=ro", uri=True) as database:
            assert database.execute("SELECT subscriptions FROM sessions").fetchall() == [("[]",)]


async def test_a_session_that_only_calls_is_never_written(tmp_path: Path) -> None:
    async with running_gateway([stateful()], root=tmp_path) as running:
        client = await running.session()
        for _ in range(5):
            await client.call("memo__count")
        await running.gateway.clients.ledger.close()
        with Store.open(tmp_path / "store.db", readonly=True) as store, store.reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM sessions").scalar() == 0
            assert connection.exec_driver_sql("SELECT count(*) FROM streams").scalar() == 0


async def test_a_session_that_was_ended_stays_ended_after_a_restart(tmp_path: Path) -> None:
    async with running_gateway([stateful()], root=tmp_path) as first:
        client = await first.session()
        assert (await client.http("DELETE")).status == 204
    async with running_gateway([stateful()], root=tmp_path) as second:
        await moved(client, second.port)
        assert (await client.request("ping")).status == 404


async def test_a_session_id_is_worth_nothing_to_another_caller(tmp_path: Path) -> None:
    async with running_gateway([stateful()], root=tmp_path) as first:
        client = await first.session()
    async with running_gateway([stateful()], root=tmp_path, token="the-token-of-somebody-else") as second:
        thief = second.client("the-token-of-somebody-else")
        thief.session = client.session
        assert (await thief.request("ping")).status == 404
    async with running_gateway([stateful()], root=tmp_path) as third:
        await moved(client, third.port)
        assert (await client.request("ping")).status == 200


async def test_a_live_session_is_found_for_its_own_caller_alone(tmp_path: Path) -> None:
    async with running_gateway([stateful()], root=tmp_path) as running:
        client = await running.session()
        assert client.session is not None
        sessions = running.gateway.sessions
        principal = next(iter(sessions)).principal
        assert sessions.find(client.session, principal) is not None
        assert sessions.find(client.session, "bearer:another") is None
        assert await sessions.recall(client.session, "bearer:another") is None


async def test_after_rotation_older_ids_open_and_after_retirement_they_do_not(tmp_path: Path) -> None:
    async with running_gateway([stateful()], root=tmp_path) as first:
        client = await first.session()
        await first.gateway.clients.keys(rotate=True)
        newer = await first.session()
        assert client.session is not None
        assert newer.session is not None
        assert client.session[:4] != newer.session[:4]
    async with running_gateway([stateful()], root=tmp_path) as second:
        for one in (client, newer):
            await moved(one, second.port)
            assert (await one.request("ping")).status == 200
        await second.gateway.clients.keys(retire=(await second.gateway.clients.keys())[-1].ident)
        assert (await client.request("ping")).status == 404
        assert (await newer.request("ping")).status == 200
    async with running_gateway([stateful()], root=tmp_path) as third:
        await moved(client, third.port)
        assert (await client.request("ping")).status == 404
        await moved(newer, third.port)
        assert (await newer.request("ping")).status == 200


class Nothing:
    """A memory that holds nothing."""

    def note(self, record: SessionRecord) -> None: ...

    async def noted(self, record: SessionRecord) -> None: ...

    async def session(self, ident: str) -> SessionRecord | None:
        return None


async def test_a_session_id_expires_while_live_and_when_recalled() -> None:
    now = [1000.0]
    sealer = Sealer(Purpose.SESSION, KeyRing([SealKey(b"abcd", b"k" * 32, 1.0)]), lambda: now[0])
    sessions = Sessions(sealer, Nothing(), lambda: now[0])
    token = sessions.open("2025-11-25", "client").token
    now[0] += LIFETIME
    assert sessions.find(token) is not None
    now[0] += 1
    assert sessions.find(token) is None
    assert await sessions.recall(token) is None


async def test_another_replica_with_the_same_keys_takes_a_session_up() -> None:
    ring = KeyRing([SealKey(b"abcd", b"k" * 32, 1.0)])
    one, other = (Sessions(Sealer(Purpose.SESSION, ring), Nothing()) for _ in range(2))
    session = one.open("2025-06-18", "client", ("roots", "sampling"), "bearer:x")
    taken = await other.recall(session.token, "bearer:x")
    assert taken is not None
    assert (taken.ident, taken.version, taken.features) == (session.ident, "2025-06-18", session.features)
    assert other.find(session.token, "bearer:x") is taken


async def test_a_store_that_cannot_be_read_is_an_answer_and_not_another_session(tmp_path: Path) -> None:
    async with running_gateway([stateful()], root=tmp_path) as first:
        client = await first.session()
        await client.request("logging/setLevel", {"level": "error"})
    async with running_gateway([stateful()], root=tmp_path) as second:
        await moved(client, second.port)
        second.gateway.store.close()
        Path(second.gateway.store.place).rename(tmp_path / "away.db")
        answer = await client.request("ping")
        assert answer.status == 503
        assert len(second.gateway.sessions) == 0
        (tmp_path / "away.db").rename(second.gateway.store.place)


async def test_sessions_over_a_stream_end_with_it_and_are_never_sealed(tmp_path: Path) -> None:
    async with running_gateway([stateful()], root=tmp_path) as running:
        session, _ = running.gateway.dispatcher.initialize(
            {"protocolVersion": b'"2025-11-25"'}  # type: ignore[dict-item]
        )
        assert session.token == ""
        running.gateway.sessions.end(session)
        await running.gateway.clients.ledger.close()
        with running.gateway.store.reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM sessions").scalar() == 0


def test_what_is_kept_expires_and_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.continuity.MAX_SESSIONS", 3)
    monkeypatch.setattr("registry.continuity.MAX_EVENT_BYTES", 100)
    with Store.open(tmp_path / "store.db") as store:
        records = ContinuityRecords(store)
        sessions = [SessionRecord(f"s{n}", expires=float(n), ended=True) for n in range(10)]
        streams = [
            StreamRecord(f"t{n}", "s9", float(n), True, ((1, b"x" * 30), (2, b"y" * 10))) for n in range(10)
        ]
        records.save(sessions, streams, ())
        records.prune(now=5.0)
        assert [n for n in range(10) if records.session(f"s{n}")] == [7, 8, 9]
        assert [n for n in range(10) if records.stream(f"t{n}", "s9")] == [8, 9]
        assert records.stream("t9", "another") is None
        records.save((), (), {"t9"})
        assert records.stream("t9", "s9") is None


async def test_a_full_disk_delays_what_is_kept_and_loses_nothing(tmp_path: Path, caplog: Any) -> None:
    async with running_gateway([stateful()], root=tmp_path) as running:
        client = await running.session()
        await client.call("memo__count")
        with running.gateway.store.writing() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER full BEFORE INSERT ON sessions BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
            )
        assert (await client.request("logging/setLevel", {"level": "error"})).json["result"] == {}
        assert "would not outlive a restart" in caplog.text
        with running.gateway.store.writing() as connection:
            connection.exec_driver_sql("DROP TRIGGER full")
        await running.gateway.clients.ledger.close()
        session = next(iter(running.gateway.sessions))
        record = ContinuityRecords(running.gateway.store).session(session.ident)
        assert record is not None
        assert record.log_level == 4
