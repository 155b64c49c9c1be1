"""Measure a model on this machine: throughput, TTFT, TPOT, share of the roofline.

A decode step must read every weight once, so the machine's read bandwidth, measured in the same run, bounds
it: bytes of weights / bandwidth is the roofline, and the share says how near the engine comes.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from inference.engine import Engine, EngineConfig
from inference.kernels.cpu.backend import CpuKernels
from inference.runner import ModelRunner
from inference.sequence import Request, SamplingParams

MODEL_ALONE = EngineConfig(speculate=False, stretch=math.inf)
"""What shows a model's speed: nothing is guessed, and no prompt waits for the sake of readers."""


@dataclass(frozen=True, slots=True)
class DecodeResult:
    """`tpot`: median seconds of a step. `roofline`: share of the bandwidth bound, None without a measure."""

    batch: int
    tpot: float
    tokens_per_second: float
    roofline: float | None


@dataclass(frozen=True, slots=True)
class PromptResult:
    """Seconds to the first token of a prompt never seen, and of one whose prefix is in the cache."""

    tokens: int
    cold: float
    warm: float


@dataclass(frozen=True, slots=True)
class Report:
    model: str
    backend: str
    weight_bytes: int
    bandwidth: float | None
    decode: tuple[DecodeResult, ...]
    prompts: tuple[PromptResult, ...]


def read_bandwidth(runner: ModelRunner) -> float | None:
    """Bytes per second of reading memory; None where there is nothing to measure it with."""
    if isinstance(runner.kernels, CpuKernels):
        return runner.kernels.read_bandwidth()
    if runner.config.device.startswith("cuda"):
        data = torch.ones(2**28, device=runner.config.device)
        data.sum()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            data.sum()
        torch.cuda.synchronize()
        return 10 * data.numel() * 4 / (time.perf_counter() - start)
    return None


def measure(
    runner: ModelRunner,
    *,
    batches: Iterable[int] = (1, 8, 32),
    prompts: Iterable[int] = (128, 1024),
    tokens: int = 48,
    rounds: int = 3,
) -> Report:
    """Run the bench. Every figure is a median over `rounds`."""
    rng = np.random.default_rng(0)
    vocabulary = runner.model_config.vocabulary

    def prompt(n: int) -> tuple[int, ...]:
        return tuple(int(t) for t in rng.integers(0, vocabulary, n))

    def engine() -> Engine:
        return Engine(runner, MODEL_ALONE)

    _first_token(engine(), prompt(8))  # page in the weights
    room = runner.pages * runner.page_size
    sizes = [batch for batch in batches if batch * (32 + tokens) <= room and batch <= 64]
    steps: dict[int, list[float]] = {batch: [] for batch in sizes}
    speeds = []
    for _ in range(rounds):  # bandwidth in each round too: what else the machine does slows both
        speeds.append(read_bandwidth(runner))
        for batch in sizes:
            steps[batch] += decode_steps(engine(), [prompt(32) for _ in range(batch)], tokens)
    bandwidth = None if None in speeds else statistics.median(s for s in speeds if s is not None)
    decode = []
    for batch in sizes:
        tpot = statistics.median(steps[batch])
        share = None if bandwidth is None else runner.decode_bytes / bandwidth / tpot
        decode.append(DecodeResult(batch, tpot, batch / tpot, share))
    results = []
    for n in prompts:
        if n + 32 > min(room, runner.context):
            continue
        cold, warm = [], []
        for _ in range(rounds):
            shared, one = prompt(n - 16), engine()
            cold.append(_first_token(one, shared + prompt(16)))
            warm.append(_first_token(one, shared + prompt(16)))
        results.append(PromptResult(n, statistics.median(cold), statistics.median(warm)))
    return Report(
        Path(runner.folder).resolve().name,
        runner.kernels.name,
        runner.decode_bytes,
        bandwidth,
        tuple(decode),
        tuple(results),
    )


def _params(tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)


def _first_token(engine: Engine, prompt: tuple[int, ...]) -> float:
    start = time.perf_counter()
    engine.generate([Request("bench", prompt, _params(1))])
    return time.perf_counter() - start


def decode_steps(engine: Engine, prompts: list[tuple[int, ...]], tokens: int) -> list[float]:
    """Seconds of each step in which all sequences decode."""
    for i, prompt in enumerate(prompts):
        engine.add(Request(str(i), prompt, _params(tokens)))
    steps = []
    while not engine.idle:
        before, computed = engine.stats.decode_tokens, engine.stats.prompt_tokens
        start = time.perf_counter()
        engine.step()
        seconds = time.perf_counter() - start
        if engine.stats.decode_tokens - before == len(prompts) and engine.stats.prompt_tokens == computed:
            steps.append(seconds)
    return steps
