"""Plain torch, written to be read and trusted: tests check it against float64, and all else against it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from inference.batch import Batch
from inference.kernels.base import Heads, Kernels, LayerCache, Matrix
from inference.quantize import Quantized, dequantize


class ReferenceKernels(Kernels):
    name = "reference"

    def __init__(self, dtype: torch.dtype, device: str = "cpu") -> None:
        super().__init__(dtype)
        self.device = torch.device(device)
        self.batch: Batch | None = None

    def matrix(self, weight: Tensor | Quantized, bias: Tensor | None = None) -> Matrix:
        data = dequantize(weight) if isinstance(weight, Quantized) else weight
        data = data.to(self.device, self.dtype)
        kind = str(self.dtype).removeprefix("torch.")
        offsets = None if bias is None else bias.to(self.device, self.dtype)
        return Matrix(data.shape[0], data.shape[1], data, offsets, kind=kind)

    def vector(self, values: Tensor) -> Tensor:
        return values.to(self.device, self.dtype)

    def cache(self, pages: int, kv_heads: int, head_dim: int) -> LayerCache:
        shape = (pages * self.page_size, kv_heads, head_dim)
        keys = torch.zeros(shape, dtype=self.dtype, device=self.device)
        return LayerCache(keys, keys.clone())

    def scrub(self, caches: list[LayerCache], pages: list[int]) -> None:
        for c in caches:
            for page in pages:
                at = slice(page * self.page_size, (page + 1) * self.page_size)
                c.keys[at] = 0
                c.values[at] = 0

    def _int(self, values: object) -> Tensor:
        return torch.as_tensor(values, device=self.device).long()

    def _now(self) -> Batch:
        assert self.batch is not None, "an operation outside of run()"
        return self.batch

    def embed(self, table: Matrix) -> Tensor:
        rows: Tensor = table.data[self._int(self._now().ids)]
        return rows

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        return normed.to(x.dtype) * weight

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        residual += x
        return self.rms_norm(residual, weight, eps)

    def linear(self, x: Tensor, weight: Matrix) -> Tensor:
        return torch.nn.functional.linear(x, weight.data, weight.bias)

    def rope_store(self, qkv: Tensor, heads: Heads, cache: LayerCache) -> None:
        batch = self._now()
        q, k, v = self._split(qkv, heads)
        if heads.q_norm is not None and heads.k_norm is not None:
            q.copy_(self.rms_norm(q, heads.q_norm, heads.eps))
            k.copy_(self.rms_norm(k, heads.k_norm, heads.eps))
        angles = heads.rope.to(self.device)[self._int(batch.positions)][:, None]
        cos, sin = (part.repeat(1, 1, 2).to(qkv.dtype) for part in angles.chunk(2, -1))
        for x in (q, k):
            left, right = x.chunk(2, -1)
            x.copy_(x * cos + torch.cat((-right, left), -1) * sin)
        slots = self._int(batch.slots)
        cache.keys[slots] = k
        cache.values[slots] = v

    @staticmethod
    def _split(qkv: Tensor, heads: Heads) -> tuple[Tensor, ...]:
        view, ends = qkv.view(len(qkv), -1, heads.size), heads.queries + heads.keys
        return view[:, : heads.queries], view[:, heads.queries : ends], view[:, ends:]

    def attention(self, qkv: Tensor, heads: Heads, cache: LayerCache) -> Tensor:
        batch = self._now()
        q = self._split(qkv, heads)[0]
        out = torch.empty_like(q)
        for s, (start, end) in enumerate(zip(batch.starts, batch.starts[1:], strict=False)):
            position = self._int(batch.positions[start:end])
            index = torch.arange(int(position[-1]) + 1, device=self.device)
            table = self._int(batch.tables[s])
            slots = table[index // self.page_size] * self.page_size + index % self.page_size
            group = heads.queries // heads.keys
            keys = cache.keys[slots].repeat_interleave(group, 1)
            values = cache.values[slots].repeat_interleave(group, 1)
            scores = torch.einsum("qhd,khd->hqk", q[start:end], keys).float() * heads.size**-0.5
            scores.masked_fill_(index[None, None, :] > position[None, :, None], -torch.inf)
            weights = scores.softmax(-1).to(q.dtype)
            out[start:end] = torch.einsum("hqk,khd->qhd", weights, values)
        return out.view(len(qkv), -1)

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, -1)
        return torch.nn.functional.silu(gate) * up

    def gather(self, x: Tensor) -> Tensor:
        return x[self._int(self._now().rows)]

    @torch.inference_mode()
    def run(self, forward: Callable[[], Tensor], batch: Batch) -> Tensor:
        self.batch = batch
        try:
            return forward().float()
        finally:
            self.batch = None
