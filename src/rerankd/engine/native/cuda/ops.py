"""The pieces of the network between its products, one Triton kernel each, and its attention."""

from __future__ import annotations

import math

import torch

from rerankd.engine.native.activations import FP8, QuantizedTensor
from rerankd.engine.native.cuda import kernels
from rerankd.engine.native.ops import CosSin

_PART = 1024
"""Numbers of a row that one program of the gate takes."""
KEYS = 32
"""Keys that attention takes at a time: with more of them fewer programs find room beside each other, and documents
are short (measured, with 64 and 128 as well)."""
WARPS, STAGES = 4, 2
"""Of attention, measured too."""


class TritonOps:
    """`FusedOps` on CUDA."""

    def add_rms_norm(
        self, rows: torch.Tensor, added: QuantizedTensor | None, weight: torch.Tensor, eps: float, dtype: torch.dtype
    ) -> QuantizedTensor:
        width = rows.shape[1]
        out, more = _empty(rows, width, dtype), rows if added is None else added.values
        block = _power(width)
        kernels.add_rms_norm[len(rows),](
            rows, more, weight, out.values, _scales(out), more.stride(0), eps,
            WIDTH=width, BLOCK=block, HAS_ADDED=added is not None, LARGEST=_largest(dtype), num_warps=_warps(block),
        )  # fmt: skip
        return out

    def qk_norm_rope(
        self, heads: QuantizedTensor, weight: torch.Tensor | None, eps: float, angles: CosSin, out: torch.Tensor
    ) -> None:
        rows, count, size = out.shape
        kernels.qk_norm_rope[rows,](
            heads.values, out if weight is None else weight, *angles, out, heads.values.stride(0), eps,
            COUNT=count, BLOCK=_power(count), HALF=size // 2, HAS_NORM=weight is not None,
        )  # fmt: skip

    def silu_and_mul(self, gate: QuantizedTensor, up: QuantizedTensor, dtype: torch.dtype) -> QuantizedTensor:
        rows, width = gate.values.shape
        out = _empty(gate.values, width, dtype)
        block = _power(width) if dtype == FP8 else min(_PART, _power(width))
        kernels.silu_and_mul[rows, -(-width // block)](
            gate.values, up.values, out.values, _scales(out), gate.values.stride(0),
            WIDTH=width, BLOCK=block, LARGEST=_largest(dtype), num_warps=_warps(block),
        )  # fmt: skip
        return out


def attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lines: torch.Tensor, block: int
) -> torch.Tensor:
    """What queries (n, heads, d) attend to, (n, heads, d), by ``lines`` (int32, (m, 8); see `kernels.attention`).

    ``block``: queries, times heads that share a head of keys, that one program takes; no line has more.
    """
    out, size = torch.empty_like(queries), queries.shape[2]
    kernels.attention[len(lines), keys.shape[1]](
        queries, keys, values, out, lines, queries.stride(0), keys.stride(0), math.log2(math.e) / size**0.5,
        SHARED=queries.shape[1] // keys.shape[1], ROWS=block, KEYS=KEYS, SIZE=size,
        num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return out


def _empty(like: torch.Tensor, width: int, dtype: torch.dtype) -> QuantizedTensor:
    values = like.new_empty(len(like), width, dtype=dtype)
    return QuantizedTensor(values, like.new_empty(len(like), dtype=torch.float32) if dtype == FP8 else None)


def _scales(out: QuantizedTensor) -> torch.Tensor:
    # A kernel wants something there; where nothing is scaled it stays as it is.
    return out.values if out.scales is None else out.scales


def _largest(dtype: torch.dtype) -> float:
    return torch.finfo(FP8).max if dtype == FP8 else 0.0


def _power(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()


def _warps(block: int) -> int:
    return min(16, max(4, block // 512))
