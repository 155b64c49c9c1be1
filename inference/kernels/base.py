"""The seam between a model (an architecture) and the machine that computes it.

A model calls these operations in order and never looks inside the tensors they return. A backend may compute
at once (reference, Triton) or note the calls down and replay the list for each batch (CPU).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.batch import Batch
from inference.quantize import Quantized


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """A weight [outputs, inputs] in the backend's own layout, made by `Kernels.matrix`."""

    outputs: int
    inputs: int
    data: Any
    bias: Tensor | None = None
    scale: Tensor | None = None
    kind: str = "float32"  # float32, bfloat16, int8, int4

    @property
    def nbytes(self) -> int:
        parts = [self.data, self.scale, self.bias]
        return sum(p.numel() * p.element_size() for p in parts if isinstance(p, Tensor))


@dataclass(frozen=True, slots=True, eq=False)
class LayerCache:
    """Keys and values of one layer, in the backend's own layout."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """Shape and parameters of an attention layer. `rope`: [positions, head_dim] f32, cosines then sines."""

    queries: int
    keys: int
    size: int
    rope: Tensor
    eps: float
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None


class Kernels(ABC):
    """One machine. `dtype` is that of weights and cache; activations are the backend's choice."""

    name: str
    page_size: int = 16
    granule: int = 1
    """Rows that a product computes together: fewer cost as much."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    # ---- once, at load time
    @abstractmethod
    def matrix(self, weight: Tensor | Quantized, bias: Tensor | None = None) -> Matrix: ...

    @abstractmethod
    def vector(self, values: Tensor) -> Tensor:
        """A norm's weight, where and how the backend wants it."""

    @abstractmethod
    def cache(self, pages: int, kv_heads: int, head_dim: int) -> LayerCache:
        """Room for `pages` pages of one layer, zeroed."""

    @abstractmethod
    def scrub(self, caches: list[LayerCache], pages: list[int]) -> None:
        """Zero pages that may hold NaN: masked positions are multiplied by 0, and 0 * NaN is NaN."""

    # ---- in a model's forward pass, T tokens
    @abstractmethod
    def embed(self, table: Matrix) -> Tensor:
        """[T, inputs]: the rows of the batch's token ids."""

    @abstractmethod
    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, NeurIPS 2019)."""

    @abstractmethod
    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        """residual += x, in place; returns rms_norm(residual)."""

    @abstractmethod
    def linear(self, x: Tensor, weight: Matrix) -> Tensor:
        """x @ weight.T + bias: [T, outputs]."""

    @abstractmethod
    def rope_store(self, qkv: Tensor, heads: Heads, cache: LayerCache) -> None:
        """Norm (if the model has it) and rotate queries and keys in place; write keys and values to the
        batch's slots. qkv: [T, (queries + 2 keys) * size]. RoPE: Su et al., 2021, half-split as in Llama."""

    @abstractmethod
    def attention(self, qkv: Tensor, heads: Heads, cache: LayerCache) -> Tensor:
        """Causal attention over the pages of each sequence: [T, queries * size]."""

    @abstractmethod
    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """silu(gate) * up, from [T, 2 F] to [T, F]."""

    @abstractmethod
    def gather(self, x: Tensor) -> Tensor:
        """[R, width]: the rows that want logits."""

    # ---- one step
    @abstractmethod
    def run(self, forward: Callable[[], Tensor], batch: Batch) -> Tensor:
        """Compute `forward` (a model) for a batch: logits [R, vocabulary] f32, valid until the next run."""
