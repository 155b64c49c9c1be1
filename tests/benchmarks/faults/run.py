"""Measure supervision: faults beside healthy load, and what a fault costs whom.

    python tests/benchmarks/faults/run.py [--seconds S] [--only NAME ...] [--json]

The hundred faults of ``chaos`` are spread over ten minutes unless told otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS / part) for part in ("benchmarks/gateway", "gateway/faults", "gateway")]

from chaos import chaos  # noqa: E402 - its own imports need the path
from rows import ROWS  # noqa: E402
from table import Row, render  # noqa: E402


def main() -> int:
    """Run what was asked for. Returns 1 where a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long faults are injected")
    parser.add_argument("--seed", type=int, default=7, help="which faults, and when")
    parser.add_argument("--only", nargs="+", choices=[*ROWS, "chaos"], default=[*ROWS, "chaos"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        for name in options.only:
            print(f"  … {name}", file=sys.stderr, flush=True)
            if name == "chaos":
                found += chaos(Path(directory), options.seconds, options.seed)
            else:
                found += ROWS[name](Path(directory))
    print(json.dumps([asdict(row) for row in found], indent=1) if options.json else render(found))
    return int(any(row.met is False for row in found))


if __name__ == "__main__":
    raise SystemExit(main())
