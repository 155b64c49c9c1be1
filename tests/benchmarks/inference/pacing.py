"""What readers feel, and what it costs, while long prompts arrive: the gaps between a reader's tokens.

    python tests/benchmarks/inference/pacing.py --model DIR [--readers 4] [--prompts 3] [--rounds 3]

The engine is stepped in this process: a gap is the time of a step, without a network. On one thread it is the
CPU's time, so that what else the machine does is in no gap. Rounds alternate between readers alone, the engine
as it is, and one without pacing (each step takes all the prompt it has room for), which is as fast as prompts
can be served: the CPU time above it is what pacing costs.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from dataclasses import dataclass

from inference.bench import MODEL_ALONE
from inference.engine import Engine, EngineConfig
from inference.runner import ModelRunner, RunnerConfig
from inference.sequence import Request, SamplingParams

PROMPT = 4096
ANSWER = 900
WARM = 60
"""Steps before the prompts arrive, which are not counted."""


@dataclass(frozen=True)
class Round:
    """CPU seconds of the whole round; gaps in seconds between a reader's tokens since the prompts arrived, as
    long as there were any."""

    cpu: float
    gaps: list[float]


def measure(runner: ModelRunner, config: EngineConfig, readers: int, prompts: int) -> Round:
    """One round: `readers` answers of 900 tokens; 4k prompts arrive together meanwhile."""
    engine = Engine(runner, config)
    clock = time.process_time if runner.config.threads == 1 else time.perf_counter
    rng = random.Random(1)

    def request(name: str, length: int, tokens: int) -> Request:
        prompt = tuple(rng.randrange(runner.model_config.vocabulary) for _ in range(length))
        return Request(name, prompt, SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True))

    for number in range(readers):
        engine.add(request(f"reader {number}", 20, ANSWER))
    gaps: list[float] = []
    began = time.process_time()
    step = 0
    while not engine.idle:
        if step == WARM:
            for number in range(prompts):
                engine.add(request(f"prompt {number}", PROMPT, 8))
        before, written = engine.stats.prompt_tokens, engine.stats.decode_tokens
        start = clock()
        engine.step()
        gap = clock() - start
        step += 1
        beside = engine.stats.prompt_tokens > before or not prompts
        if step > WARM and beside and engine.stats.decode_tokens > written:
            gaps.append(gap)
    return Round(time.process_time() - began, gaps)


def p99(values: list[float]) -> float:
    """The 99th percentile."""
    return sorted(values)[int(len(values) * 0.99)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    room = options.prompts * (PROMPT + 64) + options.readers * (ANSWER + 64)
    runner = ModelRunner(options.model, RunnerConfig(threads=options.threads, kv_tokens=room))
    paced = EngineConfig(speculate=False)
    ways = {"alone": (paced, 0), "paced": (paced, options.prompts), "unpaced": (MODEL_ALONE, options.prompts)}
    rounds: dict[str, list[Round]] = {name: [] for name in ways}
    gc.freeze()  # as the server does: a gap should not be a collection of what the imports left
    for number in range(options.rounds):
        for name in sorted(ways, reverse=bool(number % 2)):
            config, prompts = ways[name]
            rounds[name].append(measure(runner, config, options.readers, prompts))
    for name, found in rounds.items():
        pairs = list(zip(found, rounds["alone"], strict=True))
        ratio = statistics.median(p99(r.gaps) / p99(alone.gaps) for r, alone in pairs)
        middle = statistics.median(statistics.median(r.gaps) / statistics.median(a.gaps) for r, a in pairs)
        cpu = statistics.median(r.cpu for r in found)
        print(f"{name:>8}: gaps {middle:.2f} x readers alone, p99 {ratio:.2f} x; {cpu:.2f} CPU-s a round")
    both = zip(rounds["paced"], rounds["unpaced"], strict=True)
    loss = statistics.median(1 - unpaced.cpu / paced.cpu for paced, unpaced in both)
    print(f"throughput lost to pacing: {loss:.1%}")


if __name__ == "__main__":
    main()
