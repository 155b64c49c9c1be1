"""Weights in the layouts of linear.h."""

from __future__ import annotations

import torch
from torch import Tensor

from inference.quantize import GROUP, Quantized

BLOCK = 16
"""Outputs that are stored together: one 32-bit lane each."""


def pack(weight: Tensor) -> Tensor:
    """[N, K] f32 or bf16 -> [N/16, K, 16, 1] or [N/16, K/2, 16, 2]; N padded to 16, K to 2 for bf16."""
    pair = 1 if weight.dtype == torch.float32 else 2
    padded = torch.nn.functional.pad(weight, (0, -weight.shape[1] % pair, 0, -weight.shape[0] % BLOCK))
    n, k = padded.shape
    return padded.view(n // BLOCK, BLOCK, k // pair, pair).permute(0, 2, 1, 3).contiguous()


def pack_quantized(q: Quantized) -> tuple[Tensor, Tensor]:
    """Bytes [N/16, K/4 or K/8, 16, 4] and bf16 scales [N/16, K/64, 16]."""
    rows = -len(q.values) % BLOCK
    values = torch.nn.functional.pad(q.values, (0, 0, 0, rows))
    scale = torch.nn.functional.pad(q.scale, (0, 0, 0, rows))
    n, k = values.shape
    each = 32 // q.bits  # inputs in a lane
    blocks = values.view(n // BLOCK, BLOCK, k // each, each).permute(0, 2, 1, 3)
    if q.bits == 4:  # inputs 0-3 in the low nibbles, 4-7 in the high ones, stored plus 8
        nibbles = (blocks + 8).to(torch.uint8)
        blocks = nibbles[..., :4] | nibbles[..., 4:] << 4
    return blocks.contiguous(), scale.view(n // BLOCK, BLOCK, k // GROUP).permute(0, 2, 1).contiguous()
