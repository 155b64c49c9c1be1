"""Memory of a gateway that searches many tools: started, and after searches by words and meaning.

    python tests/benchmarks/registry/memory.py FOLDER [--tools 15000] [--work DIR]

Each folder in FOLDER with ``tools.jsonl`` and ``queries.jsonl`` gives tools and requests; where they are too few,
copies on other servers follow. Embedding takes minutes the first time; ``--work`` keeps it for the next.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))

from processes import rss_mib


class Place:
    """A state directory, and the command line on it."""

    def __init__(self, root: Path) -> None:
        config = root / "config"
        config.mkdir(parents=True, exist_ok=True)
        (config / "config.toml").write_text('[gateway]\nstarters = ["time"]\n')
        self.environment = {
            **os.environ,
            "TOOLYARD_STATE_DIR": str(root / "state"),
            "TOOLYARD_CONFIG_DIR": str(config),
        }

    def run(self, *arguments: str) -> str:
        """What a verb printed."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[int]:
        """A gateway that listens; its process."""
        with subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--port", "0"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                assert process.stdout
                process.stdout.readline()
                yield process.pid
            finally:
                process.terminate()
                process.wait(30)


def lines(folder: Path, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(set, record) of every file of that name."""
    for path in sorted(folder.glob(f"*/{name}")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield path.parent.name, json.loads(line)


def tools(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """So many tools, in sets that are servers' first names."""
    real = [{**tool, "server": f"{group} {tool['server']}"} for group, tool in lines(folder, "tools.jsonl")]
    for number in range(count):
        turn, place = divmod(number, len(real))
        tool = real[place]
        yield {**tool, "id": f"{number}", "server": f"{tool['server']} {turn}" if turn else tool["server"]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a line for each state."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tools", type=int, default=15_000)
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        root = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place = Place(root)
        if not (root / "state").exists():
            root.mkdir(parents=True, exist_ok=True)
            catalog = root / "tools.jsonl"
            with catalog.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(tool) + "\n" for tool in tools(options.folder, options.tools))
            place.run("registry", "import-tools", str(catalog))
            place.run("registry", "reindex")
        queries = [record["query"] for _, record in lines(options.folder, "queries.jsonl")]
        chosen = random.Random(0).sample(queries, min(options.searches, len(queries)))
        gateway = stack.enter_context(place.serving())
        print(f"started: {rss_mib(gateway):.0f} MiB")
        modes = {json.loads(place.run("search", query, "--json"))["mode"] for query in chosen}
        print(
            f"after {len(chosen)} searches of {options.tools} tools, {', '.join(modes)}: {rss_mib(gateway):.0f} MiB"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
