"""Handles that pass through a client's hands: readable by it, but not to be changed or reused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable

import msgspec

from gateway import jsonrpc

_TAG_BYTES = 18


class Handle(msgspec.Struct, array_like=True, frozen=True):
    """What a sealed handle carries.

    :param binding: the one request it may come back with; another one is refused.
    :param expires: seconds since the epoch.
    :param payload: what it stands for.
    """

    binding: str
    expires: int
    payload: str


class Sealer:
    """Makes and opens handles of one purpose (HMAC-SHA256 over the facts, RFC 2104).

    A client must treat ``requestState`` as opaque, and a server must treat what comes back as
    attacker-controlled (2026-07-28, Multi Round-Trip Requests: Server Requirements 4 and 5).

    :param purpose: a handle of one purpose is worth nothing for another.
    :param key: at least 32 bytes, from the store.
    """

    def __init__(self, purpose: str, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._prefix = purpose.encode() + b"\0"
        self._key = key
        self._clock = clock

    def seal(self, binding: str, payload: str, lifetime: float) -> str:
        """A handle good for ``lifetime`` seconds with the request that ``binding`` names."""
        body = jsonrpc.encode(Handle(binding, int(self._clock() + lifetime), payload))
        return _text(body) + "." + _text(self._tag(body))

    def open(self, binding: str, handle: str) -> str | None:
        """The payload; None where the handle was tampered with, has expired or belongs elsewhere."""
        body, _, tag = handle.partition(".")
        try:
            data = _bytes(body)
            if not hmac.compare_digest(_bytes(tag), self._tag(data)):
                return None
            facts = msgspec.json.decode(data, type=Handle)
        except (ValueError, msgspec.MsgspecError):
            return None
        if facts.binding != binding or facts.expires < self._clock():
            return None
        return facts.payload

    def _tag(self, body: bytes) -> bytes:
        return hmac.digest(self._key, self._prefix + body, hashlib.sha256)[:_TAG_BYTES]


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
