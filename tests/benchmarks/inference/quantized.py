"""Decode speed with int8 and int4 weights against the model's own bf16, in one run.

python tests/benchmarks/inference/quantized.py --model DIR [--batch 1] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics

import torch

from inference.bench import MODEL_ALONE, decode_steps, read_bandwidth
from inference.engine import Engine
from inference.runner import ModelRunner, RunnerConfig

KINDS = ("none", "int8", "int4")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    a = parser.parse_args()
    runners = {
        kind: ModelRunner(a.model, RunnerConfig(threads=a.threads, quantize=kind, kv_tokens=4096))
        for kind in KINDS
    }
    torch.set_num_threads(a.threads)
    speeds: list[float] = []
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(a.rounds):
        speeds += filter(None, [read_bandwidth(runners["none"])])
        for kind in KINDS if number % 2 else reversed(KINDS):
            engine = Engine(runners[kind], MODEL_ALONE)
            vocabulary = runners[kind].model_config.vocabulary
            prompts = [tuple((j * 37 + i) % vocabulary for j in range(32)) for i in range(a.batch)]
            times[kind].append(statistics.median(decode_steps(engine, prompts, a.tokens)))
    bandwidth = statistics.median(speeds) if speeds else None
    own = statistics.median(times["none"])
    for kind in KINDS:
        middle = statistics.median(times[kind])
        share = ""
        if bandwidth:
            share = f", {runners[kind].decode_bytes / bandwidth / middle:.0%} of its roofline"
        spread = f"{min(times[kind]) * 1e3:.2f}-{max(times[kind]) * 1e3:.2f}"
        name = "own dtype" if kind == "none" else kind
        print(f"{name:>9}: {middle * 1e3:7.2f} ms a step ({spread}), {own / middle:.2f} x{share}")


if __name__ == "__main__":
    main()
