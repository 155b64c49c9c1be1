"""Rotary position tables, with the ways of stretching them to longer contexts.

RoPE: Su et al., "RoFormer", 2021. linear: Chen et al., 2023. yarn: Peng et al., "YaRN", ICLR 2024.
llama3: the frequency bands of Llama 3.1's release.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inference.errors import UnsupportedModelError
from inference.models.config import ModelConfig


def rope_table(config: ModelConfig, positions: int) -> Tensor:
    """[positions, head_dim] f32: head_dim / 2 cosines, then as many sines.

    :raises UnsupportedModelError: the scaling type is not default, linear, llama3 or yarn.
    """
    frequencies, factor = _frequencies(config)
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * frequencies[None]
    return torch.cat((angles.cos() * factor, angles.sin() * factor), 1).contiguous()


def _frequencies(config: ModelConfig) -> tuple[Tensor, float]:
    """Inverse frequencies [head_dim / 2], and a factor for the cosines and sines."""
    scaling, dim, theta = config.rope_scaling, config.head_dim, config.rope_theta
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    inverse = 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim))
    if kind == "default":
        return inverse, 1.0
    factor = float(scaling.get("factor", 1.0))
    original = int(scaling.get("original_max_position_embeddings") or config.context)
    if kind == "linear":
        return inverse / factor, 1.0
    if kind == "llama3":
        low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
        wavelength = 2 * math.pi / inverse
        blend = ((original / wavelength - low) / (high - low)).clamp(0, 1)
        return inverse / factor * (1 - blend) + inverse * blend, 1.0
    if kind == "yarn":
        slow = float(scaling.get("beta_slow") or 1)
        fast = float(scaling.get("beta_fast") or 32)

        def dimension(rotations: float) -> float:
            """The dimension that turns this many times over the original context."""
            return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

        low, high = dimension(fast), dimension(slow)
        if scaling.get("truncate", True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, dim - 1)
        ramp = (torch.arange(dim // 2).float() - low) / max(high - low, 0.001)
        interpolate = ramp.clamp(0, 1)
        return inverse / factor * interpolate + inverse * (1 - interpolate), _yarn_factor(scaling, factor)
    raise UnsupportedModelError(f"rope scaling {kind!r} is not one of default, linear, llama3, yarn")


def _yarn_factor(scaling: object, factor: float) -> float:
    assert isinstance(scaling, dict)

    def mscale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if (given := scaling.get("attention_factor")) is not None:
        return float(given)
    one, other = scaling.get("mscale"), scaling.get("mscale_all_dim")
    return mscale(float(one)) / mscale(float(other)) if one and other else mscale(1.0)
