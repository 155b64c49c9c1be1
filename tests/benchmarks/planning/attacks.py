"""Injections from a folder, placed in tool results and error messages of running plans.

    python tests/benchmarks/planning/attacks.py FOLDER

The folder holds JSON lines with ``label``, ``surface`` and ``text`` or ``object``; attacks on tool results
are used. Replanning is on, with a planner that obeys whatever text reaches it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "router"))

from attack_parts import campaign, injections

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=None, help="so many texts, evenly chosen")
    given = parser.parse_args()
    texts = list(injections(given.folder))
    if given.limit is not None:
        texts = texts[:: max(1, len(texts) // given.limit)][: given.limit]
    with tempfile.TemporaryDirectory() as folder:
        tally = asyncio.run(campaign(Path(folder), texts))
    print(f"texts                         {tally.texts}")
    print(f"runs                          {tally.runs}")
    print(f"extra tools or arguments      {len(tally.extra)}  {'; '.join(tally.extra[:5])}")
    print(f"texts that reached a planner  {len(tally.heard)}  {'; '.join(tally.heard[:5])}")
    print(f"untrusted flows stopped       {tally.stopped} of {tally.flows}")
    raise SystemExit(
        1 if not tally.texts or tally.extra or tally.heard or tally.stopped != tally.flows else 0
    )
