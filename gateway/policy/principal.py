"""Who calls, as far as what they hold of ours is bound to them."""

from __future__ import annotations

import hashlib
from typing import Final

LOCAL: Final = "local"
"""Whoever reaches us through this machine's own sockets, which the owner alone can open."""
ANYONE: Final = "anyone"
"""Whoever reaches us over HTTP where authentication is switched off."""


def bearer(token: str | None) -> str:
    """The principal of those who show this bearer token; it gives the token away to nobody."""
    if token is None:
        return ANYONE
    return "bearer:" + hashlib.sha256(b"toolyard principal\0" + token.encode()).hexdigest()[:32]
