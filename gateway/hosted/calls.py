"""What the gateway and its own hosts tell each other in ``_meta``: who calls, and what the call took.

Foreign servers are told nothing, and are not believed: these keys are ours alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway import jsonrpc
from gateway.jsonrpc import Raw, Shallow

CALLER: Final = "toolyard/caller"
"""Request: whose handles the call may use. Whatever the client wrote there is replaced."""
USAGE: Final = "toolyard/usage"
"""Result: ``{"wall_ms", "cpu_ms", "peak_kb"}`` of this call alone."""


class _Usage(msgspec.Struct, frozen=True):
    wall_ms: float = 0.0
    cpu_ms: float = 0.0
    peak_kb: int = 0


class _Meta(msgspec.Struct, frozen=True):
    usage: _Usage | None = msgspec.field(default=None, name=USAGE)


class _Result(msgspec.Struct, frozen=True):
    meta: _Meta | None = msgspec.field(default=None, name="_meta")
    failed: bool = msgspec.field(default=False, name="isError")


_decode: Final = msgspec.json.Decoder(_Result).decode


@dataclass(slots=True)
class Usage:
    """What the calls of one tool took so far; ``peak_kb`` is that of the hungriest call."""

    calls: int = 0
    failures: int = 0
    wall_ms: float = 0.0
    cpu_ms: float = 0.0
    peak_kb: int = 0


class UsageBook:
    """What calls of converted tools took, until somebody takes it over into statistics."""

    def __init__(self) -> None:
        self._tools: dict[tuple[str, str], Usage] = {}

    def note(self, server: str, tool: str, result: Raw) -> None:
        """Add what a result says its call took; one that says nothing was not executed."""
        try:
            found = _decode(result)
        except msgspec.MsgspecError:
            return
        if found.meta is None or found.meta.usage is None:
            return
        spent, sums = found.meta.usage, self._tools.setdefault((server, tool), Usage())
        sums.calls += 1
        sums.failures += found.failed
        sums.wall_ms += spent.wall_ms
        sums.cpu_ms += spent.cpu_ms
        sums.peak_kb = max(sums.peak_kb, spent.peak_kb)

    def of(self, server: str) -> dict[str, Usage]:
        """The tools of one server that were called."""
        return {tool: usage for (owner, tool), usage in self._tools.items() if owner == server}

    def __iter__(self) -> Iterator[tuple[str, str, Usage]]:
        return ((server, tool, usage) for (server, tool), usage in self._tools.items())


def signed(params: Shallow, caller: str) -> Shallow:
    """The params of a call with its caller's name in ``_meta``.

    :param caller: what tells callers apart; only its hash is passed on.
    """
    meta = jsonrpc.object_of(params.get("_meta")) or {}
    name = hashlib.blake2b(caller.encode(), digest_size=12).hexdigest() if caller else ""
    return {**params, "_meta": jsonrpc.raw({**meta, CALLER: name})}
