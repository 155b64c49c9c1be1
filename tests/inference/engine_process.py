"""The engine's server in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def engine_process(folder: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``python -m inference serve`` as a user starts it, on a free port unless told: the process and its URL."""
    command = [sys.executable, "-m", "inference", "serve", "--model", str(folder), "--threads", "1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [*command, "--port", "0", *flags], stderr=subprocess.PIPE, text=True, env=env, cwd=folder
    )
    try:
        assert child.stderr is not None
        line = next((line for line in child.stderr if "serving" in line), None)
        assert line is not None, "the engine did not start"
        threading.Thread(target=child.stderr.read, daemon=True).start()
        yield child, "http" + line.split("http")[1].split()[0]
    finally:
        child.kill()
        child.wait()
