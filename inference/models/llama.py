"""Llama 2 and 3 (Touvron et al., 2023; Dubey et al., 2024): grouped queries, biases only by config."""

from __future__ import annotations

from inference.layers import Attention, BuildContext, GatedMLP
from inference.models.base import CausalLM


class Llama(CausalLM):
    def attention(self, ctx: BuildContext, prefix: str) -> Attention:
        bias = ctx.config.attention_bias
        return Attention(ctx, prefix, qkv_bias=bias, output_bias=bias)

    def mlp(self, ctx: BuildContext, prefix: str) -> GatedMLP:
        return GatedMLP(ctx, prefix, bias=ctx.config.mlp_bias)
