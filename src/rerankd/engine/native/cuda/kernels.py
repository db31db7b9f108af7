"""What lies between the products on CUDA, one pass over memory each, in Triton.

No kernel is made for sizes that differ from batch to batch: what the first pass has compiled serves every other. A
kernel computes in float32, whatever it reads and writes.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["eps"])
def add_rms_norm(
    rows,
    added,
    weight,
    out,
    scales,
    added_stride,
    eps,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_ADDED: tl.constexpr,
    LARGEST: tl.constexpr,
):
    """One row a program: add ``added`` to the residual in place, then its root-mean-square norm times ``weight``.

    ``LARGEST``: of eight-bit floating point, by which the row is scaled; 0 where ``out`` is wider.
    """
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    place = row.to(tl.int64) * WIDTH + columns
    numbers = tl.load(rows + place, mask=inside, other=0.0).to(tl.float32)
    if HAS_ADDED:
        more = tl.load(added + row.to(tl.int64) * added_stride + columns, mask=inside, other=0.0)
        numbers += more.to(tl.float32)
        tl.store(rows + place, numbers, mask=inside)
    inverse = tl.rsqrt(tl.sum(numbers * numbers, axis=0) / WIDTH + eps)
    normed = numbers * inverse * tl.load(weight + columns, mask=inside, other=0.0)
    _store(normed, out + place, scales + row, inside, LARGEST)


@triton.jit
def _store(numbers, out, scale_place, inside, LARGEST: tl.constexpr):
    """A row in the format of ``out``; in eight bits divided by its scale, which is stored too."""
    if LARGEST > 0:
        scale = tl.maximum(tl.max(tl.abs(numbers), axis=0), 1e-12) / LARGEST
        tl.store(scale_place, scale)
        numbers = numbers / scale
    tl.store(out, numbers.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["eps"])
def qk_norm_rope(
    heads,
    weight,
    cosines,
    sines,
    out,
    heads_stride,
    eps,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
    HALF: tl.constexpr,
    HAS_NORM: tl.constexpr,
):
    """All heads of one row a program: the norm of each, then the turn by the row's position."""
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
    cosine = tl.load(cosines + row * HALF + tl.arange(0, HALF))[None, :]
    sine = tl.load(sines + row * HALF + tl.arange(0, HALF))[None, :]
    begin = out + row * COUNT * 2 * HALF + place
    tl.store(begin, (left * cosine - right * sine).to(out.dtype.element_ty), mask=inside)
    tl.store(begin + HALF, (right * cosine + left * sine).to(out.dtype.element_ty), mask=inside)


@triton.jit
def silu_and_mul(
    gates, ups, out, scales, gate_stride, WIDTH: tl.constexpr, BLOCK: tl.constexpr, LARGEST: tl.constexpr
):
    """silu(gate) * up, a part of one row a program; in eight bits a whole row, as its scale is one."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < WIDTH
    left = tl.load(gates + row * gate_stride + columns, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(ups + row * gate_stride + columns, mask=inside, other=0.0).to(tl.float32)
    gated = left / (1.0 + tl.exp(-left)) * right
    _store(gated, out + row * WIDTH + columns, scales + row, inside, LARGEST)


@triton.jit
def attention(
    queries,
    keys,
    values,
    out,
    lines,
    query_stride,
    key_stride,
    scale,
    SHARED: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    SIZE: tl.constexpr,
):
    """The queries of one line, for one head of keys: each with those that share the head, token by token.

    A line is 8 numbers: the first query and how many there are; then first row and count of the keys of their own
    sequence, up to the last query's; of what comes before it and is kept; and of what comes before it and is not.
    ``scale`` has the logarithm's base in it.
    """
    line = lines + tl.program_id(0) * 8
    head = tl.program_id(1)
    first, count = tl.load(line), tl.load(line + 1)
    own_count = tl.load(line + 3)
    place = tl.arange(0, ROWS)
    token, size = place // SHARED, tl.arange(0, SIZE)
    inside = (place < ROWS // SHARED * SHARED) & (token < count)
    row = (first + token).to(tl.int64) * query_stride + (head * SHARED + place % SHARED) * SIZE
    query = tl.load(queries + row[:, None] + size[None, :], mask=inside[:, None], other=0.0)
    keys += head * SIZE
    values += head * SIZE
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sum_ = tl.zeros([ROWS, SIZE], tl.float32)
    everything = tl.full([ROWS], 2147483647, tl.int32)
    top, total, sum_ = _over(
        query, top, total, sum_, keys, values, tl.load(line + 4), tl.load(line + 5), everything,
        key_stride, scale, KEYS, SIZE,
    )  # fmt: skip
    top, total, sum_ = _over(
        query, top, total, sum_, keys, values, tl.load(line + 6), tl.load(line + 7), everything,
        key_stride, scale, KEYS, SIZE,
    )  # fmt: skip
    top, total, sum_ = _over(
        query, top, total, sum_, keys, values, tl.load(line + 2), own_count, own_count - count + token + 1,
        key_stride, scale, KEYS, SIZE,
    )  # fmt: skip
    attended = (sum_ / tl.where(inside, total, 1.0)[:, None]).to(out.dtype.element_ty)
    tl.store(out + row[:, None] + size[None, :], attended, mask=inside[:, None])


@triton.jit
def _over(
    query,
    top,
    total,
    sum_,
    keys,
    values,
    begin,
    count,
    sees,
    key_stride,
    scale,
    KEYS: tl.constexpr,
    SIZE: tl.constexpr,
):
    """Go on over ``count`` keys, of which each query sees the first ``sees``; what was summed so far is relative to
    the largest score so far, ``top``."""
    columns, size = tl.arange(0, KEYS), tl.arange(0, SIZE)
    for at in range(0, count, KEYS):
        inside = at + columns < count
        row = (begin + at + columns).to(tl.int64) * key_stride
        key = tl.load(keys + row[None, :] + size[:, None], mask=inside[None, :], other=0.0)
        scores = tl.dot(query, key) * scale
        seen = inside[None, :] & ((at + columns)[None, :] < sees[:, None])
        scores = tl.where(seen, scores, float("-inf"))
        highest = tl.maximum(top, tl.max(scores, axis=1))
        shares = tl.exp2(scores - highest[:, None])
        shrinks = tl.exp2(top - highest)
        total = total * shrinks + tl.sum(shares, axis=1)
        value = tl.load(values + row[:, None] + size[None, :], mask=inside[:, None], other=0.0)
        sum_ = sum_ * shrinks[:, None] + tl.dot(shares.to(value.dtype), value)
        top = highest
    return top, total, sum_
