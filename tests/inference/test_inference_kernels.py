"""Every backend's operations against the same formulas in float64.

Triton runs in its interpreter where there is no GPU; that has to be chosen before Triton is imported, so the
interpreter tests run in a child process of their own (see the last test).
"""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is missing: install toolyard[inference]")

from inference.batch import Batch  # noqa: E402
from inference.errors import KernelError  # noqa: E402
from inference.kernels.base import Heads, Kernels  # noqa: E402
from inference.kernels.cpu import build  # noqa: E402
from inference.kernels.cpu.backend import CpuKernels  # noqa: E402
from inference.kernels.reference import ReferenceKernels  # noqa: E402
from inference.layers.rotary import rope_table  # noqa: E402
from inference.models.config import ModelConfig  # noqa: E402
from inference.quantize import dequantize, quantize  # noqa: E402

EMULATION = Path(__file__).with_name("emulated_tiles.h")
EMULATED = [
    *(f"-D__AMX_{part}__" for part in ("TILE", "BF16", "INT8")),
    *("-include", str(EMULATION)),
    f"-DEMULATION={zlib.crc32(EMULATION.read_bytes())}",  # another text is another library
]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def triton(device: str, dtype) -> Kernels:
    pytest.importorskip("triton", reason="triton is missing: it has wheels for Linux x86-64")
    from inference.kernels.triton.backend import TritonKernels

    return TritonKernels(dtype, device)


def make(name: str, dtype=torch.float32, capacity: int = 64) -> Kernels:
    if name == "triton-gpu":
        if not torch.cuda.is_available():
            pytest.skip("GPU KERNELS ARE NOT TESTED ON A GPU HERE: this machine has none")
        return triton("cuda", dtype)
    if name == "triton-interpreter":
        return triton("cpu", dtype)
    if name == "reference":
        return ReferenceKernels(dtype)
    kernels = CpuKernels(dtype, capacity=capacity, rows=capacity)
    if name == "cpu-tiles" and not kernels.tiles:
        with patch.object(build, "FLAGS", build.FLAGS + EMULATED):
            kernels = CpuKernels(dtype, capacity=capacity, rows=capacity)
        if not kernels.tiles:
            pytest.skip(
                "AMX TILES ARE NOT TESTED HERE: this CPU has none, nor the vectors that stand beside them"
            )
    kernels.tiles = name == "cpu-tiles"
    return kernels


BACKENDS = (
    ["triton-interpreter"]
    if INTERPRETED
    else ["reference", "cpu", "cpu-tiles", pytest.param("triton-gpu", marks=pytest.mark.gpu)]
)
# The interpreter is slow: there, two shapes that differ in everything must do.
SHAPES = [(4, 2, 32), (6, 1, 48)] if INTERPRETED else [(4, 2, 32), (2, 2, 64), (6, 1, 128), (10, 5, 48)]
every_backend = pytest.mark.parametrize("name", BACKENDS)


