"""Giving memory back to the system after something large has passed through."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

GROWN: Final = 16 * 1024 * 1024
"""Bytes the process may grow before it is worth asking the allocator."""


class Memory:
    """Watches the size of this process; asked now and then.

    glibc keeps what was freed in the middle of its heap, so that a few answers of 64 MiB would be paid
    for until the end (malloc_trim(3)). Other allocators give back by themselves.
    """

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
        self._size = 0

    def give_back(self) -> None:
        """Return what was freed, if the process has grown. Takes milliseconds, and those rarely."""
        if self._trim is None:
            return
        size = resident()
        if size > self._size + GROWN:
            self._trim(0)
            size = resident()
        elif size > self._size:
            return  # growth adds up until it is worth it
        self._size = size


def resident() -> int:
    """Bytes of this process in memory (Linux; proc_pid_statm(5))."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
