"""Incremental parser of ``text/event-stream`` (WHATWG HTML, 9.2.6 Interpreting an event stream)."""

from __future__ import annotations

import re
from collections.abc import Callable

_EOL = re.compile(rb"\r\n|\n|\r")


class EventStream:
    """Feed bytes, get events.

    :param on_event: called with (event type, data, last event id) for each event that has data;
        the type is ``b"message"`` when the stream names none.
    :param limit: bytes an unfinished event may hold; past it ``feed`` raises OverflowError.
    """

    __slots__ = (
        "_after_cr",
        "_buffer",
        "_data",
        "_event",
        "_limit",
        "_on_event",
        "_scanned",
        "_size",
        "last_id",
        "retry_ms",
    )

    def __init__(self, on_event: Callable[[bytes, bytes, bytes], None], limit: int) -> None:
        self._on_event = on_event
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0
        self._after_cr = False
        self._data: list[bytes] = []
        self._size = 0
        self._event = b""
        self.last_id = b""
        self.retry_ms: int | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the stream. Raises OverflowError past the limit."""
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == 10:  # the second half of a CR LF
                chunk = chunk[1:]
        buffer = self._buffer
        buffer += chunk
        start = 0
        while (match := _EOL.search(buffer, max(start, self._scanned))) is not None:
            end = match.end()
            self._after_cr = end == len(buffer) and buffer[-1] == 13
            self._line(bytes(buffer[start : match.start()]))
            start = self._scanned = end
        self._scanned = len(buffer)
        if start:
            del buffer[:start]
            self._scanned -= start
        if len(buffer) + self._size > self._limit:
            raise OverflowError(f"an event is larger than {self._limit} bytes")

    def _line(self, line: bytes) -> None:
        if not line:
            if self._data:
                data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                event = self._event or b"message"
                self._data, self._event, self._size = [], b"", 0
                self._on_event(event, data, self.last_id)
            else:
                self._event = b""
            return
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
        elif name == b"event":
            self._event = value
        elif name == b"id":
            if b"\0" not in value:
                self.last_id = value
        elif name == b"retry" and value.isdigit():
            self.retry_ms = int(value)
