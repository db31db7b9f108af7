"""The small pieces of the network: normalisation, rotary positions, the gated MLP's product."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def rms_norm(rows: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root-mean-square normalisation over the last dimension: float32, whatever the rows are.

    The norm of each row and two products: torch's own kernel takes four passes over the rows on a CPU.
    """
    wide = rows.float()
    length: torch.Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    inverse = length.square_().div_(rows.shape[-1]).add_(eps).rsqrt_()
    return (wide * inverse).mul_(weight)


class Rotary:
    """Cosines and sines of every position, float32, as the released models compute them.

    The frequencies are made in float32 like the reference's: in float64 they differ by 1e-7 of themselves,
    which at position 8,000 is a thousandth of a turn.
    """

    def __init__(self, head_dim: int, theta: float, length: int, device: torch.device) -> None:
        frequencies = 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim))
        angles = torch.outer(torch.arange(length).float(), frequencies)
        self._cosines = angles.cos().to(device)
        self._sines = angles.sin().to(device)

    def at(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines, each (rows, 1, head_dim / 2)."""
        return self._cosines[positions].unsqueeze(1), self._sines[positions].unsqueeze(1)


def rotate(heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, out: torch.Tensor) -> None:
    """Turn (rows, heads, d) by position, into ``out``; the halves of d are the two coordinates."""
    left, right = heads.chunk(2, dim=-1)
    turned = out if out.dtype == heads.dtype else torch.empty_like(heads)
    turned_left, turned_right = turned.chunk(2, dim=-1)
    torch.mul(left, cosines, out=turned_left).addcmul_(right, sines, value=-1)
    torch.mul(right, cosines, out=turned_right).addcmul_(left, sines)
    if turned is not out:
        out.copy_(turned)


def gated(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, where ``gate_up`` (rows, 2 * n) holds both side by side."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate, inplace=True).mul_(up)
