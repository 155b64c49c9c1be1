"""The decoder that Llama, Qwen2 and Qwen3 share; a family says what its attention and feed-forward are."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from inference.layers import Attention, BuildContext, Embedding, GatedMLP, Head, RMSNorm


class DecoderLayer:
    """x = x + attention(norm(x)); x = x + mlp(norm(x)). The sum lives in `residual`, updated in place."""

    def __init__(self, ctx: BuildContext, prefix: str, attention: Attention, mlp: GatedMLP) -> None:
        self.input_norm = RMSNorm(ctx, f"{prefix}.input_layernorm")
        self.post_norm = RMSNorm(ctx, f"{prefix}.post_attention_layernorm")
        self.attention, self.mlp = attention, mlp

    def __call__(self, x: Tensor | None, residual: Tensor) -> Tensor:
        normed = self.input_norm(residual) if x is None else self.input_norm(x, residual)
        return self.mlp(self.post_norm(self.attention(normed), residual))


class CausalLM(ABC):
    """A decoder-only language model, ready to be run by its kernels: call it for the batch's logits."""

    def __init__(self, ctx: BuildContext) -> None:
        self.config = ctx.config
        self.embedding = Embedding(ctx, "model", "embed_tokens")
        self.layers = []
        for i in range(ctx.config.layers):
            prefix = f"model.layers.{i}"
            attention, mlp = self.attention(ctx, f"{prefix}.self_attn"), self.mlp(ctx, f"{prefix}.mlp")
            self.layers.append(DecoderLayer(ctx, prefix, attention, mlp))
        self.norm = RMSNorm(ctx, "model.norm")
        self.head = Head(ctx, self.embedding)

    @abstractmethod
    def attention(self, ctx: BuildContext, prefix: str) -> Attention: ...

    @abstractmethod
    def mlp(self, ctx: BuildContext, prefix: str) -> GatedMLP: ...

    def __call__(self) -> Tensor:
        residual, x = self.embedding(), None
        for layer in self.layers:
            x = layer(x, residual)
        assert x is not None
        return self.head(self.norm(x, residual))
