"""`FusedOps` in torch's own operations, on any device, float32 inside: the fallback where no kernel can be used."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rerankd.engine.native.activations import QuantizedTensor, quantize
from rerankd.engine.native.ops import CosSin


class TorchOps:
    """What the kernels in C and Triton are tested against."""

    def add_rms_norm(
        self,
        residual: torch.Tensor,
        update: QuantizedTensor | None,
        weight: torch.Tensor,
        eps: float,
        dtype: torch.dtype,
    ) -> QuantizedTensor:
        if update is not None:
            residual.add_(update.dequantize())
        return quantize(rms_norm(residual, weight, eps), dtype)

    def qk_norm_rope(
        self, heads: QuantizedTensor, weight: torch.Tensor | None, eps: float, cos_sin: CosSin, out: torch.Tensor
    ) -> None:
        wide = heads.dequantize().float()
        if weight is not None:
            wide = rms_norm(wide, weight, eps)
        cos, sin = cos_sin
        apply_rope(wide, cos.unsqueeze(1), sin.unsqueeze(1), out)

    def silu_and_mul(self, gate: QuantizedTensor, up: QuantizedTensor, dtype: torch.dtype) -> QuantizedTensor:
        return quantize(F.silu(gate.dequantize().float()).mul_(up.dequantize()), dtype)


def rms_norm(rows: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm over the last dimension, float32 whatever the rows are.

    One reduction and two multiplies; `F.rms_norm` makes four passes on a CPU.
    """
    wide = rows.float()
    length: torch.Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    inverse = length.square_().div_(rows.shape[-1]).add_(eps).rsqrt_()
    return (wide * inverse).mul_(weight)


def apply_rope(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor) -> None:
    """Rotate (rows, heads, d) by position, into ``out``; the two halves of d are the coordinates (NeoX)."""
    left, right = heads.chunk(2, dim=-1)
    rotated = out if out.dtype == heads.dtype else torch.empty_like(heads)
    rotated_left, rotated_right = rotated.chunk(2, dim=-1)
    torch.mul(left, cos, out=rotated_left).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=rotated_right).addcmul_(left, sin)
    if rotated is not out:
        out.copy_(rotated)
