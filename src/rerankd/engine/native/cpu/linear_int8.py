"""int8 GEMMs, weights quantised by output channel and activations by row: oneDNN's, and in AVX2 our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, TypeAlias

import torch

from rerankd.engine.native.activations import (
    ZERO_POINT,
    LinearInput,
    QuantizedTensor,
    require_unpacked,
    split_outputs,
)
from rerankd.engine.native.backend import Linear, Weights
from rerankd.engine.native.cpu.gemm import Gemm, GemmTarget
from rerankd.engine.native.cpu.library import CpuKernels
from rerankd.engine.native.cpu.linear_avx2 import SIDE_MULTIPLE

QMAX: Final = 127
"""The largest quantised weight."""
_QMAX_PMADDUBSW_SAFE: Final = 64
"""The largest that cannot saturate ``pmaddubsw``, which adds two products in 16 bits: 2 * 255 * 64 < 2**15."""


class Int8Linear:
    """uint8 activations by int8 weights; what comes out still has to be multiplied with the activations' scales,
    which whoever reads it next does in passing."""

    def __init__(
        self,
        weights: Weights,
        out: torch.dtype,
        biases: Weights | None = None,
        two_term: bool = False,
        kernels: CpuKernels | None = None,
    ) -> None:
        """``two_term``: a second int8 term for the quantisation residual, W ~ s1*Q1 + s2*Q2. ``kernels``: multiply in
        AVX2, exactly, where oneDNN's GEMM could saturate."""
        self._sizes = [len(weight) for weight in weights]
        weight, qmax = torch.cat([weight.float() for weight in weights]), QMAX if kernels else onednn_qmax()
        quantized, scales = quantize_weight(weight, qmax)
        terms = [(quantized, scales)]
        if two_term:
            terms.append(quantize_weight(weight - quantized * scales[:, None], qmax))
        self._terms = [_avx2_gemm(kernels, *term) if kernels else _onednn_gemm(*term, out) for term in terms]
        self._bias = torch.cat(list(biases)) if biases else None
        self._out = out

    def __call__(self, rows: LinearInput) -> Sequence[QuantizedTensor]:
        rows = require_unpacked(rows)
        product = self._terms[0](rows.values)
        for term in self._terms[1:]:
            product += term(rows.values)
        if self._bias is None:
            return split_outputs(product, self._sizes, rows.scales)
        whole = QuantizedTensor(product, rows.scales).dequantize().add_(self._bias)
        return split_outputs(whole.to(self._out), self._sizes)


def quantize_weight(weight: torch.Tensor, qmax: int = QMAX) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers up to ``qmax``, still in float32, and the scale of each output channel."""
    scales = weight.abs().amax(dim=1).clamp_min(1e-12) / qmax
    return (weight / scales[:, None]).round(), scales


@cache
def onednn_qmax() -> int:
    """How large int8 weights may be in oneDNN's GEMM on this processor: found by trying.

    Without VNNI it adds products of bytes in pairs, in 16 bits, which saturate.
    """
    size, largest = 64, 255
    rows, weight = torch.full((size, size), largest, dtype=torch.uint8), torch.full((size, size), float(QMAX))
    product = _onednn_gemm(weight, torch.ones(size), torch.float32)(rows)
    return QMAX if (product == (largest - ZERO_POINT) * QMAX * size).all() else _QMAX_PMADDUBSW_SAFE


_QuantizedGemm: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""uint8 activations (n, in) -> (n, out), without the activations' scales."""


def _onednn_gemm(quantized: torch.Tensor, scales: torch.Tensor, out: torch.dtype) -> _QuantizedGemm:
    weight = torch.ops.onednn.qlinear_prepack(quantized.to(torch.int8), None)
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    return lambda rows: torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, ZERO_POINT, weight, scales, zeros, None, 1.0, 0, out, "none", [], ""
    )


def _avx2_gemm(kernels: CpuKernels, quantized: torch.Tensor, scales: torch.Tensor) -> _QuantizedGemm:
    weight = quantized.to(torch.int8)

    def product(rows: torch.Tensor) -> torch.Tensor:
        out = torch.empty(len(rows), len(weight))
        kernels.gemm(rows, weight, out, scales)
        return out

    return product


class OneDnnInt8Gemm(Gemm):
    """The last row of the table: always possible."""

    name = "oneDNN int8"

    @classmethod
    def supports(cls, target: GemmTarget) -> bool:
        return True

    def linear(self, weights: Weights, biases: Weights | None = None, two_term: int = 0) -> Linear:
        one_term = len(weights) - two_term
        first = self._layer(weights[:one_term], biases[:one_term] if biases else None, two_term=False)
        if not two_term:
            return first
        second = self._layer(weights[one_term:], biases[one_term:] if biases else None, two_term=True)
        return concat_outputs(first, second)

    def _layer(self, weights: Weights, biases: Weights | None, *, two_term: bool) -> Linear:
        return Int8Linear(weights, self._target.precision.compute_dtype, biases, two_term)


class Avx2Int8Gemm(OneDnnInt8Gemm):
    """Where oneDNN's would have to do with weights of fewer levels, which costs accuracy."""

    name = "AVX2 int8"

    @classmethod
    def supports(cls, target: GemmTarget) -> bool:
        return (
            target.kernels is not None
            and target.kernels.has_avx2
            and target.has_sides_of(SIDE_MULTIPLE)
            and target.precision.compute_dtype == torch.float32
            and onednn_qmax() < QMAX
        )

    def _layer(self, weights: Weights, biases: Weights | None, *, two_term: bool) -> Linear:
        return Int8Linear(weights, self._target.precision.compute_dtype, biases, two_term, self._kernels)


def concat_outputs(*layers: Linear) -> Linear:
    """Several layers of the same input as one."""
    return lambda rows: [part for layer in layers for part in layer(rows)]
