"""Children of the registry end with the process that started them, also where that was killed."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

EVERY: Final = 1.0
"""Seconds between two looks."""


def end_with_parent() -> None:
    """Watch from a thread whether the parent still lives; exit at once when it does not."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
