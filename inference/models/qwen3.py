"""Qwen3, dense (Yang et al., 2025): no biases, but an RMSNorm on each head of queries and keys."""

from __future__ import annotations

from inference.layers import Attention, BuildContext, GatedMLP
from inference.models.base import CausalLM


class Qwen3(CausalLM):
    def attention(self, ctx: BuildContext, prefix: str) -> Attention:
        bias = ctx.config.attention_bias
        return Attention(ctx, prefix, qkv_bias=bias, output_bias=bias, head_norms=True)

    def mlp(self, ctx: BuildContext, prefix: str) -> GatedMLP:
        return GatedMLP(ctx, prefix)
