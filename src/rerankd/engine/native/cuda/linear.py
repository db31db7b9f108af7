"""GEMMs on CUDA: cuBLAS in floating point, and in fp8 with scales by row and by output channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F

from rerankd.engine.native.activations import (
    LinearInput,
    QuantizedTensor,
    quantize_fp8,
    require_unpacked,
    split_outputs,
)
from rerankd.engine.native.backend import Weights
from rerankd.errors import ConfigurationError

_FP8_SIDE_MULTIPLE: Final = 16
"""What both sides of a matrix have to be a multiple of."""
_FP8_CAPABILITY: Final = (8, 9)
"""The first NVIDIA architecture that multiplies in fp8: Ada; Hopper and later follow."""


class FusedLinear:
    """Matrices side by side in one, which one GEMM multiplies: fewer and larger kernels."""

    def __init__(self, weights: Weights, biases: Weights | None = None) -> None:
        self._sizes = [len(weight) for weight in weights]
        self._weight = torch.cat(list(weights))
        self._bias = torch.cat(list(biases)) if biases else None

    def __call__(self, rows: LinearInput) -> Sequence[QuantizedTensor]:
        return split_outputs(F.linear(require_unpacked(rows).values, self._weight, self._bias), self._sizes)


def has_fp8(device: torch.device) -> bool:
    """Whether ``device`` multiplies in fp8."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FP8_CAPABILITY


class Fp8Linear:
    """Matrices side by side in fp8, scaled by output channel; activations come in fp8 too, scaled by row."""

    def __init__(self, weights: Weights, out: torch.dtype, biases: Weights | None = None) -> None:
        self._sizes = [len(weight) for weight in weights]
        weight = torch.cat(list(weights))
        if any(side % _FP8_SIDE_MULTIPLE for side in weight.shape):
            raise ConfigurationError(
                f"fp8 GEMMs need matrices whose sides are multiples of {_FP8_SIDE_MULTIPLE}, "
                f"not {tuple(weight.shape)}"
            )
        quantized, scales = quantize_fp8(weight)
        self._weight = quantized.t()
        self._scales = scales[None]
        self._bias = torch.cat(list(biases)) if biases else None
        self._out = out

    def __call__(self, rows: LinearInput) -> Sequence[QuantizedTensor]:
        rows = require_unpacked(rows)
        assert rows.scales is not None
        product = torch._scaled_mm(
            rows.values,
            self._weight,
            scale_a=rows.scales[:, None],
            scale_b=self._scales,
            bias=self._bias,
            out_dtype=self._out,
            # Accumulated in the tensor cores' own width: what that loses is little beside what fp8 loses.
            use_fast_accum=True,
        )
        return split_outputs(product, self._sizes)
