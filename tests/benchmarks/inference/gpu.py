"""Everything that wants a GPU, in one run: are the kernels right, and what do they gain.

    python tests/benchmarks/inference/gpu.py --model DIR [--rounds 3]

First every Triton kernel against float64 (the tests marked `gpu`), then the same greedy tokens from the Triton
and the reference backend, then decode steps of both in alternating rounds, with the share of the bandwidth
roofline. Ends with an error where a check fails, and says so at once where there is no GPU.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from inference.bench import MODEL_ALONE, decode_steps, read_bandwidth
from inference.engine import Engine, EngineConfig
from inference.runner import ModelRunner, RunnerConfig
from inference.sequence import Request, SamplingParams

TESTS = Path(__file__).parents[2] / "inference" / "test_inference_kernels.py"
BACKENDS = ("triton", "reference")


def kernels_are_right() -> bool:
    """The kernel tests on the GPU; a skipped test is no proof."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-m", "gpu", str(TESTS)]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout[-2000:], done.stderr[-500:])
    return done.returncode == 0 and "passed" in done.stdout and "skipped" not in done.stdout


def tokens(runner: ModelRunner, prompts: list[tuple[int, ...]]) -> dict[str, list[int]]:
    """Greedy tokens: one long prompt beside short ones, in chunks."""
    params = SamplingParams(max_tokens=32, temperature=0.0, ignore_eos=True)
    engine = Engine(runner, EngineConfig(speculate=False, check_cache=True))
    return engine.generate(Request(str(i), prompt, params) for i, prompt in enumerate(prompts))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    a = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("This torch sees no CUDA device: nothing was checked.")
    print(torch.cuda.get_device_name())
    if not kernels_are_right():
        sys.exit("The kernels are not right on this GPU: no speed is worth measuring.")

    def load(backend: str, dtype: str) -> ModelRunner:
        return ModelRunner(
            a.model, RunnerConfig(device="cuda", backend=backend, dtype=dtype, kv_tokens=16384)
        )

    exact = {backend: load(backend, "float32") for backend in BACKENDS}
    vocabulary = exact["triton"].model_config.vocabulary
    prompts = [tuple((j * 37 + i) % vocabulary for j in range(n)) for i, n in enumerate((700, 20, 33, 5))]
    both = [tokens(exact[backend], prompts) for backend in BACKENDS]
    alike = sum(x == y for name in both[0] for x, y in zip(both[0][name], both[1][name], strict=True))
    print(f"greedy tokens in fp32, Triton against torch: {alike} of {sum(map(len, both[0].values()))} alike")
    del exact
    runners = {backend: load(backend, "bfloat16") for backend in BACKENDS}
    bandwidth = read_bandwidth(runners["triton"])
    for batch in a.batches:
        times: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
        for number in range(a.rounds):
            for backend in BACKENDS if number % 2 else reversed(BACKENDS):
                engine = Engine(runners[backend], MODEL_ALONE)
                some = [tuple((j * 37 + i) % vocabulary for j in range(512)) for i in range(batch)]
                if batch * 600 > runners[backend].pages * runners[backend].page_size:
                    some = [p[:256] for p in some]
                times[backend].append(statistics.median(decode_steps(engine, some, 48)))
        for backend in BACKENDS:
            middle = statistics.median(times[backend])
            share = f"{runners[backend].decode_bytes / bandwidth / middle:.0%}" if bandwidth else "-"
            print(
                f"batch {batch:>3} {backend:>9}: {middle * 1e3:7.3f} ms a step, {batch / middle:9.0f} tokens/s, "
                f"{share} of the roofline"
            )


if __name__ == "__main__":
    main()
