"""Clients that only connect must not use up the file descriptors that servers need."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import resource
from gateway import httpd
resource.setrlimit(resource.RLIMIT_NOFILE, (128, {hard}))
httpd.raise_descriptor_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], httpd._most_connections)
"""


def limits(hard: int) -> list[int]:
    command = [sys.executable, "-c", CODE.format(hard=hard)]
    return [int(part) for part in subprocess.check_output(command, text=True).split()]


def test_the_limit_is_raised_and_connections_may_use_half_of_it() -> None:
    assert limits(1000) == [1000, 500]
    assert limits(128) == [128, 64]
