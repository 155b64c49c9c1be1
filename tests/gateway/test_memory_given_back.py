"""What large messages leave behind is given back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is what is asked")

GROW = """
from gateway.memory import GROWN, Memory, resident

memory = Memory()
memory.give_back()
before = resident()
# Pieces below the threshold of mmap: they come from the heap, and the last one keeps it from shrinking.
pieces = [bytes(60_000) for _ in range(2_000)]
grown = resident()
assert grown > before + 4 * GROWN, (before, grown)
last = pieces[-1]
del pieces
held = resident()
memory.give_back()
print(before, grown, held, resident())
"""


def test_what_was_freed_below_something_that_lives_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", GROW], capture_output=True, text=True, check=True)
    before, grown, held, after = map(int, done.stdout.split())
    assert held > before + (grown - before) / 2, "the allocator gave it back by itself: nothing was shown"
    assert after < before + (grown - before) / 10
