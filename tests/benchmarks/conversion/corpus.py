"""Converts every package of a conversion corpus, calls what it lists through MCP, and reports the figures.

    python tests/benchmarks/conversion/corpus.py CORPUS_DIR [--only NAME ...] [--jobs 2] [--out DIR]

CORPUS_DIR holds ``corpus.jsonl`` and ``check.py`` (its matcher). This file knows only the corpus's own rules:
how a tool is found by its record in the manifest, how arguments are sent and how results are read.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from service_client import ROOT, Client


def find(tools: list[dict[str, Any]], call: dict[str, Any]) -> dict[str, Any] | None:
    """The tool that a call means, by qualname or alias."""
    if call["callable"].startswith("cli:"):
        full = " ".join([call["callable"], *call.get("sub", [])])
        for wanted in (full, call["callable"]):
            for tool in tools:
                if tool["qualname"] == wanted:
                    return tool
        return None
    for tool in tools:
        if call["callable"] == tool["qualname"] or call["callable"] in tool.get("aliases", []):
            return tool
    return None


def encoded(value: Any, schema: dict[str, Any]) -> Any:
    if schema.get("contentEncoding") == "base64" and isinstance(value, str):
        return base64.b64encode(value.encode()).decode()
    return value


def composed(tools: list[dict[str, Any]], value: Any) -> Any:
    """A value in which each call of the corpus is a ``$call`` of the tool that it means."""
    if isinstance(value, list):
        return [composed(tools, each) for each in value]
    if not isinstance(value, dict):
        return value
    if set(value) != {"$call"}:
        return {name: composed(tools, each) for name, each in value.items()}
    inner = value["$call"]
    target = find(tools, inner)
    if target is None:
        raise LookupError(inner["callable"])
    return {"$call": {"tool": target["name"], "arguments": arguments(tools, target, inner)}}


def arguments(tools: list[dict[str, Any]], tool: dict[str, Any], call: dict[str, Any]) -> dict[str, Any]:
    """What to send, by the corpus's rules; an argument that is another call is sent as ``$call``."""
    properties = tool["input_schema"]["properties"]
    if tool["kind"] == "cli":
        made: dict[str, Any] = {tool["argv_property"]: call["argv"]}
        if call.get("stdin"):
            made[tool["stdin_property"]] = call["stdin"]
        if call.get("files"):
            made[tool["files_property"]] = call["files"]
        return made
    made = {
        name: encoded(composed(tools, value), properties.get(name, {}))
        for name, value in call.get("arguments", {}).items()
    }
    if "init" in call and tool.get("init_property"):
        made[tool["init_property"]] = composed(tools, call["init"])
    if call.get("files") and tool.get("files_property"):
        made[tool["files_property"]] = call["files"]
    return made


def read(result: dict[str, Any], call: dict[str, Any]) -> list[Any]:
    """The values a result may mean."""
    if "structuredContent" in result:
        value = result["structuredContent"]
        if set(value) == {"result"}:
            value = value["result"]
        texts = (
            "".join(value.get("files", {}).get(name, "") for name in call.get("read_back", []))
            if isinstance(value, dict)
            else ""
        )
        return [value] + ([str(value.get("result") or "") + texts] if texts else [])
    text = next((item["text"] for item in result["content"] if item["type"] == "text"), "")
    return [text]


