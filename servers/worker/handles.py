"""Objects that JSON cannot carry, kept for their caller under an unguessable name."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from typing import Any

from .problems import NoSuchHandle

PREFIX = "handle:"
LIFETIME = 3600.0
MOST = 256


class Handles:
    """The objects of one worker. Each belongs to one caller; the oldest goes when there are too many.

    :param worker: the worker's own number, part of every handle so that a call finds its way back.
    """

    def __init__(self, worker: str, lifetime: float = LIFETIME, most: int = MOST) -> None:
        self._worker = worker
        self._lifetime = lifetime
        self._most = most
        self._kept: OrderedDict[str, tuple[str, float, Any]] = OrderedDict()

    def keep(self, caller: str, value: Any) -> str:
        """Keep an object; returns its handle, ``handle:Class:worker:secret``."""
        handle = f"{PREFIX}{type(value).__name__}:{self._worker}:{secrets.token_hex(16)}"
        self._kept[handle] = (caller, time.monotonic(), value)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return handle

    def find(self, caller: str, value: Any) -> Any:
        """The object behind a handle (as text, or as ``{"handle": …}``); any other value as it is.

        :raises NoSuchHandle: unknown, another caller's, or too old.
        """
        if isinstance(value, dict) and isinstance(value.get("handle"), str) and len(value) <= 2:
            value = value["handle"]
        if not isinstance(value, str) or not value.startswith(PREFIX):
            return value
        owner, since, kept = self._kept.get(value, ("", 0.0, None))
        if owner != caller or kept is None or time.monotonic() - since > self._lifetime:
            self._kept.pop(value, None) if owner == caller else None
            raise NoSuchHandle(
                f"'{value[:60]}' is no handle of yours that is still alive; make the object again"
            )
        self._kept.move_to_end(value)
        return kept
