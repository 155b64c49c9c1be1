"""Tokens in clients' hands: what opens, and everything that does not."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bridge.features import DECLARED, features_of
from gateway.endpoint.sessions import SessionFacts, Sessions
from gateway.ledger import Ledger
from gateway.sealing import MAX_LIFETIME, KeyRing, Purpose, Sealer
from registry.continuity import ContinuityRecords
from registry.ring import RingRecords, SealKey
from registry.store import Store

KEY = SealKey(b"abcd", b"k" * 32, 1.0)


def sealer(purpose: Purpose = Purpose.HANDLE, ring: KeyRing | None = None, now: float = 1000.0) -> Sealer:
    return Sealer(purpose, ring or KeyRing([KEY]), lambda: now)


@given(principal=st.text(max_size=20), binding=st.text(max_size=40), payload=st.text(max_size=200))
def test_a_token_opens_to_what_was_sealed_for_its_holder_and_its_request(
    principal: str, binding: str, payload: str
) -> None:
    token = sealer().seal(principal, binding, payload, 60)
    assert token.isascii()
    assert token.isprintable()
    assert " " not in token
    assert sealer().open(principal, binding, token) == payload
    assert sealer().open(principal + "x", binding, token) is None
    assert sealer().open(principal, binding + "x", token) is None


@given(first=st.text(max_size=6), second=st.text(max_size=6), cut=st.integers(0, 6))
def test_no_other_pair_of_principal_and_binding_reads_the_same(first: str, second: str, cut: int) -> None:
    token = sealer().seal(first, second, "payload", 60)
    both = first + second
    if (both[:cut], both[cut:]) != (first, second):
        assert sealer().open(both[:cut], both[cut:], token) is None


@given(place=st.integers(0, 200), letter=st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh0123456789-_="))
def test_a_token_with_any_character_changed_or_added_does_not_open(place: int, letter: str) -> None:
    token = sealer().seal("me", "request", "payload", 60)
    place %= len(token)
    changed = token[:place] + letter + token[place + 1 :]
    if changed != token:
        assert sealer().open("me", "request", changed) is None
    assert sealer().open("me", "request", token[:place] + letter + token[place:]) is None
    assert sealer().open("me", "request", token[:place]) is None


@given(st.text(max_size=400))
def test_any_other_text_does_not_open(text: str) -> None:
    assert sealer().open("me", "request", text) is None


@pytest.mark.parametrize("purpose", [p for p in Purpose if p is not Purpose.HANDLE])
def test_a_token_of_another_purpose_does_not_open(purpose: Purpose) -> None:
    token = sealer(purpose).seal("me", "request", "payload", 60)
    assert sealer(Purpose.HANDLE).open("me", "request", token) is None


def test_a_token_opens_until_it_expires() -> None:
    token = sealer(now=1000.0).seal("me", "", "payload", 60)
    assert sealer(now=1060.0).open("me", "", token) == "payload"
    assert sealer(now=1061.0).open("me", "", token) is None


def test_the_client_cannot_read_what_it_holds() -> None:
    token = sealer().seal("me", "", "the secret of the server", 60)
    assert "secret" not in token
    assert b"secret" not in base64.urlsafe_b64decode(token + "==")


def test_a_new_key_seals_and_the_older_one_still_opens_until_it_is_retired(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        records = RingRecords(store, MAX_LIFETIME)
        ring = KeyRing(records.ring())
        handles = Sealer(Purpose.HANDLE, ring)
        old = handles.seal("me", "", "old", 60)
        ring.replace(records.rotate())
        new = handles.seal("me", "", "new", 60)
        assert old[:4] != new[:4]
        assert handles.open("me", "", old) == "old"
        assert handles.open("me", "", new) == "new"
        oldest = records.ring()[-1]
        assert records.retire(oldest.ident)
        ring.replace(records.ring())
        assert handles.open("me", "", old) is None
        assert handles.open("me", "", new) == "new"
        assert not records.retire(oldest.ident)


def test_a_key_that_was_replaced_longer_ago_than_any_token_lives_is_removed(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        records = RingRecords(store, lifetime=-1.0)
        first = records.ring()[0]
        records.rotate()
        assert first not in records.ring()
        assert len(records.ring()) == 1


def test_the_last_key_can_be_retired_and_is_replaced(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        records = RingRecords(store, MAX_LIFETIME)
        only = records.ring()[0]
        assert records.retire(only.ident)
        assert [key.ident for key in records.ring()] != [only.ident]


def test_the_largest_session_id_stays_under_one_kibibyte(tmp_path: Path) -> None:
    async def stored(work: object) -> None:
        raise AssertionError("opening a session touches no disk")

    with Store.open(tmp_path / "store.db") as store:
        ledger = Ledger(ContinuityRecords(store), stored)  # type: ignore[arg-type]
        sessions = Sessions(Sealer(Purpose.SESSION, KeyRing([KEY])), ledger)
        features = features_of({**DECLARED, "roots": {"listChanged": True}})
        session = sessions.open("2025-11-25", "\U0001f600" * 5000, features, "bearer:" + "f" * 32)
    assert len(session.token) <= 1024
    assert set(session.token) <= set(map(chr, range(0x21, 0x7F)))
    assert SessionFacts.__struct_fields__[-1] == "toolset"


def test_importing_the_sealing_does_not_import_cryptography() -> None:
    code = "import sys, gateway.app, gateway.endpoint.http; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
