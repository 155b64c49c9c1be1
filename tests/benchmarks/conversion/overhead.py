"""What a converted service costs beside the bare function: start to first answer, and time a call.

    python tests/benchmarks/conversion/overhead.py [REQUIREMENT] [--tool MODULE:NAME] [--calls 300]

The tool is called as it was when it was reviewed. The bare function is called with the same arguments by a
plain Python of the same environment, without sandbox, MCP or JSON. Both are timed in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service_client import ROOT, Client

sys.path.insert(0, str(ROOT))

from servers.convert import environment
from servers.manifest import files
from servers.manifest.records import Manifest, Tool
from servers.sandbox import levels

BARE = """
import functools, importlib, json, sys, time
module, name = sys.argv[1].split(":")
function = functools.reduce(getattr, name.split("."), importlib.import_module(module))
for line in sys.stdin:
    arguments = json.loads(line)
    started = time.perf_counter()
    function(**arguments)
    print(time.perf_counter() - started, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("requirement", nargs="?", default="humanize")
    parser.add_argument("--tool", help="its qualname; else the first function shown that answered its review")
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--starts", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "service"
        command = [sys.executable, "-m", "servers", "convert", given.requirement, "--out", str(directory)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        manifest = files.read(directory)
        tool, arguments = chosen(manifest, given.tool)
        print(f"{manifest.name} at {levels.report().level}: {tool.qualname}({json.dumps(arguments)})")
        starts = sorted(start(directory, tool.name, arguments) for _ in range(given.starts))
        print(
            f"start to first answer: median {1e3 * statistics.median(starts):.0f} ms, most {1e3 * starts[-1]:.0f} ms"
        )
        served, bare = turns(directory, manifest, tool, arguments, given.calls)
        over = sorted(a - b for a, b in zip(served, bare, strict=True))
        p50, p95 = statistics.median(over), over[int(0.95 * (len(over) - 1))]
        print(
            f"a call: {1e3 * statistics.median(served):.2f} ms, of it the bare function "
            f"{1e3 * statistics.median(bare):.3f} ms; over it p50 {1e3 * p50:.2f} ms, p95 {1e3 * p95:.2f} ms"
        )


def chosen(manifest: Manifest, qualname: str | None) -> tuple[Tool, dict[str, Any]]:
    """The tool that is measured and the arguments of its review."""
    for tool in manifest.tools:
        wanted = tool.qualname == qualname if qualname else tool.exposed and tool.kind == "function"
        if wanted and tool.review is not None and tool.review.outcome == "answer":
            return tool, tool.review.arguments
    raise SystemExit(f"{manifest.name} has no such tool whose review was an answer")


def start(directory: Path, name: str, arguments: dict[str, Any]) -> float:
    """Seconds from starting the service to the answer of its first call."""
    began = time.perf_counter()
    client = Client(directory)
    try:
        call(client, name, arguments)
        return time.perf_counter() - began
    finally:
        client.close()


def call(client: Client, name: str, arguments: dict[str, Any]) -> float:
    """Seconds of one call through MCP."""
    began = time.perf_counter()
    answer = client.request("tools/call", {"name": name, "arguments": arguments})
    spent = time.perf_counter() - began
    if "result" not in answer or answer["result"].get("isError"):
        raise SystemExit(f"the call was not answered: {json.dumps(answer)[:300]}")
    return spent


@contextmanager
def bare_function(manifest: Manifest, tool: Tool) -> Iterator[Callable[[dict[str, Any]], float]]:
    """A plain Python in the service's environment, that tells the seconds of a call made in it."""
    python = environment.rebuild(manifest.environment, manifest.sandbox) / "bin" / "python"
    with subprocess.Popen(
        [python, "-c", BARE, tool.qualname], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        assert child.stdout
        requests, answers = child.stdin, child.stdout

        def once(arguments: dict[str, Any]) -> float:
            requests.write(json.dumps(arguments) + "\n")
            requests.flush()
            return float(answers.readline())

        yield once
        requests.close()


def turns(
    directory: Path, manifest: Manifest, tool: Tool, arguments: dict[str, Any], calls: int
) -> tuple[list[float], list[float]]:
    """Seconds of each call through MCP, and of each bare one, in turns."""
    client = Client(directory)
    try:
        with bare_function(manifest, tool) as once:
            both = [(call(client, tool.name, arguments), once(arguments)) for _ in range(calls + 20)][20:]
    finally:
        client.close()
    return [served for served, _ in both], [bare for _, bare in both]


if __name__ == "__main__":
    main()
