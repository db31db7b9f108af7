"""Floating-point GEMMs in AVX2 (``csrc/gemm_avx2.c``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from rerankd.engine.native.activations import LinearInput, QuantizedTensor, require_unpacked
from rerankd.engine.native.backend import Linear, Weights
from rerankd.engine.native.cpu.gemm import Gemm, GemmTarget
from rerankd.engine.native.cpu.library import CpuKernels

SIDE_MULTIPLE: Final = 16
"""What both sides of a matrix have to be a multiple of."""


class Avx2Linear:
    """float32 activations by float32 or bfloat16 matrices that stay where they are, in the mapped file."""

    def __init__(self, kernels: CpuKernels, weights: Weights, biases: Weights | None = None) -> None:
        self._kernels = kernels
        self._weights = weights
        self._biases: Sequence[torch.Tensor | None] = biases or [None] * len(weights)

    def __call__(self, rows: LinearInput) -> Sequence[QuantizedTensor]:
        values = require_unpacked(rows).values
        products = []
        for weight, bias in zip(self._weights, self._biases, strict=True):
            out = values.new_empty(len(values), len(weight))
            self._kernels.gemm(values, weight, out)
            products.append(QuantizedTensor(out if bias is None else out.add_(bias)))
        return products


class Avx2Gemm(Gemm):
    """Where AVX2 is the widest there is: torch's own GEMMs are faster with AVX-512."""

    name = "AVX2"

    @classmethod
    def supports(cls, target: GemmTarget) -> bool:
        return (
            target.kernels is not None
            and target.kernels.has_avx2
            and target.kernels.prefers_avx2
            and target.has_sides_of(SIDE_MULTIPLE)
            and target.precision.compute_dtype == torch.float32
            and target.precision.weight_dtype != torch.float16
            and target.stored <= {"BF16", "F32"}
        )

    def linear(self, weights: Weights, biases: Weights | None = None, two_term: int = 0) -> Linear:
        if self._target.precision.weight_dtype == torch.bfloat16:
            weights = [weight.bfloat16() for weight in weights]
        return Avx2Linear(self._kernels, weights, biases)
