"""Qwen2 and Qwen2.5 (Yang et al., 2024): Llama with biases on queries, keys and values."""

from __future__ import annotations

from inference.layers import Attention, BuildContext, GatedMLP
from inference.models.base import CausalLM


class Qwen2(CausalLM):
    def attention(self, ctx: BuildContext, prefix: str) -> Attention:
        return Attention(ctx, prefix, qkv_bias=True)

    def mlp(self, ctx: BuildContext, prefix: str) -> GatedMLP:
        return GatedMLP(ctx, prefix)
