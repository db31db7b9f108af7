"""Weights in eight bits, one scale a row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ZERO_POINT = 128
"""What zero becomes in unsigned numbers. Unsigned weights are exact on every processor: products u8 x s8 are added in
sixteen bits where there is no VNNI (``pmaddubsw``) and saturate from 2 * 255 * 65 on, products u8 x u8 are not."""
QMAX = 127
"""The largest quantised value, of weights and of activations, counted from the zero point."""


def quantize_rows(
    matrix: NDArray[np.float32], *, signed: bool
) -> tuple[NDArray[np.uint8] | NDArray[np.int8], NDArray[np.float32]]:
    """A weight matrix (outputs, inputs) in eight bits, of the same shape, and float32 scales (outputs,).

    ``matrix`` is about ``quantized * scales[:, None]`` as int8, and ``(quantized - ZERO_POINT) * scales[:, None]`` as
    uint8: the same numbers, whose products sum to the same.
    """
    scales = np.abs(matrix).max(axis=1) / QMAX
    scales[scales == 0] = 1.0
    rounded = np.rint(matrix / scales[:, None])
    quantized = rounded.astype(np.int8) if signed else (rounded + ZERO_POINT).astype(np.uint8)
    return quantized, scales.astype(np.float32)
