"""`FusedOps` on CUDA, one Triton kernel each, and attention."""

from __future__ import annotations

import math
from typing import Final

import torch

from rerankd.engine.native.activations import FP8, QuantizedTensor
from rerankd.engine.native.cuda import kernels
from rerankd.engine.native.ops import CosSin

_GATE_COLUMNS: Final = 1024
"""Numbers of a row that one program of the gate takes."""
KEYS: Final = 32
"""Keys that attention takes at a time: with more of them fewer programs find room beside each other, and documents
are short (measured, with 64 and 128 as well)."""
WARPS: Final = 4
STAGES: Final = 2
"""Of attention, measured too."""


class TritonOps:
    """`FusedOps` on CUDA."""

    def add_rms_norm(
        self,
        residual: torch.Tensor,
        update: QuantizedTensor | None,
        weight: torch.Tensor,
        eps: float,
        dtype: torch.dtype,
    ) -> QuantizedTensor:
        width = residual.shape[1]
        out, added = _empty(residual, width, dtype), residual if update is None else update.values
        block = _next_power_of_two(width)
        kernels.add_rms_norm[len(residual),](
            residual, added, weight, out.values, _scales(out), added.stride(0), eps,
            WIDTH=width, BLOCK=block, HAS_UPDATE=update is not None, QMAX=_qmax(dtype), num_warps=_warps(block),
        )  # fmt: skip
        return out

    def qk_norm_rope(
        self, heads: QuantizedTensor, weight: torch.Tensor | None, eps: float, cos_sin: CosSin, out: torch.Tensor
    ) -> None:
        rows, count, head_dim = out.shape
        kernels.qk_norm_rope[rows,](
            heads.values, out if weight is None else weight, *cos_sin, out, heads.values.stride(0), eps,
            COUNT=count, BLOCK=_next_power_of_two(count), HALF=head_dim // 2, HAS_NORM=weight is not None,
        )  # fmt: skip

    def silu_and_mul(self, gate: QuantizedTensor, up: QuantizedTensor, dtype: torch.dtype) -> QuantizedTensor:
        rows, width = gate.values.shape
        out = _empty(gate.values, width, dtype)
        block = _next_power_of_two(width) if dtype == FP8 else min(_GATE_COLUMNS, _next_power_of_two(width))
        kernels.silu_and_mul[rows, -(-width // block)](
            gate.values, up.values, out.values, _scales(out), gate.values.stride(0),
            WIDTH=width, BLOCK=block, QMAX=_qmax(dtype), num_warps=_warps(block),
        )  # fmt: skip
        return out


def attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tasks: torch.Tensor,
    ranges: torch.Tensor,
    block: int,
) -> torch.Tensor:
    """What queries (n, heads, d) attend to, (n, heads, d), by ``tasks`` and ``ranges`` (see `kernels.attention`).

    ``block``: queries, times heads that share a key head, that one program takes; no task has more.
    """
    out, head_dim = torch.empty_like(queries), queries.shape[2]
    kernels.attention[len(tasks), keys.shape[1]](
        queries, keys, values, out, tasks, ranges, queries.stride(0), keys.stride(0),
        math.log2(math.e) / head_dim**0.5,
        GROUP=queries.shape[1] // keys.shape[1], ROWS=block, KEYS=KEYS, HEAD_DIM=head_dim,
        num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return out


def _empty(like: torch.Tensor, width: int, dtype: torch.dtype) -> QuantizedTensor:
    values = like.new_empty(len(like), width, dtype=dtype)
    return QuantizedTensor(values, like.new_empty(len(like), dtype=torch.float32) if dtype == FP8 else None)


def _scales(out: QuantizedTensor) -> torch.Tensor:
    # A kernel wants a pointer there; where nothing is scaled it is not written to.
    return out.values if out.scales is None else out.scales


def _qmax(dtype: torch.dtype) -> float:
    return torch.finfo(FP8).max if dtype == FP8 else 0.0


def _next_power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _warps(block: int) -> int:
    return min(16, max(4, block // 512))
