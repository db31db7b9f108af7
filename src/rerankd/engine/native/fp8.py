"""Eight-bit floating-point products: weights scaled by output channel, activations by row as they come."""

from __future__ import annotations

import torch

from rerankd.engine.native.fusing import fused
from rerankd.errors import ConfigurationError

FP8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(FP8).max
_MULTIPLE = 16
"""What both sides of a weight have to be a multiple of."""
_CAPABILITY = (8, 9)
"""The first NVIDIA architecture that multiplies in fp8: Ada; Hopper and later follow."""


def has_fp8(device: torch.device) -> bool:
    """Whether ``device`` multiplies in fp8."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _CAPABILITY


class Fp8Linear:
    """The product with a weight (out, in) that is kept in fp8; bfloat16 rows in and out.

    A row's scale depends on that row alone, so a pair's score does not depend on its neighbours.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        if any(side % _MULTIPLE for side in weight.shape):
            raise ConfigurationError(
                f"fp8 products need matrices whose sides are multiples of {_MULTIPLE}, not {tuple(weight.shape)}"
            )
        quantised, scales = quantise_rows(weight)
        self._weight = quantised.t()
        self._scales = scales.t()
        self._bias = bias
        self._quantise = fused(quantise_rows, weight.device)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        quantised, scales = self._quantise(rows)
        return torch._scaled_mm(
            quantised,
            self._weight,
            scale_a=scales,
            scale_b=self._scales,
            bias=self._bias,
            out_dtype=rows.dtype,
            use_fast_accum=True,
        )


def quantise_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in fp8, and what each row was divided by, float32 (rows, 1)."""
    wide = rows.float()
    scales = wide.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / _LARGEST
    return (wide / scales).to(FP8), scales
