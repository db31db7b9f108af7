"""Which number formats a model is kept and computed in, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import torch

from rerankd.engine.base import DType
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.fp8 import FP8, has_fp8
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
    """The formats of the weights and of the rows that flow through them."""

    name: str
    weights: torch.dtype
    rows: torch.dtype
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
        weights = _DTYPES[name]
        if weights == FP8:
            return cls(name, weights, torch.bfloat16, "fp8 products, scaled by row and by channel, bfloat16 between")
        if device.type != "cpu" or weights == torch.float32:
            return cls(name, weights, weights, f"{name} throughout")
        if weights == torch.bfloat16 and bfloat16_products_pay():
            return cls(name, weights, weights, "bfloat16 throughout: this CPU multiplies it faster than float32")
        if weights == torch.int8:
            return cls(name, weights, torch.float32, "int8 products, scaled by row and by channel")
        return cls(name, weights, torch.float32, f"{name} weights, widened to float32: faster on this CPU")


def _automatic(device: torch.device, config: ModelConfig) -> DType:
    if device.type != "cpu":
        return "bfloat16"
    return config.stored if config.weights >= _SMALL else "float32"
