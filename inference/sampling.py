"""From logits to tokens, for all rows of a step at once.

Sampling draws argmax(p / e) with e ~ Exp(1) for each token, which is distributed as p (the Gumbel-max trick).
A seeded request takes its noise from a generator keyed by seed and position, so its tokens do not depend on
its neighbours, on chunking, or on preemption.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inference.grammar.base import Mask
from inference.sequence import SamplingParams


@dataclass(frozen=True, slots=True)
class Row:
    """One row of logits: whose it is, and at which position the token it gives will stand."""

    params: SamplingParams
    position: int
    mask: Mask | None = None  # what the grammar allows
    forbidden: tuple[int, ...] = ()  # tokens that may not come yet (end tokens before min_tokens)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability of the chosen token under the model (no temperature, no filters), and of the best."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Sampled:
    tokens: list[int]
    finite: list[bool]  # False: the row's logits hold NaN or infinity and its token means nothing
    logprobs: list[TokenLogprob | None]


class Sampler:
    def __init__(self, seed: int | None = None) -> None:
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)
        self._keyed = torch.Generator()

    @torch.inference_mode()
    def sample(self, logits: Tensor, rows: list[Row]) -> Sampled:
        """logits: [R, V] f32, not modified. Returns R tokens."""
        best, tokens = logits.max(-1)  # max hands NaN on, so one comparison a row finds a poisoned one
        finite = best.isfinite().tolist()
        special = [i for i, r in enumerate(rows) if r.mask is not None or r.forbidden or not r.params.greedy]
        chosen: list[int] = tokens.tolist()
        if special:
            narrowed = logits[special].cpu()
            self._mask(narrowed, [rows[i] for i in special])
            for i, token in zip(special, self._choose(narrowed, [rows[i] for i in special]), strict=True):
                chosen[i] = token
        logprobs: list[TokenLogprob | None] = [None] * len(rows)
        for i, row in enumerate(rows):
            if row.params.logprobs is not None and finite[i]:
                logprobs[i] = self._logprob(logits[i], chosen[i], row.params.logprobs)
        return Sampled(chosen, finite, logprobs)

    @staticmethod
    def _mask(logits: Tensor, rows: list[Row]) -> None:
        for i, row in enumerate(rows):
            if row.mask is not None:
                allowed = np.unpackbits(row.mask.view(np.uint8), bitorder="little")[: logits.shape[1]]
                logits[i].masked_fill_(torch.from_numpy(allowed == 0), -torch.inf)
            if row.forbidden:
                logits[i, list(row.forbidden)] = -torch.inf

    def _choose(self, logits: Tensor, rows: list[Row]) -> list[int]:
        params = [r.params for r in rows]
        if all(p.greedy for p in params):
            greedy: list[int] = logits.argmax(-1).tolist()
            return greedy
        scaled = logits / _column([p.temperature or 1.0 for p in params])
        if any(0 < p.top_k < scaled.shape[1] or p.top_p < 1 for p in params):
            scaled = self._top(scaled, params)
        probabilities = scaled.softmax(-1)
        if any(p.min_p > 0 for p in params):  # Nguyen et al., "Min-p", 2024
            floor = probabilities.amax(-1, keepdim=True) * _column([p.min_p for p in params])
            probabilities = probabilities.masked_fill(probabilities < floor, 0.0)
        drawn = (probabilities / self._noise(rows, scaled.shape[1])).argmax(-1)
        best = logits.argmax(-1)
        return [int(best[i] if p.greedy else drawn[i]) for i, p in enumerate(params)]

    @staticmethod
    def _top(scaled: Tensor, params: list[SamplingParams]) -> Tensor:
        """Keep the top_k best tokens, and of those the smallest set whose probability reaches top_p."""
        size = scaled.shape[1]
        ranked, order = scaled.sort(-1, descending=True)
        keep_k = torch.tensor([p.top_k if 0 < p.top_k < size else size for p in params])[:, None]
        ranked = ranked.masked_fill(torch.arange(size)[None] >= keep_k, -torch.inf)
        mass = ranked.softmax(-1)
        before = mass.cumsum(-1) - mass  # the best token has none before it, so it always stays
        keep_p = torch.tensor([p.top_p for p in params])[:, None]
        ranked = ranked.masked_fill((before >= keep_p) & (torch.arange(size)[None] > 0), -torch.inf)
        return torch.full_like(scaled, -torch.inf).scatter(-1, order, ranked)

    def _noise(self, rows: list[Row], size: int) -> Tensor:
        noise = torch.empty(len(rows), size)
        for i, row in enumerate(rows):
            generator = self._generator
            if row.params.seed is not None:
                generator = self._keyed
                generator.manual_seed((row.params.seed * 0x9E3779B97F4A7C15 + row.position) % 2**63)
            noise[i].exponential_(generator=generator)
        return noise

    @staticmethod
    def _logprob(logits: Tensor, token: int, count: int) -> TokenLogprob:
        values = logits.log_softmax(-1)
        top = values.topk(count) if count else None
        pairs = () if top is None else tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
        return TokenLogprob(token, float(values[token]), pairs)


def token_set(mask: Mask, size: int) -> npt.NDArray[np.int64]:
    """The tokens whose bit is set."""
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[:size])


def _column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]
