"""Decode speed of the engine against transformers' `generate`, on your own model, in one run.

    python tests/benchmarks/inference/against_transformers.py --model DIR [--threads 1] [--rounds 3]

Rounds alternate between the two, so that a machine that drifts does so for both; medians and their spread are
printed, with the share of the memory roofline (bytes of weights / read bandwidth, measured in the same run).
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from transformers import AutoModelForCausalLM

from inference.bench import MODEL_ALONE, decode_steps, read_bandwidth
from inference.engine import Engine
from inference.runner import ModelRunner, RunnerConfig


def transformers_steps(model, prompt: list[int], tokens: int) -> list[float]:
    steps = []
    with torch.inference_mode():
        out = model(torch.tensor([prompt]), use_cache=True)
        for _ in range(tokens):
            token = out.logits[:, -1:].argmax(-1)
            start = time.perf_counter()
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
            steps.append(time.perf_counter() - start)
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--quantize", default="none", choices=["none", "int8", "int4"])
    a = parser.parse_args()
    runner = ModelRunner(a.model, RunnerConfig(threads=a.threads, quantize=a.quantize, kv_tokens=2048))
    theirs = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.bfloat16).eval()
    torch.set_num_threads(a.threads)
    speeds: list[float] = []
    prompt = [(i * 37) % runner.model_config.vocabulary for i in range(32)]
    times: dict[str, list[float]] = {"engine": [], "transformers": []}
    for round_ in range(a.rounds):
        speeds += filter(None, [read_bandwidth(runner)])
        for name in sorted(times, reverse=bool(round_ % 2)):
            if name == "engine":
                engine = Engine(runner, MODEL_ALONE)
                steps = decode_steps(engine, [tuple(prompt)], a.tokens)
            else:
                steps = transformers_steps(theirs, prompt, a.tokens)
            times[name].append(statistics.median(steps))
    bandwidth = statistics.median(speeds) if speeds else None
    for name, values in times.items():
        middle = statistics.median(values)
        share = ""
        if bandwidth:
            weights = runner.decode_bytes if name == "engine" else sum(p.nbytes for p in theirs.parameters())
            share = f"  {weights / bandwidth / middle:.0%} of roofline"
        spread = f"{min(values) * 1e3:.2f}-{max(values) * 1e3:.2f}"
        print(f"{name:>13}: {middle * 1e3:7.2f} ms a token ({spread}){share}")
    ratio = statistics.median(times["transformers"]) / statistics.median(times["engine"])
    speed = (bandwidth or 0) / 1e9
    print(f"engine is {ratio:.2f} x as fast (bandwidth {speed:.1f} GB/s, {a.threads} thread(s))")


if __name__ == "__main__":
    main()