def run_package(package: dict[str, Any], out: Path, match: Any) -> dict[str, Any]:
    """Convert one package and make its calls."""
    directory = out / package["package"]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "servers", "convert", package["requirement"], "--out", str(directory)],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=600,
    )  # fmt: skip
    row: dict[str, Any] = {
        "package": package["package"],
        "seconds": time.monotonic() - start,
        "calls": [],
        "exposed": 0,
    }
    if done.returncode:
        row["error"] = done.stderr.strip()[-600:]
        row["calls"] = [
            {"id": call["id"], "ok": False, "why": "not converted", "flow": bool(call.get("object_flow"))}
            for call in package["calls"]
        ]
        return row
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "servers", "convert", package["requirement"], "--out", str(directory)],
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    row["again"] = time.monotonic() - start
    manifest = json.loads((directory / "manifest.json").read_text())
    tools = manifest["tools"]
    start = time.monotonic()
    client = Client(directory)
    try:
        listed = client.request("tools/list", {})["result"]["tools"]
        row["exposed"] = len(listed)
        row["listed_seconds"] = time.monotonic() - start
        for call in package["calls"]:
            tool = find(tools, call)
            report = {
                "id": call["id"],
                "ok": False,
                "why": "no such tool",
                "flow": bool(call.get("object_flow")),
            }
            row["calls"].append(report)
            if tool is None:
                continue
            report["exposed"] = bool(tool.get("exposed"))
            try:
                sent = arguments(tools, tool, call)
            except LookupError as error:
                report["why"] = f"no tool for {error}"
                continue
            answer = client.request("tools/call", {"name": tool["name"], "arguments": sent})
            row.setdefault("first", time.monotonic() - start)
            if "result" not in answer:
                report["why"] = json.dumps(answer.get("error"))[:300]
                continue
            result = answer["result"]
            expect = call["expect"]
            if (isinstance(expect, dict) and "error_regex" in expect) or call.get("expect_error"):
                text = json.dumps(result)
                report["ok"] = bool(result.get("isError")) and bool(re.search(expect["error_regex"], text))
            elif result.get("isError"):
                report["why"] = result["content"][0]["text"][:300]
                continue
            else:
                report["ok"] = any(match(expect, value) for value in read(result, call))
            report["why"] = (
                ""
                if report["ok"]
                else f"got {json.dumps(read(result, call)[0])[:200]} for {json.dumps(sent)[:150]}"
            )
    finally:
        client.close()
    return row


def percent(values: list[bool]) -> str:
    return f"{sum(values)}/{len(values)} ({100 * sum(values) / max(1, len(values)):.1f} %)"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    spec = importlib.util.spec_from_file_location("corpus_check", options.corpus / "check.py")
    assert spec
    assert spec.loader
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    packages = [json.loads(line) for line in (options.corpus / "corpus.jsonl").read_text().splitlines()]
    if options.only:
        packages = [package for package in packages if package["package"] in options.only]
    out = options.out or Path(tempfile.mkdtemp(prefix="conversion-"))
    with ThreadPoolExecutor(options.jobs) as threads:
        rows = []
        for row in threads.map(lambda package: run_package(package, out, check.match), packages):
            rows.append(row)
            good = sum(call["ok"] for call in row["calls"])
            print(
                f"{row['package']:20} {good}/{len(row['calls'])} {row['seconds']:6.1f} s  again {row.get('again', 0):.2f} s  first answer {row.get('first', 0):.2f} s  listed {row['exposed']}",
                flush=True,
            )
            if "error" in row:
                print("    not converted:", row["error"])
            for call in row["calls"]:
                if not call["ok"]:
                    print(f"    {call['id']}: {call['why']}", flush=True)
                elif not call.get("exposed"):
                    print(f"    {call['id']}: right, but hidden", flush=True)
    calls = [call for row in rows for call in row["calls"]]
    print("calls correct            ", percent([call["ok"] for call in calls]))
    print("  without object flow    ", percent([call["ok"] for call in calls if not call["flow"]]))
    print("  object flow            ", percent([call["ok"] for call in calls if call["flow"]]))
    print("packages all right       ", percent([all(call["ok"] for call in row["calls"]) for row in rows]))
    print("packages with one right  ", percent([any(call["ok"] for call in row["calls"]) for row in rows]))
    print("expectations among shown ", percent([bool(call.get("exposed")) for call in calls]))
    print("listed tools, most       ", max(row["exposed"] for row in rows))
    for label, key in (("conversion", "seconds"), ("again", "again"), ("first answer", "first")):
        values = sorted(row[key] for row in rows if key in row)
        if values:
            print(
                f"{label} seconds: median {statistics.median(values):.2f}, p90 {values[int(0.9 * (len(values) - 1))]:.2f}, most {values[-1]:.2f}"
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
