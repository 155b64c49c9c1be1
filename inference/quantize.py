"""Weight-only quantisation: symmetric integers with one bf16 scale for each 64 inputs of a row.

int8 rounds to [-127, 127]. int4 rounds to [-8, 7] and lets the value of largest magnitude sit at -8, which
uses the odd sixteenth level (llama.cpp's Q4_0). The scale is rounded to bf16 first and the integers are
chosen for the rounded scale, so its rounding costs no accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GROUP = 64


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """values: int8 [N, K padded to a multiple of 64]; scale: bf16 [N, K / 64]; `inputs` is the true K."""

    values: Tensor
    scale: Tensor
    bits: int
    inputs: int


def quantize(weight: Tensor, bits: int) -> Quantized:
    """Quantise [N, K]; `bits` is 8 or 4."""
    if bits not in (4, 8):
        raise ValueError(f"weights can be quantised to 8 or 4 bits, not {bits}")
    n, k = weight.shape
    groups = torch.nn.functional.pad(weight.float(), (0, -k % GROUP)).view(n, -1, GROUP)
    if bits == 8:
        scale = groups.abs().amax(-1, keepdim=True) / 127
        low, high = -127, 127
    else:
        peak = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
        scale = peak / -8
        low, high = -8, 7
    scale = scale.bfloat16()
    step = scale.float()
    values = torch.where(step == 0, torch.zeros(()), groups / step).round().clamp(low, high)
    return Quantized(values.to(torch.int8).view(n, -1), scale.squeeze(-1), bits, k)


def dequantize(q: Quantized) -> Tensor:
    """[N, K] f32."""
    groups = q.values.view(len(q.values), -1, GROUP).float() * q.scale.float()[..., None]
    return groups.view(len(q.values), -1)[:, : q.inputs]
