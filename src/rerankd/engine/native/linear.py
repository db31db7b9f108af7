"""Matrix products by number format: each takes the checkpoint's (out, in) matrices that share an input."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, TypeAlias

import torch
import torch.nn.functional as F

from rerankd.engine.native.cpu.library import CpuKernels
from rerankd.engine.native.layers import MIDDLE, Activations, Inputs, plain

Linear: TypeAlias = Callable[[Inputs], Sequence[Activations]]
"""(rows, in) -> a (rows, out) for each matrix; slices of wider rows where the matrices lie side by side."""

Gate: TypeAlias = Callable[[Inputs], Inputs]
"""(rows, hidden) -> (rows, intermediate): the first half of the MLP, silu(gate) * up, ready for the second."""

_WIDEN_VALUES = 2 * 1024 * 1024
"""Weights widened at a time, 8 MB of float32. Less would stay in a nearer cache, but give a product so few outputs
that it loses more: with a quarter of it the 0.6B's second half of the MLP took half as long again."""


class DenseLinear:
    """Matrices in the number format of the computation, each where it is: fusing them would copy a mapped file."""

    def __init__(self, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor] | None = None) -> None:
        self._weights = weights
        self._biases: Sequence[torch.Tensor | None] = biases or [None] * len(weights)

    def __call__(self, rows: Inputs) -> Sequence[Activations]:
        values = plain(rows).values
        return [
            Activations(F.linear(values, weight, bias))
            for weight, bias in zip(self._weights, self._biases, strict=True)
        ]


class FusedLinear:
    """Matrices side by side in one, which one product takes: fewer and larger kernels on a device."""

    def __init__(self, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor] | None = None) -> None:
        self._sizes = [len(weight) for weight in weights]
        self._weight = torch.cat(list(weights))
        self._bias = torch.cat(list(biases)) if biases else None

    def __call__(self, rows: Inputs) -> Sequence[Activations]:
        return parts_of(F.linear(plain(rows).values, self._weight, self._bias), self._sizes)


class WidenedLinear:
    """Matrices that stay where they are, in the mapped file, widened to the rows' format in passing."""

    def __init__(self, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor] | None = None) -> None:
        self._sizes = [len(weight) for weight in weights]
        self._blocks = [block for weight in weights for block in _blocks(weight)]
        self._bias = torch.cat(list(biases)) if biases else None

    def __call__(self, rows: Inputs) -> Sequence[Activations]:
        values, begin = plain(rows).values, 0
        out = values.new_empty(len(values), sum(self._sizes))
        for block in self._blocks:
            torch.mm(values, block.to(values.dtype).t(), out=out.narrow(1, begin, len(block)))
            begin += len(block)
        return parts_of(out if self._bias is None else out.add_(self._bias), self._sizes)


class VectorLinear:
    """Matrices that stay where they are, in the mapped file, multiplied by the C kernels."""

    WHOLE: Final = 16
    """What both sides of a matrix have to be a multiple of."""

    def __init__(
        self, kernels: CpuKernels, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor] | None = None
    ) -> None:
        self._kernels = kernels
        self._weights = weights
        self._biases: Sequence[torch.Tensor | None] = biases or [None] * len(weights)

    def __call__(self, rows: Inputs) -> Sequence[Activations]:
        values = plain(rows).values
        products = []
        for weight, bias in zip(self._weights, self._biases, strict=True):
            out = values.new_empty(len(values), len(weight))
            self._kernels.gemm(values, weight, out)
            products.append(Activations(out if bias is None else out.add_(bias)))
        return products


def parts_of(out: torch.Tensor, sizes: Sequence[int], scales: torch.Tensor | None = None) -> Sequence[Activations]:
    parts: Sequence[torch.Tensor] = torch.split(out, list(sizes), dim=1)
    return [Activations(part, scales) for part in parts]


def _blocks(weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    blocks: tuple[torch.Tensor, ...] = torch.split(weight, max(1, _WIDEN_VALUES // weight.shape[1]))
    return blocks


LEVELS = 127
"""The largest whole number of a weight in eight bits."""
_FEWER_LEVELS = 64
"""The same where a processor adds two products of bytes in sixteen bits: 2 * 255 * 64 still fits into them."""


class Int8Linear:
    """Eight-bit products on a CPU: weights scaled by output channel, activations by row as they come.

    A row's scale depends on that row alone, so a pair's score does not depend on its neighbours. What comes out still
    has to be multiplied with it: whoever reads it next does that in passing.
    """

    def __init__(
        self,
        weights: Sequence[torch.Tensor],
        out: torch.dtype,
        biases: Sequence[torch.Tensor] | None = None,
        fine: bool = False,
        kernels: CpuKernels | None = None,
    ) -> None:
        """``fine``: what rounding takes from the weights is multiplied too, in eight bits of its own. ``kernels``
        multiply in vectors where the library's products are not exact."""
        self._sizes = [len(weight) for weight in weights]
        weight, levels = torch.cat([weight.float() for weight in weights]), LEVELS if kernels else library_levels()
        rounded, scales = to_eight_bits(weight, levels)
        terms = [(rounded, scales)]
        if fine:
            terms.append(to_eight_bits(weight - rounded * scales[:, None], levels))
        self._terms = [_vector_product(kernels, *term) if kernels else _library_product(*term, out) for term in terms]
        self._bias = torch.cat(list(biases)) if biases else None
        self._out = out

    def __call__(self, rows: Inputs) -> Sequence[Activations]:
        rows = plain(rows)
        product = self._terms[0](rows.values)
        for term in self._terms[1:]:
            product += term(rows.values)
        if self._bias is None:
            return parts_of(product, self._sizes, rows.scales)
        return parts_of(Activations(product, rows.scales).numbers().add_(self._bias).to(self._out), self._sizes)


def to_eight_bits(weight: torch.Tensor, levels: int = LEVELS) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers up to ``levels``, still in float32, and the scale of each channel."""
    scales = weight.abs().amax(dim=1).clamp_min(1e-12) / levels
    return (weight / scales[:, None]).round(), scales


@cache
def library_levels() -> int:
    """How large weights in eight bits may be in products that are the library's: found by trying.

    Processors without VNNI add products of bytes in pairs, and a sum beyond 32,767 is cut off.
    """
    size, largest = 64, 255
    rows, weight = torch.full((size, size), largest, dtype=torch.uint8), torch.full((size, size), float(LEVELS))
    product = _library_product(weight, torch.ones(size), torch.float32)(rows)
    return LEVELS if (product == (largest - MIDDLE) * LEVELS * size).all() else _FEWER_LEVELS


_Product: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Eight-bit rows around `MIDDLE` (n, in) times weights -> (n, out); what the rows' scales are is not known here."""


def _library_product(rounded: torch.Tensor, scales: torch.Tensor, out: torch.dtype) -> _Product:
    weight = torch.ops.onednn.qlinear_prepack(rounded.to(torch.int8), None)
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    return lambda rows: torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, MIDDLE, weight, scales, zeros, None, 1.0, 0, out, "none", [], ""
    )


def _vector_product(kernels: CpuKernels, rounded: torch.Tensor, scales: torch.Tensor) -> _Product:
    weight = rounded.to(torch.int8)

    def product(rows: torch.Tensor) -> torch.Tensor:
        out = torch.empty(len(rows), len(weight))
        kernels.gemm(rows, weight, out, scales)
        return out

    return product


def side_by_side(*products: Linear) -> Linear:
    """Several products of the same rows as one."""
    return lambda rows: [part for product in products for part in product(rows)]


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
