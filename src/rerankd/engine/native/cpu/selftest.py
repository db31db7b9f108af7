"""The check that the C kernels pass at every start: they give what torch gives, on small random rows.

Neither a compiler nor a processor is to be trusted blindly. Sizes are those that ship: heads of 64 and 128, rows of
1,024 and 3,072 values. It takes some milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F

from rerankd.engine.native.activations import ZERO_POINT, LinearInput, QuantizedTensor, require_unpacked
from rerankd.engine.native.cpu import linear_amx
from rerankd.engine.native.cpu.library import CpuKernels, KernelsUnavailable, Table, load_kernels
from rerankd.engine.native.cpu.torch_ops import TorchOps, rms_norm
from rerankd.engine.native.ops import FusedOps

_WIDTHS: Final = (1024, 3072)
_HEAD_DIMS: Final = (32, 64, 128)
_HEADS: Final = 4
_KV_HEADS: Final = 2
_KEY_BLOCK: Final = 32
_BOUNDS: Final = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.uint8: 5e-2}
"""How far a result may be from torch's in float32, by number format, as a share of the largest value."""


class Deviation(NamedTuple):
    """How far the result of ``kernel`` is from torch's, relative to the largest value."""

    kernel: str
    error: float
    bound: float


Check: TypeAlias = Callable[[CpuKernels, torch.Generator], Iterator[Deviation]]


@cache
def usable_kernels() -> CpuKernels:
    """The kernels of this processor, after their check.

    Raises:
        KernelsUnavailable: there are none, or one of them does not give what torch gives.
    """
    kernels = load_kernels()
    generator = torch.Generator().manual_seed(0)
    for check in (_check_fused_ops, _check_attention, _check_gemm, _check_packed_gemm):
        for kernel, error, bound in check(kernels, generator):
            if not error <= bound:  # NaN is wrong as well
                raise KernelsUnavailable(
                    f"the {kernels.isa} kernels do not give what torch gives: {kernel} is {error:.1e} off"
                )
    return kernels


