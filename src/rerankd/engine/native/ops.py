"""The operations between GEMMs, each fused into one pass over memory where a device has a kernel for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F

from rerankd.engine.native.activations import LinearInput, QuantizedTensor, quantize
from rerankd.engine.native.config import Gate

CosSin: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Cosine and sine of each row's rotary angles, each float32 (rows, head_dim / 2)."""


class FusedOps(Protocol):
    """Implemented by ``cpu/torch_ops.py`` (any device), ``cpu/library.py`` (C) and ``cuda/ops.py`` (Triton)."""

    def add_rms_norm(
        self,
        residual: torch.Tensor,
        update: QuantizedTensor | None,
        weight: torch.Tensor,
        eps: float,
        dtype: torch.dtype,
    ) -> LinearInput:
        """Add ``update`` to ``residual`` (rows, width) in place, then RMSNorm times ``weight`` (width,), in
        ``dtype``: quantised row by row where that is uint8 or fp8."""
        ...

    def qk_norm_rope(
        self, heads: QuantizedTensor, weight: torch.Tensor | None, eps: float, cos_sin: CosSin, out: torch.Tensor
    ) -> None:
        """Optional per-head RMSNorm (weight (heads, d)), then rotary position embedding in the NeoX half-split
        layout, of (rows, heads, d), into ``out``."""
        ...

    def silu_and_mul(self, gate: QuantizedTensor, up: QuantizedTensor, dtype: torch.dtype) -> QuantizedTensor:
        """silu(gate) * up, both (rows, width), in ``dtype``."""
        ...


Gated: TypeAlias = Callable[[QuantizedTensor, QuantizedTensor, torch.dtype], QuantizedTensor]
"""activation(gate) * up, both (rows, width), in a dtype."""


def gelu_tanh_and_mul(gate: QuantizedTensor, up: QuantizedTensor, dtype: torch.dtype) -> QuantizedTensor:
    """gelu(gate) * up, both (rows, width), in ``dtype``; no kernel has it, so torch computes it on any device."""
    activated = F.gelu(gate.dequantize().float(), approximate="tanh")
    return quantize(activated.mul_(up.dequantize()), dtype)


def gated(gate: Gate, ops: FusedOps) -> Gated:
    """The operation between the two halves of a gated MLP."""
    return ops.silu_and_mul if gate == "silu" else gelu_tanh_and_mul
