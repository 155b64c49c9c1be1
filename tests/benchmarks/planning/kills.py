"""kill -9 at random moments of runs with side effects, and what became of each step.

    python tests/benchmarks/planning/kills.py [--kills 200] [--seed 1]

A real server counts every call in a log on disk; a process that runs plans is killed, taken up, killed
again, and given a person's word where it waits for one; then the log is compared with the journal.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "router"))

from kill_parts import campaign

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        toll = campaign(Path(folder), given.kills, given.seed)
    print(f"kills                          {toll.kills}  ({time.monotonic() - started:.0f} s)")
    print(f"steps doubled                  {len(toll.doubled)}  {' '.join(toll.doubled)}")
    print(f"outcome unknown, answered      {toll.unknown}")
    print(f"idempotent ones taken up alone {toll.repeated_alone}")
    print(f"otherwise wrong                {len(toll.wrong)}  {'; '.join(toll.wrong)}")
    raise SystemExit(1 if toll.doubled or toll.wrong else 0)
