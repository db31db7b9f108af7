"""Eight-bit floating-point products on CUDA: weights scaled by output channel, activations by row as they come."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rerankd.engine.native.layers import Activations, Inputs, in_fp8, plain
from rerankd.engine.native.linear import parts_of
from rerankd.errors import ConfigurationError

_MULTIPLE = 16
"""What both sides of a matrix have to be a multiple of."""
_CAPABILITY = (8, 9)
"""The first NVIDIA architecture that multiplies in fp8: Ada; Hopper and later follow."""


def has_fp8(device: torch.device) -> bool:
    """Whether ``device`` multiplies in fp8."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _CAPABILITY


class Fp8Linear:
    """Matrices side by side in fp8, which one product takes; rows come in fp8 too.

    A row's scale depends on that row alone, so a pair's score does not depend on its neighbours.
    """

    def __init__(
        self, weights: Sequence[torch.Tensor], out: torch.dtype, biases: Sequence[torch.Tensor] | None = None
    ) -> None:
        self._sizes = [len(weight) for weight in weights]
        weight = torch.cat(list(weights))
        if any(side % _MULTIPLE for side in weight.shape):
            raise ConfigurationError(
                f"fp8 products need matrices whose sides are multiples of {_MULTIPLE}, not {tuple(weight.shape)}"
            )
        quantised, scales = in_fp8(weight)
        self._weight = quantised.t()
        self._scales = scales[None]
        self._bias = torch.cat(list(biases)) if biases else None
        self._out = out

    def __call__(self, rows: Inputs) -> Sequence[Activations]:
        rows = plain(rows)
        assert rows.scales is not None
        product = torch._scaled_mm(
            rows.values,
            self._weight,
            scale_a=rows.scales[:, None],
            scale_b=self._scales,
            bias=self._bias,
            out_dtype=self._out,
            # Sums in the tensor cores' own width: what they lose is little beside what fp8 loses.
            use_fast_accum=True,
        )
        return parts_of(product, self._sizes)
