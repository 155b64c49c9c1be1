"""Waiting for a server to start, with a word to whoever waits."""

from __future__ import annotations

import itertools
import time
from typing import Any, Protocol

from gateway import jsonrpc
from gateway.errors import UpstreamTimeout
from gateway.jsonrpc import Shallow
from gateway.protocol import Era
from gateway.upstream.base import Connection
from gateway.upstream.call import CallSite
from gateway.upstream.state import State


class Startable(Protocol):
    """A server that may be on its way up."""

    name: str
    state: State

    @property
    def coming(self) -> bool:
        """Whether it is on its way up."""

    async def connect(self, want: Era, timeout: float) -> Connection:
        """A live connection. Raises UpstreamError, UpstreamTimeout while it is still starting."""


async def connected(server: Startable, want: Era, timeout: float, site: CallSite, token: Any) -> Connection:
    """A live connection; a caller that asked for progress hears once a second that it is waited for.

    :param timeout: seconds in all.
    :param token: the caller's ``progressToken``.
    :raises UpstreamError: it cannot be had, or not in time.
    """
    deadline = time.monotonic() + timeout
    for second in itertools.count(1):
        try:
            return await server.connect(want, max(0.0, min(1.0, deadline - time.monotonic())))
        except UpstreamTimeout:
            if not server.coming or time.monotonic() >= deadline:
                raise
        # Progress must only ever grow (2025-11-25, Progress), and the server's own begins at 0.
        note = {
            "progressToken": token,
            "progress": second * 1e-9,
            "message": f"waiting for server '{server.name}' to "
            + ("be built" if server.state is State.BUILDING else "start"),
        }
        site.notify({"method": jsonrpc.raw("notifications/progress"), "params": jsonrpc.raw(note)})
    raise AssertionError("unreachable")


def progress_token(params: Shallow) -> Any:
    """The token under which a caller wants to hear of progress, or None."""
    meta = params.get("_meta")
    if meta is None or b"progressToken" not in bytes(meta):
        return None
    return jsonrpc.shallow(meta).get("progressToken")
