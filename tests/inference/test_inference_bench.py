"""The bench on a tiny model: the figures are there and hang together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

torch = pytest.importorskip("torch", reason="torch is missing: install toolyard[inference]")

from tiny_checkpoints import Reference  # noqa: E402


def test_the_command_prints_tables_and_draws_a_picture(qwen3: Reference, tmp_path: Path) -> None:
    chart = tmp_path / "bench.svg"
    command = [sys.executable, "-m", "inference", "bench", "--model", str(qwen3.folder), "--threads", "1"]
    done = subprocess.run(
        [*command, "--rounds", "1", "--kv-tokens", "4096", "--picture", str(chart)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    for word in ("roofline", "TPOT", "TTFT", "prefix cached"):
        assert word in done.stdout
    assert len(list(ElementTree.parse(chart).getroot())) > 5
