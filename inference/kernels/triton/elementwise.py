# Triton reads these functions itself: pointers have no Python types, constants are upper case.
# ruff: noqa: N803
# mypy: disable-error-code="untyped-decorator,no-untyped-def"
"""RMSNorm with residual, rotation with cache write, SiLU-mul: one program for each token (and head)."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add_rms_norm(x, residual, weight, out, width, eps, ADD: tl.constexpr, BLOCK: tl.constexpr):
    """residual += x (if ADD); out = residual / rms(residual) * weight. Sums in f32. Grid: tokens."""
    at = tl.program_id(0) * width + tl.arange(0, BLOCK)
    inside = tl.arange(0, BLOCK) < width
    value = tl.load(x + at, mask=inside, other=0.0)
    if ADD:
        value = value + tl.load(residual + at, mask=inside, other=0.0)
        tl.store(residual + at, value, mask=inside)
    wide = value.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(wide * wide, 0) / width + eps)
    w = tl.load(weight + tl.arange(0, BLOCK), mask=inside, other=0.0)
    tl.store(out + at, (wide * scale).to(out.dtype.element_ty) * w, mask=inside)


@triton.jit
def rope_store(
    qkv,
    rope,
    positions,
    slots,
    keys,
    values,
    q_norm,
    k_norm,
    eps,
    Q: tl.constexpr,
    KV: tl.constexpr,
    D: tl.constexpr,
    HALF: tl.constexpr,
    NORM: tl.constexpr,
):
    """Norm and rotate one head of one token in place; keys and values also go to their slot.

    Grid: (tokens, Q + 2 KV). Cache: [slots, KV, D]. HALF: D / 2 rounded up to a power of two.
    """
    token, head = tl.program_id(0), tl.program_id(1)
    half = tl.arange(0, HALF)
    inside = half < D // 2
    at = qkv + (token * (Q + 2 * KV) + head) * D + half
    left = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(at + D // 2, mask=inside, other=0.0).to(tl.float32)
    kind = qkv.dtype.element_ty
    if head < Q + KV:
        if NORM:
            scale = 1.0 / tl.sqrt((tl.sum(left * left, 0) + tl.sum(right * right, 0)) / D + eps)
            weight = q_norm if head < Q else k_norm
            left = (left * scale).to(kind).to(tl.float32) * tl.load(weight + half, mask=inside, other=0.0)
            right = (right * scale).to(kind).to(tl.float32) * tl.load(
                weight + D // 2 + half, mask=inside, other=0.0
            )
        angle = rope + tl.load(positions + token) * D + half
        cos = tl.load(angle, mask=inside, other=0.0)
        sin = tl.load(angle + D // 2, mask=inside, other=0.0)
        turned = left * cos - right * sin
        right = right * cos + left * sin
        left = turned
        tl.store(at, left.to(kind), mask=inside)
        tl.store(at + D // 2, right.to(kind), mask=inside)
    if head >= Q:
        slot = tl.load(slots + token).to(tl.int64)
        if head < Q + KV:
            target = keys + (slot * KV + head - Q) * D + half
        else:
            target = values + (slot * KV + head - Q - KV) * D + half
        tl.store(target, left.to(kind), mask=inside)
        tl.store(target + D // 2, right.to(kind), mask=inside)


@triton.jit
def silu_mul(gate_up, out, width, BLOCK: tl.constexpr):
    """out = silu(gate) * up. Grid: (tokens, ceil(width / BLOCK))."""
    token = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_up + token * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + token * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(
        out + token * width + column,
        (gate / (1.0 + tl.exp(-gate)) * up).to(out.dtype.element_ty),
        mask=inside,
    )
