"""Floating-point GEMMs by torch (oneDNN or MKL), on every processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F

from rerankd.engine.native.activations import LinearInput, QuantizedTensor, require_unpacked, split_outputs
from rerankd.engine.native.backend import Linear, Weights
from rerankd.engine.native.cpu.gemm import Gemm, GemmTarget

_UPCAST_NUMBERS: Final = 2 * 1024 * 1024
"""Weights upcast at a time, 8 MB of float32. Less would stay in a nearer cache, but give a GEMM so few outputs that
it loses more: with a quarter of it the 0.6B's second half of the MLP took half as long again."""


class DenseLinear:
    """Matrices in the dtype of the computation, each where it is: fusing them would copy a mapped file."""

    def __init__(self, weights: Weights, biases: Weights | None = None) -> None:
        self._weights = weights
        self._biases: Sequence[torch.Tensor | None] = biases or [None] * len(weights)

    def __call__(self, rows: LinearInput) -> Sequence[QuantizedTensor]:
        values = require_unpacked(rows).values
        return [
            QuantizedTensor(F.linear(values, weight, bias))
            for weight, bias in zip(self._weights, self._biases, strict=True)
        ]


class UpcastLinear:
    """Matrices that stay where they are, in the mapped file, upcast to the activations' dtype block by block."""

    def __init__(self, weights: Weights, biases: Weights | None = None) -> None:
        self._sizes = [len(weight) for weight in weights]
        self._blocks = [block for weight in weights for block in _blocks(weight)]
        self._bias = torch.cat(list(biases)) if biases else None

    def __call__(self, rows: LinearInput) -> Sequence[QuantizedTensor]:
        values, begin = require_unpacked(rows).values, 0
        out = values.new_empty(len(values), sum(self._sizes))
        for block in self._blocks:
            torch.mm(values, block.to(values.dtype).t(), out=out.narrow(1, begin, len(block)))
            begin += len(block)
        return split_outputs(out if self._bias is None else out.add_(self._bias), self._sizes)


def _blocks(weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    blocks: tuple[torch.Tensor, ...] = torch.split(weight, max(1, _UPCAST_NUMBERS // weight.shape[1]))
    return blocks


class TorchGemm(Gemm):
    """The last row of the table: always possible."""

    name = "torch"

    @classmethod
    def supports(cls, target: GemmTarget) -> bool:
        return True

    def linear(self, weights: Weights, biases: Weights | None = None, two_term: int = 0) -> Linear:
        precision = self._target.precision
        if precision.weight_dtype != torch.int8:
            weights = [weight.to(precision.weight_dtype) for weight in weights]
        is_dense = all(weight.dtype == precision.compute_dtype for weight in weights)
        return (DenseLinear if is_dense else UpcastLinear)(weights, biases)
