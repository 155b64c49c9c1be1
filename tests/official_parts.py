"""Parts of the tests of other registries: the peer as a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PEER = Path(__file__).with_name("registry_peer.py")


@contextmanager
def other_registry() -> Iterator[str]:
    """The address of a running registry; ``/good`` behind it is one that behaves."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(PEER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate(timeout=60)
