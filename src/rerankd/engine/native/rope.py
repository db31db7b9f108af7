"""Rotary position embedding (RoPE, https://arxiv.org/abs/2104.09864): cosines and sines of every position."""

from __future__ import annotations

import math

import torch

from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.ops import CosSin
from rerankd.engine.native.rope_config import Llama3Scaling, YarnScaling


class RotaryEmbedding:
    """A table of float32 cosines and sines, (positions, head_dim / 2) each, for positions below ``length``."""

    def __init__(self, config: ModelConfig, length: int, device: torch.device) -> None:
        angles = torch.outer(torch.arange(length).float(), inverse_frequencies(config))
        scaling = config.rope_scaling
        scale = scaling.attention_factor if isinstance(scaling, YarnScaling) else 1.0
        self._cos = angles.cos().mul_(scale).to(device)
        self._sin = angles.sin().mul_(scale).to(device)

    def at(self, positions: torch.Tensor) -> CosSin:
        return self._cos[positions], self._sin[positions]


def inverse_frequencies(config: ModelConfig) -> torch.Tensor:
    """Radians that each pair of dimensions turns by a position, float32 (head_dim / 2,).

    They are made in float32 like transformers': in float64 they differ by 1e-7 of themselves, which at position 8,000
    is a thousandth of a turn.
    """
    dim = config.head_dim
    wavelengths = config.rope_theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim)
    scaling, frequencies = config.rope_scaling, 1.0 / wavelengths
    if isinstance(scaling, YarnScaling):
        keeps = 1 - _interpolated_share(scaling, config.rope_theta, dim)
        return (1.0 / (scaling.factor * wavelengths)) * (1 - keeps) + frequencies * keeps
    return frequencies if scaling is None else _llama3(scaling, frequencies)


def _interpolated_share(yarn: YarnScaling, theta: float, dim: int) -> torch.Tensor:
    """How much of each frequency is divided by the factor, 0 to 1: a ramp over the dimensions (YaRN, section 3.2)."""

    def dimension_of(rotations: float) -> float:
        """The dimension that turns so often over the original length."""
        return dim * math.log(yarn.original_length / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension_of(yarn.beta_fast), dimension_of(yarn.beta_slow)
    if yarn.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    return ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)


def _llama3(scaling: Llama3Scaling, frequencies: torch.Tensor) -> torch.Tensor:
    """Slow frequencies divided by the factor, fast ones as they are, a blend between (Llama 3.1)."""
    rotations = scaling.original_length / (2 * math.pi / frequencies)
    keeps = (rotations - scaling.low) / (scaling.high - scaling.low)
    blended = (1 - keeps) * frequencies / scaling.factor + keeps * frequencies
    slow = torch.where(rotations < scaling.low, frequencies / scaling.factor, blended)
    return torch.where(rotations > scaling.high, frequencies, slow)
