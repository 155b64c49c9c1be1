"""RMSNorm, alone or fused with the residual addition before it."""

from __future__ import annotations

from torch import Tensor

from inference.layers.context import BuildContext


class RMSNorm:
    def __init__(self, ctx: BuildContext, name: str) -> None:
        self.kernels, self.eps = ctx.kernels, ctx.config.eps
        self.weight = ctx.vector(f"{name}.weight", ctx.config.hidden)

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalised x; with a residual, x is added to it in place and the sum is normalised."""
        if residual is None:
            return self.kernels.rms_norm(x, self.weight, self.eps)
        return self.kernels.add_rms_norm(x, residual, self.weight, self.eps)
