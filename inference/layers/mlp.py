"""The gated feed-forward layer: down(silu(gate(x)) * up(x)) (Shazeer, "GLU Variants", 2020)."""

from __future__ import annotations

from torch import Tensor

from inference.layers.context import BuildContext


class GatedMLP:
    def __init__(self, ctx: BuildContext, prefix: str, *, bias: bool = False) -> None:
        hidden, wide = ctx.config.hidden, ctx.config.intermediate
        self.kernels = ctx.kernels
        self.gate_up = ctx.linear(prefix, {"gate_proj": wide, "up_proj": wide}, hidden, bias=bias)
        self.down = ctx.linear(prefix, {"down_proj": hidden}, wide, bias=bias)

    def __call__(self, x: Tensor) -> Tensor:
        return self.kernels.linear(self.kernels.silu_mul(self.kernels.linear(x, self.gate_up)), self.down)
