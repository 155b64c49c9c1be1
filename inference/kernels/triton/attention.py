# Triton reads these functions itself: pointers have no Python types, constants are upper case.
# ruff: noqa: N803
# mypy: disable-error-code="untyped-decorator,no-untyped-def"
"""Attention over pages, one pass with a running softmax (FlashAttention-2: Dao, 2023; PagedAttention).

Two kernels, since the two phases ask for different tiles: a decoding sequence has one query, so the queries
that share a key head are its tile (decode); a prompt has many, so tokens are (prefill).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def decode(
    qkv,
    keys,
    values,
    tables,
    lengths,
    out,
    table_stride,
    scale,
    Q: tl.constexpr,
    KV: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    SHARE: tl.constexpr,
    PAGE: tl.constexpr,
):
    """One new token for each sequence. Grid: (sequences, KV).

    qkv: [sequences, Q + 2 KV, D]; cache: [slots, KV, D]; out: [sequences, Q, D]; lengths include the new
    token. SHARE: Q / KV rounded up to a power of two (at least 16, the least that tl.dot takes); DP: D so.
    """
    seq, head = tl.program_id(0), tl.program_id(1)
    share: tl.constexpr = Q // KV
    row, column, token = tl.arange(0, SHARE), tl.arange(0, DP), tl.arange(0, PAGE)
    wanted = (row[:, None] < share) & (column[None, :] < D)
    q_at = (seq * (Q + 2 * KV) + head * share + row[:, None]) * D + column[None, :]
    q = tl.load(qkv + q_at, mask=wanted, other=0.0).to(tl.float32) * scale
    length = tl.load(lengths + seq)
    best = tl.full([SHARE], float("-inf"), tl.float32)
    total = tl.zeros([SHARE], tl.float32)
    acc = tl.zeros([SHARE, DP], tl.float32)
    for j in range(tl.cdiv(length, PAGE)):
        page = tl.load(tables + seq * table_stride + j).to(tl.int64)
        there = j * PAGE + token < length
        at = ((page * PAGE + token[:, None]) * KV + head) * D + column[None, :]
        kv_mask = there[:, None] & (column[None, :] < D)
        k = tl.load(keys + at, mask=kv_mask, other=0.0).to(tl.float32)
        v = tl.load(values + at, mask=kv_mask, other=0.0).to(tl.float32)
        s = tl.where(there[None, :], tl.dot(q, tl.trans(k), input_precision="ieee"), float("-inf"))
        peak = tl.maximum(best, tl.max(s, 1))
        shrink = tl.exp(best - peak)
        p = tl.exp(s - peak[:, None])
        total = total * shrink + tl.sum(p, 1)
        acc = acc * shrink[:, None] + tl.dot(p, v, input_precision="ieee")
        best = peak
    o_at = (seq * Q + head * share + row[:, None]) * D + column[None, :]
    tl.store(out + o_at, (acc / total[:, None]).to(out.dtype.element_ty), mask=wanted)


@triton.jit
def prefill(
    qkv,
    keys,
    values,
    tables,
    starts,
    positions,
    out,
    table_stride,
    scale,
    Q: tl.constexpr,
    KV: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    TOKENS: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Chunks of prompts of different lengths. Grid: (sequences, ceil(longest chunk / TOKENS), Q).

    Token t of a sequence sits at `positions[t]` and sees the cache up to there: what earlier chunks, or other
    requests with the same prefix, have written. Shapes as in `decode`, with tokens in place of sequences.
    """
    seq, block, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = tl.load(starts + seq) + block * TOKENS
    end = tl.load(starts + seq + 1)
    if first >= end:
        return
    row, column, token = first + tl.arange(0, TOKENS), tl.arange(0, DP), tl.arange(0, PAGE)
    wanted = (row[:, None] < end) & (column[None, :] < D)
    q_at = (row[:, None] * (Q + 2 * KV) + head) * D + column[None, :]
    q = tl.load(qkv + q_at, mask=wanted, other=0.0).to(tl.float32) * scale
    position = tl.load(positions + row, mask=row < end, other=0)
    last = tl.max(position, 0)
    best = tl.full([TOKENS], float("-inf"), tl.float32)
    total = tl.zeros([TOKENS], tl.float32)
    acc = tl.zeros([TOKENS, DP], tl.float32)
    for j in range(last // PAGE + 1):
        page = tl.load(tables + seq * table_stride + j).to(tl.int64)
        where = j * PAGE + token
        at = ((page * PAGE + token[:, None]) * KV + head // (Q // KV)) * D + column[None, :]
        kv_mask = (where[:, None] <= last) & (column[None, :] < D)
        k = tl.load(keys + at, mask=kv_mask, other=0.0).to(tl.float32)
        v = tl.load(values + at, mask=kv_mask, other=0.0).to(tl.float32)
        s = tl.dot(q, tl.trans(k), input_precision="ieee")
        s = tl.where(where[None, :] <= position[:, None], s, float("-inf"))
        peak = tl.maximum(best, tl.max(s, 1))
        shrink = tl.exp(best - peak)
        p = tl.exp(s - peak[:, None])
        total = total * shrink + tl.sum(p, 1)
        acc = acc * shrink[:, None] + tl.dot(p, v, input_precision="ieee")
        best = peak
    o_at = (row[:, None] * Q + head) * D + column[None, :]
    tl.store(out + o_at, (acc / total[:, None]).to(out.dtype.element_ty), mask=wanted)
