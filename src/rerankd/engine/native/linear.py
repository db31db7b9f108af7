"""Matrix products by number format: each takes the checkpoint's (out, in) matrices that share an input."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias

import torch
import torch.nn.functional as F

Linear: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""(rows, in) -> (rows, out), in the number format of the rows."""

_WIDEN_VALUES = 512 * 1024
"""Weights widened at a time: 2 MB of float32, which the second-level cache still holds when the product reads it."""
_MIDDLE = 128
"""What zero becomes in unsigned eight bits; oneDNN's fast products take unsigned activations alone."""


class DenseLinear:
    """One matrix in the number format of the computation."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return F.linear(rows, self._weight, self._bias)


class MappedLinear:
    """Matrices side by side that stay where they are, in the mapped file, widened to the rows' format in passing.

    Fusing them would copy the weights into this process; writing the products side by side costs nothing.
    """

    def __init__(self, weights: Sequence[torch.Tensor], bias: torch.Tensor | None = None) -> None:
        self._blocks = [block for weight in weights for block in _blocks(weight)]
        self._out = sum(len(weight) for weight in weights)
        self._bias = bias

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        out = rows.new_empty(len(rows), self._out)
        begin = 0
        for block in self._blocks:
            torch.mm(rows, block.to(rows.dtype).t(), out=out.narrow(1, begin, len(block)))
            begin += len(block)
        return out if self._bias is None else out.add_(self._bias)


def _blocks(weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    blocks: tuple[torch.Tensor, ...] = torch.split(weight, max(1, _WIDEN_VALUES // weight.shape[1]))
    return blocks


class Int8Linear:
    """Eight-bit products on a CPU: weights scaled by output channel, activations by row as they come.

    A row's scale depends on that row alone, so a pair's score does not depend on its neighbours.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        scales = weight.float().abs().amax(dim=1).clamp_min(1e-12) / 127
        quantised = (weight / scales[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(quantised, None)
        self._scales = scales
        self._zeros = torch.zeros(len(scales), dtype=torch.int32)
        self._bias = bias

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        quantised, scales = _quantise_rows(rows)
        out: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            quantised, 1.0, _MIDDLE, self._weight, self._scales, self._zeros, None, 1.0, 0, rows.dtype, "none", [], ""
        )
        out.mul_(scales)
        return out if self._bias is None else out.add_(self._bias)


def _quantise_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as uint8 around 128, and what each row was divided by, (rows, 1)."""
    scales = rows.abs().amax(dim=1, keepdim=True).clamp_min_(1e-12).div_(127)
    # Converting cuts off, so adding a half rounds.
    return (rows / scales).add_(_MIDDLE + 0.5).to(torch.uint8), scales


@cache
def bfloat16_products_pay() -> bool:
    """Whether this CPU multiplies bfloat16 matrices faster than float32 ones; not all that can do.

    Measured once, in some milliseconds: on one thread and by that thread's own time, so that a busy machine does
    not decide it; the two take turns.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    for _ in range(4):
        for dtype in best:
            best[dtype] = min(best[dtype], _seconds(dtype))
    torch.set_num_threads(threads)
    return best[torch.bfloat16] < best[torch.float32]


def _seconds(dtype: torch.dtype) -> float:
    rows, weight = torch.ones(256, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    began = time.thread_time()
    F.linear(rows, weight)
    return time.thread_time() - began
