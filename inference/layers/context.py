"""What a layer needs while it is built."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from inference.kernels.base import Kernels, LayerCache, Matrix
from inference.loader import Checkpoint
from inference.models.config import ModelConfig
from inference.quantize import quantize


@dataclass(slots=True)
class BuildContext:
    """Checkpoint in, backend weights out. `bits` is 0 for no quantisation."""

    config: ModelConfig
    checkpoint: Checkpoint
    kernels: Kernels
    rope: Tensor
    pages: int
    bits: int = 0
    caches: list[LayerCache] = field(default_factory=list)

    def linear(self, prefix: str, names: dict[str, int], inputs: int, *, bias: bool = False) -> Matrix:
        """One matrix from several, stacked by outputs: fewer and longer products."""
        weights = [self.checkpoint.tensor(f"{prefix}.{name}.weight", n, inputs) for name, n in names.items()]
        stacked = torch.cat(weights) if len(weights) > 1 else weights[0]
        offsets = None
        if bias:
            offsets = torch.cat(
                [self.checkpoint.tensor(f"{prefix}.{name}.bias", n) for name, n in names.items()]
            )
        return self.kernels.matrix(quantize(stacked, self.bits) if self.bits else stacked, offsets)

    def vector(self, name: str, size: int) -> Tensor:
        return self.kernels.vector(self.checkpoint.tensor(name, size))

    def cache(self) -> LayerCache:
        made = self.kernels.cache(self.pages, self.config.kv_heads, self.config.head_dim)
        self.caches.append(made)
        return made
