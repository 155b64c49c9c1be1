"""The CPU backend: C kernels, and a tape that makes a forward pass one call.

A model's forward is run once with a recorder in place of arithmetic. Every operation notes down what to do
and where its operands live; buffers have room for the largest batch, so the same tape serves any number of
tokens. Replaying it is a single C call without Python, and without the interpreter's lock, in between: the
CPU's counterpart to a CUDA graph. A buffer returns to the pool when the tensor standing for it dies during
recording, so reference counting is the liveness analysis.
"""

from __future__ import annotations

import ctypes
import logging
import math
import mmap
import weakref
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from inference.batch import Batch
from inference.errors import KernelError
from inference.kernels.base import Heads, Kernels, LayerCache, Matrix
from inference.kernels.cpu import build
from inference.kernels.cpu.layout import BLOCK, pack, pack_quantized
from inference.quantize import GROUP, Quantized

log = logging.getLogger("inference")

EMBED, NORM, ADD_NORM, LINEAR, ROPE_STORE, ATTENTION, SILU_MUL, GATHER = range(8)
KINDS = {"float32": 0, "bfloat16": 1, "int8": 2, "int4": 3}

_INTS = ("kind", "dtype", "n", "k", "heads", "kv_heads", "head_dim", "unused")
_POINTERS = ("x", "y", "r", "w", "scale", "bias", "q_norm", "k_norm", "k_cache", "v_cache")


class Op(ctypes.Structure):
    """op_t of ops.h."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in _INTS),
        *((name, ctypes.c_void_p) for name in _POINTERS),
        ("eps", ctypes.c_float),
    ]


class BatchStruct(ctypes.Structure):
    """batch_t of ops.h."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("tokens", "seqs", "rows", "table_stride", "threads", "tiles")),
        *(
            (name, ctypes.c_void_p)
            for name in ("ids", "positions", "slots", "starts", "table", "row_index", "scratch")
        ),
    ]


