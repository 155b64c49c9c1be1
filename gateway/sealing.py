"""Tokens that pass through a client's hands: it can neither read, change nor reuse them elsewhere.

Authenticated encryption (ChaCha20-Poly1305, RFC 8439). A token names its key, so that keys rotate: a
new key seals, older ones open what they sealed until it expires.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from gateway import jsonrpc
from registry.ring import KEY_ID_BYTES, SealKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

MAX_LIFETIME: Final = 30 * 24 * 3600.0
"""Seconds any token is good for at most; a key that has been replaced for longer opens nothing."""
_NONCE_BYTES: Final = 12
_EXPIRY_BYTES: Final = 8


class Purpose(StrEnum):
    """What a token is for; one of another purpose does not open."""

    SESSION = "session"
    STATE = "state"
    HANDLE = "handle"
    TASK = "task"
    EVENT = "event"
    CONSENT = "consent"


class KeyRing:
    """The keys of a store, newest first. The library behind them is imported when one is first used.

    :param keys: at least one.
    """

    def __init__(self, keys: Iterable[SealKey]) -> None:
        self._keys: dict[bytes, SealKey] = {}
        self._ciphers: dict[bytes, ChaCha20Poly1305] = {}
        self._newest = b""
        self.replace(keys)

    def replace(self, keys: Iterable[SealKey]) -> None:
        """Take the ring as it is now: what was sealed under a key that is gone opens no more."""
        found = sorted(keys, key=lambda key: key.created_at)
        self._keys = {key.ident: key for key in found}
        self._newest = found[-1].ident
        self._ciphers = {ident: cipher for ident, cipher in self._ciphers.items() if ident in self._keys}

    def newest(self) -> tuple[bytes, ChaCha20Poly1305]:
        """The key that seals."""
        cipher = self.cipher(self._newest)
        assert cipher is not None
        return self._newest, cipher

    def cipher(self, ident: bytes) -> ChaCha20Poly1305 | None:
        """The key of that name, or None where the ring has none."""
        cipher = self._ciphers.get(ident)
        if cipher is None and (key := self._keys.get(ident)) is not None:
            from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305  # 17 ms, 8 MB

            cipher = self._ciphers[ident] = ChaCha20Poly1305(key.secret)
        return cipher


class Sealer:
    """Makes and opens tokens of one purpose.

    A client must treat them as opaque, and what comes back is attacker-controlled (2026-07-28,
    Multi Round-Trip Requests: Server Requirements 4 and 5).

    :param endpoint: the toolset whose clients get them, "" for the plain endpoint; they are good there alone.
    """

    def __init__(
        self,
        purpose: Purpose,
        ring: KeyRing,
        clock: Callable[[], float] = time.time,
        *,
        endpoint: str = "",
    ) -> None:
        self._purpose = purpose
        self._ring = ring
        self._endpoint = endpoint
        self._clock = clock

    def seal(self, principal: str, binding: str, payload: str, lifetime: float) -> str:
        """A token good for ``lifetime`` seconds in the hands of one caller.

        :param principal: whose it is; in another's hands it does not open.
        :param binding: the one thing it may come back with (a request, a session), or "".
        """
        expires = int(self._clock() + min(lifetime, MAX_LIFETIME))
        ident, cipher = self._ring.newest()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        body = expires.to_bytes(_EXPIRY_BYTES, "big") + payload.encode()
        sealed = cipher.encrypt(nonce, body, self._facts(principal, binding))
        return _text(ident + nonce + sealed)

    def open(self, principal: str, binding: str, token: str) -> str | None:
        """What was sealed; None where the token was tampered with, has expired or belongs elsewhere."""
        payload = self.open_dated(principal, binding, token)
        return payload[0] if payload is not None else None

    def open_dated(self, principal: str, binding: str, token: str) -> tuple[str, int] | None:
        """As ``open``, with the second (since the epoch) in which it expires."""
        data = _bytes(token)
        if data is None:
            return None
        cipher = self._ring.cipher(data[:KEY_ID_BYTES])
        nonce = data[KEY_ID_BYTES : KEY_ID_BYTES + _NONCE_BYTES]
        if cipher is None or len(nonce) < _NONCE_BYTES:
            return None
        from cryptography.exceptions import InvalidTag

        try:
            body = cipher.decrypt(nonce, data[KEY_ID_BYTES + _NONCE_BYTES :], self._facts(principal, binding))
        except (InvalidTag, ValueError):
            return None
        expires = int.from_bytes(body[:_EXPIRY_BYTES], "big")
        return (body[_EXPIRY_BYTES:].decode(), expires) if self._clock() <= expires else None

    def knows(self, token: str) -> bool:
        """Whether the key that sealed a token is in the ring."""
        data = _bytes(token)
        return data is not None and self._ring.cipher(data[:KEY_ID_BYTES]) is not None

    def _facts(self, principal: str, binding: str) -> bytes:
        """What is authenticated with a token without standing in it; no two of them read the same."""
        facts = (self._purpose, principal, binding)
        return jsonrpc.encode((*facts, self._endpoint) if self._endpoint else facts)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes | None:
    """The bytes of a token in its one spelling; another spelling of the same bytes is another token."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if _text(data) == text else None
