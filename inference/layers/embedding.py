"""Token ids to vectors, and vectors to logits; often with one matrix for both (tied)."""

from __future__ import annotations

from torch import Tensor

from inference.kernels.base import Matrix
from inference.layers.context import BuildContext


class Embedding:
    def __init__(self, ctx: BuildContext, prefix: str, name: str) -> None:
        self.kernels = ctx.kernels
        self.table = ctx.linear(prefix, {name: ctx.config.vocabulary}, ctx.config.hidden)

    def __call__(self) -> Tensor:
        return self.kernels.embed(self.table)


class Head:
    """Logits of the rows that want them. Tied: the embedding's matrix, not stored twice."""

    def __init__(self, ctx: BuildContext, embedding: Embedding) -> None:
        self.kernels = ctx.kernels
        self.matrix: Matrix = embedding.table if ctx.config.tied else self._own(ctx)

    @staticmethod
    def _own(ctx: BuildContext) -> Matrix:
        name, c = "lm_head.weight", ctx.config
        from inference.quantize import quantize

        weight = ctx.checkpoint.tensor(name, c.vocabulary, c.hidden)
        return ctx.kernels.matrix(quantize(weight, ctx.bits) if ctx.bits else weight)

    def __call__(self, x: Tensor) -> Tensor:
        return self.kernels.linear(self.kernels.gather(x), self.matrix)
