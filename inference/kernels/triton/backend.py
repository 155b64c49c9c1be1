"""The GPU backend: torch's matrix products, our Triton kernels for the rest."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from inference.errors import KernelError
from inference.kernels.base import Heads, LayerCache
from inference.kernels.reference import ReferenceKernels
from inference.kernels.triton import attention as attention_kernels
from inference.kernels.triton import elementwise


class TritonKernels(ReferenceKernels):
    """The reference with its element-wise parts and attention replaced, in the same cache layout.

    On device "cpu" it runs in Triton's interpreter, for tests: TRITON_INTERPRET=1 must be set before Triton
    is first imported.

    :raises KernelError: no such device.
    """

    name = "triton"

    def __init__(self, dtype: torch.dtype, device: str = "cuda") -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise KernelError(
                "This torch sees no CUDA device. Use --device cpu, or install a CUDA build of torch."
            )
        if device == "cpu" and not triton.knobs.runtime.interpret:
            raise KernelError(
                "Triton runs on a CPU in its interpreter alone: set TRITON_INTERPRET=1 (for tests)."
            )
        super().__init__(dtype, device)

    def _norm(self, x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        out = torch.empty_like(x)
        width = x.shape[-1]
        grid = (x.numel() // width,)
        add = residual is not None
        block = triton.next_power_of_2(width)
        target = x if residual is None else residual
        elementwise.add_rms_norm[grid](x, target, weight, out, width, eps, ADD=add, BLOCK=block)
        return out

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return self._norm(x.contiguous(), None, weight, eps)

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        return self._norm(x, residual, weight, eps)

    def _int32(self, values: object) -> Tensor:
        return torch.as_tensor(values, device=self.device)

    def rope_store(self, qkv: Tensor, heads: Heads, cache: LayerCache) -> None:
        batch = self._now()
        normed = heads.q_norm is not None
        elementwise.rope_store[(len(qkv), heads.queries + 2 * heads.keys)](
            qkv,
            heads.rope,
            self._int32(batch.positions),
            self._int32(batch.slots),
            cache.keys,
            cache.values,
            heads.q_norm if normed else qkv,
            heads.k_norm if normed else qkv,
            heads.eps,
            Q=heads.queries,
            KV=heads.keys,
            D=heads.size,
            HALF=triton.next_power_of_2(heads.size // 2),
            NORM=normed,
        )

    def attention(self, qkv: Tensor, heads: Heads, cache: LayerCache) -> Tensor:
        batch = self._now()
        out = qkv.new_empty(len(qkv), heads.queries * heads.size)
        tables, positions = self._int32(batch.tables), self._int32(batch.positions)
        sizes = batch.starts[1:] - batch.starts[:-1]
        shape = {
            "Q": heads.queries,
            "KV": heads.keys,
            "D": heads.size,
            "DP": max(16, triton.next_power_of_2(heads.size)),
            "PAGE": self.page_size,
        }
        stride, scale = tables.shape[1], heads.size**-0.5
        if int(sizes.max()) == 1:
            share = max(16, triton.next_power_of_2(heads.queries // heads.keys))
            attention_kernels.decode[(len(sizes), heads.keys)](
                qkv, cache.keys, cache.values, tables, positions + 1, out, stride, scale, SHARE=share, **shape
            )
        else:
            tokens = 16
            grid = (len(sizes), triton.cdiv(int(sizes.max()), tokens), heads.queries)
            starts = self._int32(batch.starts)
            attention_kernels.prefill[grid](
                qkv,
                cache.keys,
                cache.values,
                tables,
                starts,
                positions,
                out,
                stride,
                scale,
                TOKENS=tokens,
                **shape,
            )
        return out

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        width = gate_up.shape[1] // 2
        out = gate_up.new_empty(len(gate_up), width)
        block = min(1024, triton.next_power_of_2(width))
        elementwise.silu_mul[(len(gate_up), triton.cdiv(width, block))](gate_up, out, width, BLOCK=block)
        return out
