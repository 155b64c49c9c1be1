"""Grouped-query attention over the paged cache (Ainslie et al., "GQA", EMNLP 2023)."""

from __future__ import annotations

from torch import Tensor

from inference.kernels.base import Heads
from inference.layers.context import BuildContext


class Attention:
    """qkv product, optional per-head norms, rotation, cache write, attention, output product."""

    def __init__(
        self,
        ctx: BuildContext,
        prefix: str,
        *,
        qkv_bias: bool = False,
        output_bias: bool = False,
        head_norms: bool = False,
    ) -> None:
        c = ctx.config
        wide, narrow = c.heads * c.head_dim, c.kv_heads * c.head_dim
        self.kernels = ctx.kernels
        sizes = {"q_proj": wide, "k_proj": narrow, "v_proj": narrow}
        self.qkv = ctx.linear(prefix, sizes, c.hidden, bias=qkv_bias)
        self.output = ctx.linear(prefix, {"o_proj": c.hidden}, wide, bias=output_bias)
        norms = [ctx.vector(f"{prefix}.{n}.weight", c.head_dim) for n in ("q_norm", "k_norm") if head_norms]
        self.heads = Heads(c.heads, c.kv_heads, c.head_dim, ctx.rope, c.eps, *norms)
        self.cache = ctx.cache()

    def __call__(self, x: Tensor) -> Tensor:
        qkv = self.kernels.linear(x, self.qkv)
        self.kernels.rope_store(qkv, self.heads, self.cache)
        return self.kernels.linear(self.kernels.attention(qkv, self.heads, self.cache), self.output)
