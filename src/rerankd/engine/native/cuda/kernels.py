"""Fused operations and attention in Triton.

No kernel is specialised for sizes that differ from batch to batch: what the first pass has compiled serves every
other. A kernel computes in float32, whatever it reads and writes.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["eps"])
def add_rms_norm(
    residual,
    update,
    weight,
    out,
    scales,
    update_stride,
    eps,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_UPDATE: tl.constexpr,
    QMAX: tl.constexpr,
):
    """One row a program: add ``update`` to the residual in place, then RMSNorm times ``weight``.

    ``QMAX``: the largest number of fp8, to which the row is scaled; 0 where ``out`` is wider.
    """
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    place = row.to(tl.int64) * WIDTH + columns
    numbers = tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    if HAS_UPDATE:
        added = tl.load(update + row.to(tl.int64) * update_stride + columns, mask=inside, other=0.0)
        numbers += added.to(tl.float32)
        tl.store(residual + place, numbers, mask=inside)
    inverse = tl.rsqrt(tl.sum(numbers * numbers, axis=0) / WIDTH + eps)
    normed = numbers * inverse * tl.load(weight + columns, mask=inside, other=0.0)
    _store(normed, out + place, scales + row, inside, QMAX)


@triton.jit
def _store(numbers, out, scale_place, inside, QMAX: tl.constexpr):
    """A row in the dtype of ``out``; in fp8 divided by its scale, which is stored too."""
    if QMAX > 0:
        scale = tl.maximum(tl.max(tl.abs(numbers), axis=0), 1e-12) / QMAX
        tl.store(scale_place, scale)
        numbers = numbers / scale
    tl.store(out, numbers.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["eps"])
def qk_norm_rope(
    heads,
    weight,
    cos,
    sin,
    out,
    heads_stride,
    eps,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
    HALF: tl.constexpr,
    HAS_NORM: tl.constexpr,
):
    """All heads of one row a program: RMSNorm of each, then rotary position embedding (NeoX half-split)."""
    row = tl.program_id(0).to(tl.int64)
    head, column = tl.arange(0, BLOCK)[:, None], tl.arange(0, HALF)[None, :]
    inside = (head < COUNT) & (column < HALF)
    place = head * 2 * HALF + column
    left = tl.load(heads + row * heads_stride + place, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(heads + row * heads_stride + place + HALF, mask=inside, other=0.0).to(tl.float32)
    if HAS_NORM:
        inverse = tl.rsqrt(tl.sum(left * left + right * right, axis=1) / (2 * HALF) + eps)[:, None]
        left *= inverse * tl.load(weight + place, mask=inside, other=0.0)
        right *= inverse * tl.load(weight + place + HALF, mask=inside, other=0.0)
    cosine = tl.load(cos + row * HALF + tl.arange(0, HALF))[None, :]
    sine = tl.load(sin + row * HALF + tl.arange(0, HALF))[None, :]
    begin = out + row * COUNT * 2 * HALF + place
    tl.store(begin, (left * cosine - right * sine).to(out.dtype.element_ty), mask=inside)
    tl.store(begin + HALF, (right * cosine + left * sine).to(out.dtype.element_ty), mask=inside)


@triton.jit
def silu_and_mul(gates, ups, out, scales, gate_stride, WIDTH: tl.constexpr, BLOCK: tl.constexpr, QMAX: tl.constexpr):
    """silu(gate) * up, a part of one row a program; in fp8 a whole row, which has one scale."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < WIDTH
    left = tl.load(gates + row * gate_stride + columns, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(ups + row * gate_stride + columns, mask=inside, other=0.0).to(tl.float32)
    gated = left / (1.0 + tl.exp(-left)) * right
    _store(gated, out + row * WIDTH + columns, scales + row, inside, QMAX)


@triton.jit
def attention(
    queries,
    keys,
    values,
    out,
    tasks,
    ranges,
    query_stride,
    key_stride,
    scale,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
):
    """One task and one key head a program, with all the query heads that share it, token by token.

    A task is 6 numbers: first row and number of its queries; first row and number of the keys of their own segment,
    up to the last query's; first and last (exclusive) of the ranges before them. A range is 2 numbers: first row and
    number of keys, all of them seen. Online softmax (FlashAttention): running maximum ``top``, sum ``total``, and the
    weighted values ``mixed``, rescaled whenever the maximum grows. ``scale`` has log2(e) in it, for exp2.
    """
    task = tasks + tl.program_id(0) * 6
    head = tl.program_id(1)
    first, count = tl.load(task), tl.load(task + 1)
    own_count = tl.load(task + 3)
    place = tl.arange(0, ROWS)
    token, dim = place // GROUP, tl.arange(0, HEAD_DIM)
    inside = (place < ROWS // GROUP * GROUP) & (token < count)
    row = (first + token).to(tl.int64) * query_stride + (head * GROUP + place % GROUP) * HEAD_DIM
    query = tl.load(queries + row[:, None] + dim[None, :], mask=inside[:, None], other=0.0)
    keys += head * HEAD_DIM
    values += head * HEAD_DIM
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, HEAD_DIM], tl.float32)
    everything = tl.full([ROWS], 2147483647, tl.int32)
    for at in range(tl.load(task + 4), tl.load(task + 5)):
        top, total, mixed = _over(
            query, top, total, mixed, keys, values, tl.load(ranges + 2 * at), tl.load(ranges + 2 * at + 1),
            everything, key_stride, scale, KEYS, HEAD_DIM,
        )  # fmt: skip
    top, total, mixed = _over(
        query, top, total, mixed, keys, values, tl.load(task + 2), own_count, own_count - count + token + 1,
        key_stride, scale, KEYS, HEAD_DIM,
    )  # fmt: skip
    attended = (mixed / tl.where(inside, total, 1.0)[:, None]).to(out.dtype.element_ty)
    tl.store(out + row[:, None] + dim[None, :], attended, mask=inside[:, None])


@triton.jit
def _over(
    query,
    top,
    total,
    mixed,
    keys,
    values,
    begin,
    count,
    sees,
    key_stride,
    scale,
    KEYS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
):
    """Go on over ``count`` keys from row ``begin`` on, of which each query sees the first ``sees``."""
    columns, dim = tl.arange(0, KEYS), tl.arange(0, HEAD_DIM)
    for at in range(0, count, KEYS):
        inside = at + columns < count
        row = (begin + at + columns).to(tl.int64) * key_stride
        key = tl.load(keys + row[None, :] + dim[:, None], mask=inside[None, :], other=0.0)
        scores = tl.dot(query, key) * scale
        seen = inside[None, :] & ((at + columns)[None, :] < sees[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        highest = tl.maximum(top, tl.max(scores, axis=1))
        weights = tl.exp2(scores - highest[:, None])
        shrink = tl.exp2(top - highest)
        total = total * shrink + tl.sum(weights, axis=1)
        value = tl.load(values + row[:, None] + dim[None, :], mask=inside[:, None], other=0.0)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(value.dtype), value)
        top = highest
    return top, total, mixed
