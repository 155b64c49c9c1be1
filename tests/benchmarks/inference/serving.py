"""CPU seconds a request, speed and cache hits of servers with an OpenAI-compatible API, where prompts share a prefix.

    toolyard infer serve --model DIR --threads 1 --port 8000 &
    python tests/benchmarks/inference/serving.py --model NAME --target ours=http://127.0.0.1:8000 --pid ours=$! \\
        [--target other=http://127.0.0.1:8001 --pid other=PID] [--concurrency 8,32] [--rounds 3]

Prompts are token ids, as a planner's are: a long part that all share, the tools, and a short one of their own. Each
round has a new shared part, so that nothing is in a cache from the last; rounds alternate between the targets. Give
each server one thread: quote CPU seconds, and ratios within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import httpx

IDS = (200, 20_000)
"""Token ids that any vocabulary of language models has, and no special one is among."""


@dataclass(frozen=True)
class Round:
    """CPU seconds a request, None without a process id; requests a second; seconds of each; share of prompt tokens
    that the server says it had in its cache."""

    cpu: float | None
    rate: float
    seconds: list[float]
    cached: float


def cpu_seconds(pid: int) -> float:
    """What a process and its ended children have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def prompts(chosen: argparse.Namespace, seed: int) -> list[list[int]]:
    """Prompts that share their beginning."""
    rng = random.Random(seed)
    shared = [rng.randrange(*IDS) for _ in range(chosen.shared)]
    return [[*shared, *(rng.randrange(*IDS) for _ in range(chosen.own))] for _ in range(chosen.requests)]


async def measure(url: str, pid: int | None, chosen: argparse.Namespace, at_once: int, seed: int) -> Round:
    """One round against one server."""
    turn = asyncio.Semaphore(at_once)
    seconds: list[float] = []
    cached = 0

    async def ask(client: httpx.AsyncClient, prompt: list[int]) -> None:
        nonlocal cached
        body = {
            "model": chosen.model,
            "prompt": prompt,
            "max_tokens": chosen.tokens,
            "min_tokens": chosen.tokens,
            "ignore_eos": True,
            "temperature": 0,
        }
        async with turn:
            start = time.perf_counter()
            answer = await client.post(f"{url}/v1/completions", json=body)
            answer.raise_for_status()
            seconds.append(time.perf_counter() - start)
        usage = answer.json()["usage"]
        if usage["completion_tokens"] != chosen.tokens:
            raise SystemExit(f"{url} answered with {usage['completion_tokens']} tokens, not {chosen.tokens}.")
        cached += (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)

    before, start = cpu_seconds(pid) if pid else 0.0, time.perf_counter()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=600, limits=limits) as client, asyncio.TaskGroup() as group:
        for prompt in prompts(chosen, seed):
            group.create_task(ask(client, prompt))
    wall = time.perf_counter() - start
    cpu = (cpu_seconds(pid) - before) / chosen.requests if pid else None
    return Round(
        cpu, chosen.requests / wall, seconds, cached / chosen.requests / (chosen.shared + chosen.own)
    )


def named(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True, help="the name that the servers know it by")
    parser.add_argument("--target", type=named, action="append", required=True, metavar="NAME=URL")
    parser.add_argument("--pid", type=named, action="append", default=[], metavar="NAME=PID")
    parser.add_argument("--concurrency", default="8,32")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--shared", type=int, default=960, help="tokens of every prompt")
    parser.add_argument("--own", type=int, default=84, help="further tokens of each")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    pids = {name: int(pid) for name, pid in chosen.pid}
    for at_once in map(int, chosen.concurrency.split(",")):
        rounds: dict[str, list[Round]] = defaultdict(list)
        for number in range(chosen.rounds):
            for name, url in chosen.target[:: -1 if number % 2 else 1]:
                seed = 1000 * at_once + number
                rounds[name].append(asyncio.run(measure(url, pids.get(name), chosen, at_once, seed)))
        first = None
        for name, found in rounds.items():
            seconds = sorted(second for one in found for second in one.seconds)
            rate = statistics.median(one.rate for one in found)
            line = f"{at_once:>3} at once  {name:>8}: {rate:6.2f} requests/s, "
            line += f"p50 {seconds[len(seconds) // 2]:.2f} s, p99 {seconds[int(len(seconds) * 0.99)]:.2f} s, "
            line += f"{statistics.median(one.cached for one in found):.1%} from the cache"
            if name in pids:
                cpu = statistics.median(one.cpu for one in found if one.cpu is not None)
                first = first or cpu
                line += f", {cpu:.4f} CPU-s a request ({cpu / first:.2f} x)"
            print(line)


if __name__ == "__main__":
    main()
