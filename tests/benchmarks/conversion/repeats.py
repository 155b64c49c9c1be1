"""Repeats the recorded call of every shown tool in freshly built environments, and says how many answer the same.

python tests/benchmarks/conversion/repeats.py MANIFEST_DIR ...
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from servers.convert import environment
from servers.convert.review import Reviewer
from servers.manifest import files
from servers.process import Place


def main() -> None:
    repeated = tried = declared = shown = hidden = dropped = 0
    with tempfile.TemporaryDirectory() as fresh:
        os.environ["TOOLYARD_ENVIRONMENTS_DIR"] = fresh
        for directory in sys.argv[1:]:
            manifest = files.read(directory)
            path = environment.rebuild(manifest.environment, manifest.sandbox)
            place = Place(path, manifest.sandbox, manifest.permissions, manifest.limits)
            reviewer = Reviewer(place, manifest.preload, 120.0)
            shown += len(manifest.exposed())
            hidden += len(manifest.tools) - len(manifest.exposed())
            dropped += len(manifest.dropped)
            try:
                for tool in manifest.exposed():
                    if tool.review is None or tool.review.outcome != "answer":
                        continue
                    tried += 1
                    if not tool.review.deterministic:
                        declared += 1
                    elif reviewer.repeat(tool, tool.review):
                        repeated += 1
                    else:
                        print(f"{manifest.name}: {tool.name} answered differently")
            finally:
                reviewer.close()
    print(f"repeated equal or declared not to: {repeated + declared}/{tried} ({declared} declared)")
    print(
        f"callables shown {shown}, hidden {hidden}, dropped {dropped}; shown with a recorded answer {tried}"
    )


if __name__ == "__main__":
    main()
