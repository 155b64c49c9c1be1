"""What readers feel, and what it costs, while long prompts arrive: the gaps between a reader's tokens.

    python tests/benchmarks/inference/pacing.py --model DIR [--readers 4] [--prompts 3] [--rounds 3]

The engine is stepped in this process: a gap is the time of a step, without a network. Rounds alternate between
the engine as it is and one without pacing (each step takes all the prompt it has room for), which is as fast
as prompts can be served: the CPU time above it is what pacing costs.
"""

from __future__ import annotations

import argparse
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
"""Steps before the prompts arrive, of which the first few are not counted."""


@dataclass(frozen=True)
class Round:
    """CPU seconds of the whole round; gaps in seconds between a reader's tokens, before and after."""

    cpu: float
    alone: list[float]
    beside: list[float]


def measure(runner: ModelRunner, config: EngineConfig, readers: int, prompts: int) -> Round:
    """One round: `readers` answers of 900 tokens; 4k prompts arrive together meanwhile."""
    engine = Engine(runner, config)
    rng = random.Random(1)

    def request(name: str, length: int, tokens: int) -> Request:
        prompt = tuple(rng.randrange(runner.model_config.vocabulary) for _ in range(length))
        return Request(name, prompt, SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True))

    for number in range(readers):
        engine.add(request(f"reader {number}", 20, ANSWER))
    alone: list[float] = []
    beside: list[float] = []
    began = time.process_time()
    step = 0
    while not engine.idle:
        if step == WARM:
            for number in range(prompts):
                engine.add(request(f"prompt {number}", PROMPT, 8))
        before, written = engine.stats.prompt_tokens, engine.stats.decode_tokens
        start = time.perf_counter()
        engine.step()
        gap = time.perf_counter() - start
        step += 1
        if 5 < step < WARM:
            alone.append(gap)
        elif step > WARM and engine.stats.prompt_tokens > before and engine.stats.decode_tokens > written:
            beside.append(gap)
    return Round(time.process_time() - began, alone, beside)


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
    ways = {"paced": EngineConfig(speculate=False), "unpaced": MODEL_ALONE}
    rounds: dict[str, list[Round]] = {name: [] for name in ways}
    for number in range(options.rounds):
        for name in sorted(ways, reverse=bool(number % 2)):
            rounds[name].append(measure(runner, ways[name], options.readers, options.prompts))
    for name, found in rounds.items():
        ratio = statistics.median(p99(r.beside) / p99(r.alone) for r in found)
        middle = statistics.median(statistics.median(r.beside) / statistics.median(r.alone) for r in found)
        cpu = statistics.median(r.cpu for r in found)
        print(
            f"{name:>8}: gap beside prompts {middle:.2f} x median, {ratio:.2f} x p99; {cpu:.2f} CPU-s a round"
        )
    pairs = zip(rounds["paced"], rounds["unpaced"], strict=True)
    loss = statistics.median(1 - unpaced.cpu / paced.cpu for paced, unpaced in pairs)
    print(f"throughput lost to pacing: {loss:.1%}")


if __name__ == "__main__":
    main()
