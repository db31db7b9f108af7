"""Which number formats a model is kept and computed in, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import torch

from rerankd.engine.base import DType
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.fp8 import has_fp8
from rerankd.engine.native.layers import FP8
from rerankd.engine.native.linear import bfloat16_products_pay
from rerankd.errors import ConfigurationError

_DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
    "fp8": FP8,
}
_SMALL: Final = 100_000_000
"""Weights of the layers below which memory does not matter, so that a CPU takes the fastest exact format."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The formats of the weights and of the rows that flow through them.

    Attributes:
        weights: how the matrices are kept.
        inputs: how rows go into a product.
        rows: how they come out of it, and through attention.
        residual: the sum that runs through all layers.
    """

    name: str
    weights: torch.dtype
    inputs: torch.dtype
    rows: torch.dtype
    residual: torch.dtype
    reason: str
    """For the log: what was chosen and why."""

    @classmethod
    def choose(cls, name: DType, device: torch.device, config: ModelConfig) -> Self:
        """The formats for ``--dtype name``.

        ``auto`` never costs accuracy: on CUDA bfloat16, on a CPU the checkpoint's own format, or float32 for
        small models.

        Raises:
            ConfigurationError: a format that this device does not compute.
        """
        if name == "auto":
            name = _automatic(device, config)
        if name not in _DTYPES or (name == "int8" and device.type != "cpu"):
            raise ConfigurationError(f"the native engine does not compute {name!r} on {device.type}")
        if name == "fp8" and not has_fp8(device):
            raise ConfigurationError(
                f"the native engine does not compute 'fp8' on {device}: that takes CUDA of capability 8.9 or later"
            )
        weights, wide = _DTYPES[name], torch.float32
        if weights == FP8:
            return cls(name, weights, weights, torch.bfloat16, wide, "fp8 products, scaled by row and by channel")
        if device.type != "cpu":
            return cls(name, weights, weights, weights, wide, f"{name} products")
        if weights == wide:
            return cls(name, wide, wide, wide, wide, "float32 throughout")
        narrow = torch.bfloat16 if bfloat16_products_pay() else wide
        if weights == torch.int8:
            return cls(name, weights, torch.uint8, narrow, wide, "int8 products, scaled by row and by channel")
        if weights == narrow:
            return cls(name, weights, weights, weights, wide, "bfloat16 products: faster than float32 on this CPU")
        return cls(name, weights, wide, wide, wide, f"{name} weights, widened to float32: faster on this CPU")


def _automatic(device: torch.device, config: ModelConfig) -> DType:
    if device.type != "cpu":
        return "bfloat16"
    return config.stored if config.weights >= _SMALL else "float32"