def rand(*shape: int, seed: int = 0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(sizes: list[int], contexts: list[int], page_size: int) -> Batch:
    """`sizes` new tokens each, the last at `contexts` - 1; pages in a scattered order."""
    width = max(-(-c // page_size) for c in contexts)
    order = np.random.default_rng(0).permutation(len(sizes) * width).astype(np.int32)
    tables = order.reshape(len(sizes), width)
    positions = np.concatenate([np.arange(c - n, c) for n, c in zip(sizes, contexts, strict=True)]).astype(
        np.int32
    )
    owner = np.repeat(np.arange(len(sizes)), sizes)
    slots = tables[owner, positions // page_size] * page_size + positions % page_size
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    total = len(positions)
    ids = np.arange(total, dtype=np.int32)
    return Batch(ids, positions, slots.astype(np.int32), starts, tables, np.arange(total, dtype=np.int32))


def run(kernels: Kernels, b: Batch, forward):
    """Run operations for a batch. The C backend replays buffers, so inputs enter through an embedding."""
    return kernels.run(forward, b)[: len(b.rows)].double().cpu()


def inputs(kernels: Kernels, x):
    """A tensor as an embedding table whose row i is x[i]: how data enters any backend."""
    return kernels.matrix(x.to(kernels.dtype))


def close(ours, exact, kernels: Kernels, factor: float = 1.0) -> bool:
    tolerance = (2e-5 if kernels.dtype == torch.float32 else 2e-2) * factor
    return bool((ours - exact).abs().max() <= tolerance * max(1.0, float(exact.abs().max())))


@every_backend
@pytest.mark.parametrize("width", [32, 100, 256])
def test_rms_norm_with_and_without_residual(name: str, width: int) -> None:
    kernels = make(name)
    x, w = rand(7, width), rand(width, seed=1)
    table, weight = inputs(kernels, x), kernels.vector(w)

    def forward():
        residual = kernels.embed(table)
        normed = kernels.rms_norm(residual, weight, 1e-6)
        return kernels.gather(kernels.add_rms_norm(normed, residual, weight, 1e-6))

    norm = lambda v: v / (v.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w  # noqa: E731
    exact = norm(x + norm(x))
    assert close(run(kernels, batch([7], [7], 16), forward), exact, kernels)


@every_backend
@pytest.mark.parametrize("width", [16, 208, 1000])
def test_silu_mul(name: str, width: int) -> None:
    kernels = make(name)
    x = rand(5, 2 * width) * 4
    x[:, 0] = torch.tensor([-100.0, -1000.0, 100.0, 1000.0, -88.0])  # where e^x overflows or vanishes
    table = inputs(kernels, x)
    ours = run(kernels, batch([5], [5], 16), lambda: kernels.gather(kernels.silu_mul(kernels.embed(table))))
    gate, up = x.float().double().chunk(2, -1)
    assert close(ours, gate * gate.sigmoid() * up, kernels)


@every_backend
@pytest.mark.parametrize(("q", "kv", "d"), SHAPES)
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("sizes", [[1, 1, 1], [5, 1, 20], [3, 40, 17]])
@pytest.mark.parametrize("dtype", ["float32"] if INTERPRETED else ["float32", "bfloat16"])
def test_rope_cache_and_attention(
    name: str, q: int, kv: int, d: int, normed: bool, sizes: list[int], dtype: str
) -> None:
    check_attention(make(name, getattr(torch, dtype)), (q, kv, d), normed, [17, 33, 3], sizes)


@every_backend
@pytest.mark.skipif(INTERPRETED, reason="slow in the interpreter, and blocks are the C kernels'")
@pytest.mark.parametrize(("q", "kv", "d"), SHAPES)
@pytest.mark.parametrize("sizes", [[1, 1, 1], [5, 60, 17]])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_over_long_prefixes(
    name: str, q: int, kv: int, d: int, sizes: list[int], dtype: str
) -> None:
    kernels = make(name, getattr(torch, dtype), capacity=700)
    check_attention(kernels, (q, kv, d), False, [127, 300, 250], sizes)


@pytest.mark.skipif(INTERPRETED, reason="C kernels")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_of_a_token_does_not_depend_on_those_beside_it(dtype: str) -> None:
    """So that chunks, and prefixes from the cache, change no token of an answer."""
    q, kv, d, before, new = 6, 2, 64, 200, 23
    kernels = make("cpu", getattr(torch, dtype), capacity=256)
    config = ModelConfig("x", 1, 1, q, kv, d, 1, 1, 256, 1e-6, True, False, False, 10000.0)
    heads = Heads(q, kv, d, rope_table(config, 256), 1e-6, None, None)
    table = inputs(kernels, rand(before + new, (q + 2 * kv) * d))
    cache = kernels.cache(16, kv, d)

    def forward():
        qkv = kernels.embed(table)
        kernels.rope_store(qkv, heads, cache)
        return kernels.gather(kernels.attention(qkv, heads, cache))

    pages = np.arange(16, dtype=np.int32)[None]

    def attended(first: int, end: int):
        at = np.arange(first, end, dtype=np.int32)
        starts = np.array([0, end - first], np.int32)
        rows = np.arange(end - first, dtype=np.int32)
        return run(kernels, Batch(at, at, at, starts, pages, rows), forward).clone()

    attended(0, before)
    together = attended(before, before + new)
    for size in (1, 5):
        firsts = range(before, before + new, size)
        apart = torch.cat([attended(i, min(i + size, before + new)) for i in firsts])
        assert torch.equal(apart, together)


def check_attention(
    kernels: Kernels, shape: tuple[int, int, int], normed: bool, before: list[int], sizes: list[int]
) -> None:
    """Fill a cache by one batch of prompts, then attend with a second batch that goes on after them."""
    q, kv, d = shape
    total, longest = sum(sizes), max(before) + max(sizes)
    config = ModelConfig("x", 1, 1, q, kv, d, 1, 1, longest, 1e-6, True, False, False, 10000.0)
    rope = rope_table(config, longest)
    norms = [kernels.vector(rand(d, seed=5 + i).abs()) if normed else None for i in range(2)]
    heads = Heads(q, kv, d, rope.to(norms[0].device) if normed else rope, 1e-6, *norms)
    contexts = [b + n for b, n in zip(before, sizes, strict=True)]
    late = batch(sizes, contexts, kernels.page_size)
    width = late.tables.shape[1]
    early = batch(before, before, kernels.page_size)
    slots = [
        late.tables[s, p // kernels.page_size] * kernels.page_size + p % kernels.page_size
        for s, n in enumerate(before)
        for p in range(n)
    ]
    early = Batch(
        early.ids, early.positions, np.array(slots, np.int32), early.starts, late.tables, early.rows
    )
    late = Batch(late.ids + sum(before), late.positions, late.slots, late.starts, late.tables, late.rows)
    x = rand(sum(before) + total, (q + 2 * kv) * d)
    table = inputs(kernels, x)
    cache = kernels.cache(len(before) * width, kv, d)

    def forward():
        qkv = kernels.embed(table)
        kernels.rope_store(qkv, heads, cache)
        return kernels.gather(kernels.attention(qkv, heads, cache))

    run(kernels, early, forward)
    ours = run(kernels, late, forward)
    exact = exact_attention(x.to(kernels.dtype).double(), early, late, heads, rope.double())
    assert close(ours, exact, kernels, 5 if kernels.dtype == torch.float32 else 1)


def exact_attention(x, early: Batch, late: Batch, heads: Heads, rope):
    view = x.view(len(x), -1, heads.size)

    def turned(part, norm, positions):
        if norm is not None:
            part = part / (part.square().mean(-1, keepdim=True) + heads.eps).sqrt() * norm.double().cpu()
        cos, sin = (a.repeat(1, 1, 2) for a in rope[torch.from_numpy(positions).long()][:, None].chunk(2, -1))
        left, right = part.chunk(2, -1)
        return part * cos + torch.cat((-right, left), -1) * sin

    positions = np.concatenate([early.positions, late.positions])
    queries = turned(view[:, : heads.queries], heads.q_norm, positions)
    keys = turned(view[:, heads.queries : heads.queries + heads.keys], heads.k_norm, positions)
    values = view[:, heads.queries + heads.keys :]
    out = []
    for s in range(len(late.starts) - 1):
        old = list(range(early.starts[s], early.starts[s + 1]))
        new = [len(early.ids) + t for t in range(late.starts[s], late.starts[s + 1])]
        rows, group = old + new, heads.queries // heads.keys
        k, v = (t[rows].repeat_interleave(group, 1) for t in (keys, values))
        for i, t in enumerate(new):
            seen = len(old) + i + 1
            weights = (torch.einsum("hd,khd->hk", queries[t], k[:seen]) * heads.size**-0.5).softmax(-1)
            out.append(torch.einsum("hk,khd->hd", weights, v[:seen]).reshape(-1))
    return torch.stack(out)


@pytest.mark.skipif(INTERPRETED, reason="products are torch's in the Triton backend")
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize(("n", "k"), [(64, 64), (50, 70), (200, 129), (16, 512), (90, 96)])
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 40])
@pytest.mark.parametrize("name", ["cpu", "cpu-tiles"])
def test_c_products_of_every_kind_and_shape(kind: str, n: int, k: int, tokens: int, name: str) -> None:
    dtype = torch.float32 if kind == "float32" else torch.bfloat16
    kernels = make(name, dtype)
    x, w, bias = rand(tokens, k), rand(n, k, seed=1), rand(n, seed=2)
    table = inputs(kernels, x)
    stored = w.to(dtype)
    if kind.startswith("int"):
        packed = quantize(w.float(), int(kind[3:]))
        stored = dequantize(packed)
        matrix = kernels.matrix(packed, bias)
    else:
        matrix = kernels.matrix(stored, bias)
    ours = run(
        kernels,
        batch([tokens], [tokens], 16),
        lambda: kernels.linear(kernels.gather(kernels.embed(table)), matrix),
    )
    met = x.to(dtype).double()
    if kind.startswith("int"):
        met = rounded(met.float()).double()
    exact = met @ stored.double().T + bias
    assert (ours - exact).abs().max() < 2e-4


def rounded(x):
    """Inputs as integer weights meet them: int8, one scale for each 64."""
    groups = torch.nn.functional.pad(x, (0, -x.shape[1] % 64)).view(len(x), -1, 64)
    peak = groups.abs().amax(-1, keepdim=True)
    inverse = torch.tensor(127.0) / peak  # `127 / peak` would be a reciprocal, rounded once more
    return ((groups * inverse).round() * (peak / 127)).view(len(x), -1)[:, : x.shape[1]]


@pytest.mark.skipif(INTERPRETED, reason="C kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_threads_compute_what_one_computes(dtype) -> None:
    x, w = rand(40, 128), rand(300, 128, seed=1).float()
    results = []
    for threads in (1, 2):
        kernels = CpuKernels(dtype, capacity=64, threads=threads)
        table, matrix = inputs(kernels, x), kernels.matrix(w)
        forward = lambda k=kernels, t=table, m=matrix: k.linear(k.gather(k.embed(t)), m)  # noqa: E731
        results.append(run(kernels, batch([40], [40], 16), forward))
    assert torch.equal(*results)


@pytest.mark.skipif(INTERPRETED, reason="C kernels")
def test_nan_passes_through_the_c_kernels() -> None:
    kernels = CpuKernels(torch.float32, capacity=64)
    x = rand(4, 64)
    x[2, 3] = float("nan")
    table, weight = inputs(kernels, x), kernels.vector(torch.ones(64))
    ours = run(
        kernels,
        batch([4], [4], 16),
        lambda: kernels.gather(kernels.silu_mul(kernels.rms_norm(kernels.embed(table), weight, 1e-6))),
    )
    assert ours[2].isnan().all()
    assert ours[[0, 1, 3]].isfinite().all()


@pytest.mark.skipif(INTERPRETED, reason="C kernels")
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_show_behind_integer_weights(bits: int, poison: float) -> None:
    kernels = CpuKernels(torch.float32, capacity=64)
    x = rand(3, 128)
    x[1, 70] = poison
    table, weight = inputs(kernels, x), kernels.matrix(quantize(rand(32, 128, seed=1).float(), bits))
    ours = run(
        kernels, batch([3], [3], 16), lambda: kernels.linear(kernels.gather(kernels.embed(table)), weight)
    )
    assert not ours[1].isfinite().any()
    assert ours[[0, 2]].isfinite().all()


@pytest.mark.skipif(INTERPRETED, reason="C kernels")
def test_without_a_compiler_torch_serves_and_the_log_says_why(monkeypatch, caplog) -> None:
    from inference.kernels.cpu import build
    from inference.runner import RunnerConfig, choose_kernels

    monkeypatch.setattr(build, "compiler", lambda: None)
    with pytest.raises(KernelError, match="Install one"):
        choose_kernels(RunnerConfig(backend="cpu"), torch.float32)
    assert choose_kernels(RunnerConfig(), torch.float32).name == "reference"
    assert "plain torch" in caplog.text


@pytest.mark.skipif(INTERPRETED, reason="C kernels")
def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path) -> None:
    from inference.kernels.cpu import build

    fake = tmp_path / "cc"
    fake.write_text("#!/bin/sh\necho 'no such instruction' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "compiler", lambda: str(fake))
    with pytest.raises(KernelError, match="no such instruction"):
        build.library()


@pytest.mark.skipif(INTERPRETED, reason="this is the test that starts the interpreter")
def test_the_triton_kernels_are_right_in_the_interpreter() -> None:
    pytest.importorskip("triton", reason="triton is missing: it has wheels for Linux x86-64")
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__],
        capture_output=True,
        text=True,
        env=env,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout


@pytest.mark.skipif(not INTERPRETED, reason="runs in the interpreter's process")
def test_a_model_on_triton_gives_the_references_tokens(tmp_path) -> None:
    from tiny_checkpoints import make_checkpoint

    from inference.engine import Engine, EngineConfig
    from inference.runner import ModelRunner, RunnerConfig
    from inference.sequence import Request, SamplingParams

    reference = make_checkpoint(tmp_path, "qwen3")
    runner = ModelRunner(tmp_path, RunnerConfig(backend="triton", dtype="float32", kv_tokens=256))
    engine = Engine(runner, EngineConfig(step_tokens=16, max_running=4, check_cache=True))
    params = SamplingParams(max_tokens=5, temperature=0.0, ignore_eos=True)
    prompts = {"a": tuple(range(20)), "b": tuple(range(9)), "c": (3, 1, 4)}
    ours = engine.generate([Request(k, p, params) for k, p in prompts.items()])
    for k, p in prompts.items():
        wanted = reference.greedy(list(p), 5)
        assert ours[k][: len(wanted)] == wanted
