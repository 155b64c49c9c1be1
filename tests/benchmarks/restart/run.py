"""Measure what clients notice of a gateway that is ended and started anew in the middle of their calls.

    python tests/benchmarks/restart/run.py [--calls N] [--signals TERM KILL …] [--json]

Each request must be answered or get one retriable error, and no client may have to initialize again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS / "gateway/continuity"), str(TESTS / "gateway"), str(TESTS.parent)]

from restarts import calls_through_restarts  # noqa: E402 - its own imports need the path


def main() -> int:
    """Run it. Returns 1 where a request got neither an answer nor a retriable error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=200, help="calls of each client")
    parser.add_argument("--signals", nargs="+", default=["TERM", "KILL", "TERM"], choices=["TERM", "KILL"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    signals = [signal.Signals[f"SIG{name}"] for name in options.signals]
    with tempfile.TemporaryDirectory(prefix="restart-") as directory:
        found = asyncio.run(calls_through_restarts(Path(directory), options.calls, list(signals)))
    if options.json:
        print(json.dumps({era: asdict(tally) for era, tally in found.items()}, indent=1))
    else:
        print(
            f"{'client':<16}{'answered':>9}{'retriable':>10}{'broken':>8}{'resumed':>9}{'wrong':>7}{'slowest':>9}"
        )
        for era, tally in found.items():
            row = (tally.answered, tally.retriable, tally.broken, tally.resumed, len(tally.wrong))
            print(f"{era:<16}{row[0]:>9}{row[1]:>10}{row[2]:>8}{row[3]:>9}{row[4]:>7}{tally.slowest:>8.2f}s")
            for line in tally.wrong:
                print(f"  {line}")
    return int(any(tally.wrong for tally in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