def _deviation(kernel: str, found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> Deviation:
    error = (found.float() - expected).abs().max() / expected.abs().max()
    return Deviation(kernel, float(error), _BOUNDS[dtype])


def _check_fused_ops(kernels: CpuKernels, generator: torch.Generator) -> Iterator[Deviation]:
    for width in _WIDTHS:
        rows, added = torch.randn(2, 3, width, generator=generator)
        weight = torch.randn(width, generator=generator)
        for dtype in _BOUNDS:
            found, expected = (
                _dequantized(ops.add_rms_norm(rows.clone(), QuantizedTensor(added), weight, 1e-6, kind))
                for ops, kind in _beside_torch(kernels, dtype)
            )
            yield _deviation(f"add_rms_norm ({dtype}, width {width})", found, expected, dtype)
            found, expected = (
                _dequantized(ops.silu_and_mul(QuantizedTensor(rows), QuantizedTensor(added), kind))
                for ops, kind in _beside_torch(kernels, dtype)
            )
            yield _deviation(f"silu_and_mul ({dtype}, width {width})", found, expected, dtype)
    for d in _HEAD_DIMS:
        heads, weight = torch.randn(3, _HEADS, d, generator=generator), torch.randn(_HEADS, d, generator=generator)
        angles = torch.randn(3, d // 2, generator=generator)
        found, expected = torch.empty(2, 3, _HEADS, d)
        for ops, out in ((kernels, found), (TorchOps(), expected)):
            ops.qk_norm_rope(QuantizedTensor(heads), weight, 1e-6, (angles.cos(), angles.sin()), out)
        yield _deviation(f"qk_norm_rope (head size {d})", found, expected, torch.float32)


def _beside_torch(kernels: CpuKernels, dtype: torch.dtype) -> list[tuple[FusedOps, torch.dtype]]:
    return [(kernels, dtype), (TorchOps(), torch.float32)]


def _dequantized(rows: LinearInput) -> torch.Tensor:
    rows = require_unpacked(rows)
    return rows.values.float() if rows.scales is None else (rows.values.float() - ZERO_POINT) * rows.scales[:, None]


def _check_attention(kernels: CpuKernels, generator: torch.Generator) -> Iterator[Deviation]:
    """A prefix, two tails that see it, a sequence alone, and the last tokens of that one again."""
    # First block and count of the prefix, the same of the tail, first query and count: `Sequence` in attention.h.
    sequences = np.array(
        [
            [0, 0, 0, 40, 0, 40],
            [0, 40, 2, 33, 40, 33],
            [0, 40, 4, 5, 73, 5],
            [0, 0, 5, 70, 78, 70],
            [0, 0, 5, 70, 148, 30],
        ]
    )
    # Keys 0 to 39 are the prefix's, and so on; -1 fills a segment's last block up.
    segments = [np.arange(40), np.arange(40, 73), np.arange(73, 78), np.arange(78, 148)]
    padded = [np.pad(keys, (0, -len(keys) % _KEY_BLOCK), constant_values=-1) for keys in segments]
    blocks = np.concatenate(padded).reshape(-1, _KEY_BLOCK)
    group = _HEADS // _KV_HEADS
    items = np.array([[i, row] for i, row_ in enumerate(sequences) for row in range(0, row_[5] * group, _KEY_BLOCK)])
    for dtype in (torch.float32, torch.bfloat16) if kernels.has_amx else (torch.float32,):
        for d in _HEAD_DIMS:
            queries = torch.randn(178, _HEADS, d, generator=generator).to(dtype)
            keys, values = torch.randn(2, 148, _KV_HEADS, d, generator=generator).to(dtype)
            out, packed = (
                torch.empty_like(queries),
                torch.empty(2, len(blocks), _KV_HEADS, _KEY_BLOCK, d, dtype=dtype),
            )
            kernels.attention(queries, keys, values, out, packed, sequences, blocks, items, 4 * _KEY_BLOCK)
            expected = _attention_in_torch(queries, keys, values, sequences, blocks)
            yield _deviation(f"attention ({dtype}, head size {d})", out, expected, dtype)


def _attention_in_torch(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, sequences: Table, blocks: Table
) -> torch.Tensor:
    out = torch.empty(queries.shape)
    for prefix_block, prefix_count, tail_block, tail_count, query, query_count in sequences:
        prefix = blocks[prefix_block:].reshape(-1)[:prefix_count]
        seen = torch.from_numpy(np.concatenate([prefix, blocks[tail_block:].reshape(-1)[:tail_count]]))
        ones = torch.ones(query_count, len(seen), dtype=torch.bool)
        rows = slice(query, query + query_count)
        q, k, v = (part.float().transpose(0, 1) for part in (queries[rows], keys[seen], values[seen]))
        group = len(q) // len(k)
        k, v = k.repeat_interleave(group, dim=0), v.repeat_interleave(group, dim=0)
        causal = ones.tril(diagonal=len(seen) - query_count)
        out[rows] = F.scaled_dot_product_attention(q, k, v, attn_mask=causal).transpose(0, 1)
    return out


def _check_gemm(kernels: CpuKernels, generator: torch.Generator) -> Iterator[Deviation]:
    if not kernels.has_avx2:
        return
    for width in _WIDTHS:
        rows, weight = (torch.randn(count, width, generator=generator) for count in (33, 64))
        out = torch.empty(33, 64)
        for dtype in (torch.float32, torch.bfloat16):
            kernels.gemm(rows, weight.to(dtype), out)
            expected = rows @ weight.to(dtype).float().t()
            yield _deviation(f"gemm ({dtype} weight, width {width})", out, expected, torch.float32)
        whole = torch.randint(0, 256, (33, width), generator=generator).to(torch.uint8)
        narrow, scales = torch.randint(-127, 128, (64, width), generator=generator).to(torch.int8), weight[:, 0].abs()
        kernels.gemm(whole, narrow, out, scales)
        expected = (whole.float() - ZERO_POINT) @ narrow.float().t() * scales
        yield _deviation(f"gemm (int8 weight, width {width})", out, expected, torch.float32)


def _check_packed_gemm(kernels: CpuKernels, generator: torch.Generator) -> Iterator[Deviation]:
    """Norm, gate and down projection one after another, in every format and with every epilogue."""
    if not kernels.has_amx:
        return
    for width in _WIDTHS:
        rows, weight = torch.randn(33, width, generator=generator), torch.randn(width, generator=generator)
        gate, up = torch.randn(2, 128, width, generator=generator).bfloat16()
        down = torch.randn(64, 128, generator=generator).bfloat16()
        normed = rms_norm(rows, weight, 1e-6)
        expected = (F.silu(normed @ gate.float().t()) * (normed @ up.float().t())) @ down.float().t()
        for dtype in _BOUNDS:
            is_int8 = dtype == torch.uint8
            out = torch.bfloat16 if is_int8 else dtype
            packed = kernels.with_amx_packing().add_rms_norm(rows.clone(), None, weight, 1e-6, dtype)
            pack_gate_up = linear_amx.pack_gate_up_int8 if is_int8 else linear_amx.gate_up_in_place
            gated = linear_amx.AmxGateUpLinear(kernels, pack_gate_up(gate, up), out)(packed)
            kinds = (linear_amx.pack_int8, linear_amx.pack_two_term_int8) if is_int8 else (linear_amx.in_place,)
            for product in linear_amx.AmxLinear(kernels, [kind(down) for kind in kinds], out)(gated):
                yield _deviation(f"gemm_packed ({dtype}, width {width})", product.values, expected, dtype)
