"""Recall of the detector of poisoned definitions: ``python -m tests.benchmarks.retrieval.poison FOLDER [TOOLS.jsonl …]``.

FOLDER holds files of labelled definitions (``label``, ``surface``, ``object``); TOOLS.jsonl are catalogs
taken as honest, on which the threshold's false positives are counted. Instructions that were found in
results of tools (surface ``tool_result``) are put into an honest description: other hands wrote them, for
another place, so they say how far the signs reach beyond what they were written from.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from registry.poison import THRESHOLD, inspect

SURFACES = ("tool_description", "tool_result")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def definition(row: dict[str, Any]) -> dict[str, Any]:
    """The definition of a row; of a result's text, an honest one that holds it."""
    if row["surface"] == "tool_description" and row.get("object"):
        return dict(row["object"])
    text = row.get("text") or json.dumps(row["object"])
    return {"name": "search_notes", "description": f"Searches the notes of a project. {text}"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("honest", nargs="*", type=Path)
    parser.add_argument(
        "--show", action="store_true", help="print what was missed and what was wrongly flagged"
    )
    given = parser.parse_args()
    for path in sorted(given.folder.glob("*.jsonl")):
        rows = [row for row in lines(path) if row["surface"] in SURFACES]
        if not rows:
            continue
        scored = [(row, inspect(definition(row))) for row in rows]
        benign = sorted((f.score for row, f in scored if row["label"] == "benign"), reverse=True)
        allowed = math.floor(0.01 * len(benign))
        limit = benign[allowed] if len(benign) > allowed else 0.0
        print(
            f"{path.name}: {len(benign)} benign, {len(rows) - len(benign)} attacks; at 1 % the score must pass {limit}"
        )
        families: dict[tuple[str, str], list[tuple[bool, bool]]] = defaultdict(list)
        for row, finding in scored:
            if row["label"] == "attack":
                families[row["source"], row["family"]].append((finding.score > limit, finding.withhold))
            if given.show and (row["label"] == "attack") != finding.withhold:
                print("   ", row["label"], finding.score, finding.signs, json.dumps(row.get("object"))[:300])
        for key, caught in sorted(families.items()):
            n = len(caught)
            print(
                f"    {' / '.join(key):60s} {n:4d}  recall at 1 % of this file {100 * sum(a for a, _ in caught) / n:5.1f} %"
                f"   withheld at {THRESHOLD:g} {100 * sum(b for _, b in caught) / n:5.1f} %"
            )
        flagged = sum(f.withhold for row, f in scored if row["label"] == "benign")
        print(f"    benign withheld at {THRESHOLD:g}: {flagged} of {len(benign)}")
    for path in given.honest:
        findings = [(tool, inspect(tool)) for tool in lines(path)]
        wrong = [(tool, finding) for tool, finding in findings if finding.withhold]
        print(f"{path}: withheld {len(wrong)} of {len(findings)} ({100 * len(wrong) / len(findings):.2f} %)")
        print("   ", Counter(name for _, finding in findings for name, _ in finding.signs).most_common())
        for tool, finding in wrong[: 20 if given.show else 0]:
            print(
                "   ",
                tool["id"],
                finding.score,
                finding.signs,
                [(p, ascii(h.text)) for p, h in finding.hidden][:3],
            )


if __name__ == "__main__":
    main()