def _untouched_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros that cost no memory until somebody writes to them; torch.zeros would write them all at once."""
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


class CpuKernels(Kernels):
    """C kernels on `threads` threads, for batches of up to `capacity` tokens and `rows` logit rows.

    Activations are f32 whatever the weights are. Quantised weights meet inputs rounded to int8 (64 share a
    scale); bf16 weights meet f32 inputs, or inputs rounded to bf16 where the CPU multiplies those.

    :raises KernelError: they cannot be compiled here.
    """

    name = "cpu"

    def __init__(self, dtype: torch.dtype, *, threads: int = 1, capacity: int = 512, rows: int = 512) -> None:
        super().__init__(dtype)
        if dtype not in (torch.float32, torch.bfloat16):
            raise KernelError(
                f"The CPU kernels compute float32 or bfloat16 weights, not {dtype}. Use --dtype."
            )
        self.lib = build.library()
        self.lib.toolyard_read.restype = ctypes.c_float
        if threads > 1 and not self.lib.toolyard_has_openmp():
            log.warning(
                "The C compiler has no OpenMP, so the kernels run on one thread and not on %d.", threads
            )
        self.tiles = bool(self.lib.toolyard_tiles())  # AMX: the CPU has it, and the kernel lets us
        self.granule = BLOCK if self.tiles and dtype == torch.bfloat16 else 1
        self.threads, self.capacity, self.rows = threads, capacity, min(rows, capacity)
        self._ops: list[Op] = []
        self._keep: list[object] = []  # whatever the tape points to
        self._pool: dict[tuple[int, int], list[Tensor]] = {}
        self._tape: ctypes.Array[Op] | None = None
        self._logits: Tensor | None = None
        self._scratch_width = 1
        self._after_gather = False

    # ------------------------------------------------------------------ load time
    def matrix(self, weight: Tensor | Quantized, bias: Tensor | None = None) -> Matrix:
        n = len(weight.values) if isinstance(weight, Quantized) else len(weight)
        wide = None if bias is None else torch.nn.functional.pad(bias.float(), (0, -n % BLOCK)).contiguous()
        if isinstance(weight, Quantized):
            self.granule = 1  # most of an integer product's time is for its scales, row by row
            words, scale = pack_quantized(weight)
            return Matrix(n, weight.inputs, words, wide, scale, f"int{weight.bits}")
        kind = str(self.dtype).removeprefix("torch.")
        return Matrix(n, weight.shape[1], pack(weight.to(self.dtype)), wide, kind=kind)

    def vector(self, values: Tensor) -> Tensor:
        return values.float().contiguous()

    def cache(self, pages: int, kv_heads: int, head_dim: int) -> LayerCache:
        if head_dim % BLOCK:
            raise KernelError(f"The CPU kernels need a head_dim that is a multiple of 16, not {head_dim}.")
        shape = (pages, kv_heads, self.page_size * head_dim)
        return LayerCache(_untouched_zeros(shape, self.dtype), _untouched_zeros(shape, self.dtype))

    def scrub(self, caches: list[LayerCache], pages: list[int]) -> None:
        for c in caches:
            c.keys[pages] = 0
            c.values[pages] = 0

    # ------------------------------------------------------------------ recording
    def _buffer(self, width: int) -> Tensor:
        rows = self.rows if self._after_gather else self.capacity
        free = self._pool.setdefault((rows, width), [])
        if free:
            storage = free.pop()
        else:
            storage = torch.empty(rows, width)
            self._keep.append(storage)
        handle = storage.view(rows, width)
        weakref.finalize(handle, free.append, storage)
        return handle

    def _note(self, kind: int, eps: float = 0.0, /, **fields: int | Tensor | None) -> None:
        values: dict[str, int] = {}
        for name, value in fields.items():
            if isinstance(value, Tensor):
                self._keep.append(value.untyped_storage())
                values[name] = value.data_ptr()
            elif value is not None:
                values[name] = value
        self._ops.append(Op(kind=kind, eps=eps, **values))

    def embed(self, table: Matrix) -> Tensor:
        out = self._buffer(table.inputs)
        self._note(EMBED, dtype=KINDS[table.kind], n=table.inputs, y=out, w=table.data, scale=table.scale)
        return out

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out = self._buffer(x.shape[1])
        self._note(NORM, eps, n=x.shape[1], x=x, y=out, w=weight)
        return out

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        out = self._buffer(x.shape[1])
        self._note(ADD_NORM, eps, n=x.shape[1], x=x, y=out, r=residual, w=weight)
        return out

    def linear(self, x: Tensor, weight: Matrix) -> Tensor:
        out = self._buffer(weight.outputs)
        width = -(-weight.inputs // GROUP) * GROUP
        self._scratch_width = max(self._scratch_width, width)
        self._note(
            LINEAR,
            dtype=KINDS[weight.kind],
            n=weight.outputs,
            k=weight.inputs,
            x=x,
            y=out,
            w=weight.data,
            scale=weight.scale,
            bias=weight.bias,
        )
        return out

    def _heads(self, heads: Heads, cache: LayerCache) -> dict[str, int | Tensor | None]:
        return {
            "dtype": KINDS[str(self.dtype).removeprefix("torch.")],
            "heads": heads.queries,
            "kv_heads": heads.keys,
            "head_dim": heads.size,
            "k_cache": cache.keys,
            "v_cache": cache.values,
        }

    def rope_store(self, qkv: Tensor, heads: Heads, cache: LayerCache) -> None:
        norms = {"q_norm": heads.q_norm, "k_norm": heads.k_norm}
        self._note(ROPE_STORE, heads.eps, y=qkv, w=heads.rope, **norms, **self._heads(heads, cache))

    def attention(self, qkv: Tensor, heads: Heads, cache: LayerCache) -> Tensor:
        out = self._buffer(heads.queries * heads.size)
        self._note(ATTENTION, x=qkv, y=out, **self._heads(heads, cache))
        return out

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        out = self._buffer(gate_up.shape[1] // 2)
        self._note(SILU_MUL, n=gate_up.shape[1] // 2, x=gate_up, y=out)
        return out

    def gather(self, x: Tensor) -> Tensor:
        self._after_gather = True
        out = self._buffer(x.shape[1])
        self._note(GATHER, n=x.shape[1], x=x, y=out)
        return out

    # ------------------------------------------------------------------ replaying
    def _record(self, forward: Callable[[], Tensor]) -> None:
        self._logits = forward()
        self._scratch = torch.empty(self.capacity * self._scratch_width)
        self._tape = (Op * len(self._ops))(*self._ops)

    def run(self, forward: Callable[[], Tensor], batch: Batch) -> Tensor:
        if self._tape is None:
            self._record(forward)
        assert self._tape is not None
        assert self._logits is not None
        if len(batch.ids) > self.capacity or len(batch.rows) > self.rows:
            raise KernelError(
                f"{len(batch.ids)} tokens, {len(batch.rows)} rows exceed {self.capacity}, {self.rows}"
            )
        arrays = (batch.ids, batch.positions, batch.slots, batch.starts, batch.tables, batch.rows)
        for array in arrays:
            assert array.dtype == np.int32
            assert array.flags.c_contiguous
        struct = BatchStruct(
            len(batch.ids),
            len(batch.tables),
            len(batch.rows),
            batch.tables.shape[1],
            self.threads,
            self.tiles,
            *(array.ctypes.data for array in arrays),
            self._scratch.data_ptr(),
        )
        self.lib.toolyard_run(self._tape, len(self._tape), ctypes.byref(struct))
        return self._logits[: len(batch.rows)]

    def read_bandwidth(self, megabytes: int = 256) -> float:
        """Bytes per second that one pass over memory reaches, with this backend's threads."""
        import time

        data = torch.ones(megabytes * 2**18)
        best = float("inf")
        for _ in range(4):
            start = time.perf_counter()
            self.lib.toolyard_read(
                ctypes.c_void_p(data.data_ptr()), ctypes.c_long(data.numel()), ctypes.c_int(self.threads)
            )
            best = min(best, time.perf_counter() - start)
        return data.numel() * 4 / best
