"""What every test shares."""

from __future__ import annotations

import signal

import pytest

# A shell starts what runs in the background with SIGINT ignored, and children inherit that: Ctrl-C
# could not be tested from there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    """The gateway runs on asyncio, and so do its tests."""
    return "asyncio"
