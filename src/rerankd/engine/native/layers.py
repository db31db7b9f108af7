"""The small pieces of the network between its products: norms, rotary positions, the gated MLP, in plain torch.

`Pieces` is what the model asks for. `TorchPieces` runs everywhere; ``cpu/library.py`` does it in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F

MIDDLE = 128
"""What zero becomes in unsigned eight bits; oneDNN's fast products take unsigned activations alone."""

FP8 = torch.float8_e4m3fn


@dataclass(frozen=True, slots=True)
class Activations:
    """Rows on their way into a product or out of it: ``values`` times ``scales``.

    Attributes:
        values: (rows, width), floating point, or uint8 around `MIDDLE`.
        scales: float32 (rows,), or None where the values are the numbers.
    """

    values: torch.Tensor
    scales: torch.Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[Activations]) -> Activations:
        """Rows of one format one after another."""
        if len(parts) == 1:
            return parts[0]
        scales = [part.scales for part in parts if part.scales is not None]
        return cls(torch.cat([part.values for part in parts]), torch.cat(scales) if scales else None)

    def __getitem__(self, part: slice) -> Activations:
        return Activations(self.values[part], None if self.scales is None else self.scales[part])

    def heads(self, size: int) -> Activations:
        """(rows, heads, size)"""
        return Activations(self.values.view(len(self.values), -1, size), self.scales)

    def numbers(self) -> torch.Tensor:
        """The values where they are the numbers, else multiplied out in float32."""
        return self.values if self.scales is None else self.values.float() * self._by_row(self.scales)

    def into(self, out: torch.Tensor) -> None:
        """The same into ``out``, in its own number format."""
        if self.scales is None:
            out.copy_(self.values)
        else:
            torch.mul(self.values, self._by_row(self.scales), out=out)

    def _by_row(self, scales: torch.Tensor) -> torch.Tensor:
        return scales.view(-1, *[1] * (self.values.dim() - 1))


_STEP = 64
"""Bytes of a row in one tile."""
_BLOCK = 32
"""Rows that are packed together."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows as products in tiles take them (``packed.h``).

    Attributes:
        tiles: uint8, in whole blocks of 32 rows; of float32 numbers the three bfloat16 numbers whose sum they are.
        count: of rows.
        width: numbers of a row.
        dtype: float32, bfloat16, or uint8 around `MIDDLE`.
        scales: of uint8, float32 (count,); else None.
    """

    tiles: torch.Tensor
    count: int
    width: int
    dtype: torch.dtype
    scales: torch.Tensor | None

    @classmethod
    def empty(cls, shape: torch.Size, dtype: torch.dtype) -> Packed:
        count, width = shape
        size = {torch.float32: 6, torch.bfloat16: 2, torch.uint8: 1}[dtype]
        tiles = torch.empty(-(-count // _BLOCK) * _BLOCK * width * size, dtype=torch.uint8)
        return cls(tiles, count, width, dtype, torch.empty(count) if dtype == torch.uint8 else None)

    @property
    def steps(self) -> int:
        """Tiles that a row lies in, one after another, for each of its terms."""
        return self.width * (1 if self.dtype == torch.uint8 else 2) // _STEP


Inputs: TypeAlias = Activations | Packed
"""Rows on their way into a product."""


def plain(rows: Inputs) -> Activations:
    """Rows that are not packed; whoever asks does not multiply in tiles."""
    if isinstance(rows, Packed):
        raise TypeError("packed rows where tiles are not used")
    return rows


class Pieces(Protocol):
    """What lies between the products."""

    def add_rms_norm(
        self, rows: torch.Tensor, added: Activations | None, weight: torch.Tensor, eps: float, dtype: torch.dtype
    ) -> Inputs:
        """Add to the residual ``rows`` (n, width) in place; then their root-mean-square norm times ``weight``."""
        ...

    def qk_norm_rope(
        self, heads: Activations, weight: torch.Tensor | None, eps: float, angles: Angles, out: torch.Tensor
    ) -> None:
        """Norm (where there is a weight, (heads, d)) and position of (n, heads, d), into ``out``."""
        ...

    def silu_and_mul(self, gate: Activations, up: Activations, dtype: torch.dtype) -> Activations:
        """silu(gate) * up, both (n, width), of one product."""
        ...


Angles: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines, each float32 (rows, head_dim / 2)."""


class TorchPieces:
    """The pieces in torch's own operations, float32 inside."""

    def add_rms_norm(
        self, rows: torch.Tensor, added: Activations | None, weight: torch.Tensor, eps: float, dtype: torch.dtype
    ) -> Activations:
        if added is not None:
            rows.add_(added.numbers())
        return _in_format(rms_norm(rows, weight, eps), dtype)

    def qk_norm_rope(
        self, heads: Activations, weight: torch.Tensor | None, eps: float, angles: Angles, out: torch.Tensor
    ) -> None:
        wide = heads.numbers().float()
        if weight is not None:
            wide = rms_norm(wide, weight, eps)
        cosines, sines = angles
        rotate(wide, cosines.unsqueeze(1), sines.unsqueeze(1), out)

    def silu_and_mul(self, gate: Activations, up: Activations, dtype: torch.dtype) -> Activations:
        return _in_format(F.silu(gate.numbers().float()).mul_(up.numbers()), dtype)


def _in_format(rows: torch.Tensor, dtype: torch.dtype) -> Activations:
    if dtype == FP8:
        return Activations(*in_fp8(rows))
    if dtype != torch.uint8:
        return Activations(rows.to(dtype))
    scales = rows.abs().amax(dim=1).clamp_min_(1e-12).div_(127)
    # Converting cuts off, so adding a half rounds.
    return Activations((rows / scales[:, None]).add_(MIDDLE + 0.5).to(torch.uint8), scales)


def in_fp8(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in eight bits, and what each row was divided by, float32 (rows,)."""
    scales = rows.abs().amax(dim=1).float().clamp_min(1e-12) / torch.finfo(FP8).max
    return (rows / scales[:, None]).to(FP8), scales


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

    def at(self, positions: torch.Tensor) -> Angles:
        return self._cosines[positions], self._sines[positions]


def rotate(heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, out: torch.Tensor) -> None:
    """Turn (rows, heads, d) by position, into ``out``; the halves of d are the two coordinates."""
    left, right = heads.chunk(2, dim=-1)
    turned = out if out.dtype == heads.dtype else torch.empty_like(heads)
    turned_left, turned_right = turned.chunk(2, dim=-1)
    torch.mul(left, cosines, out=turned_left).addcmul_(right, sines, value=-1)
    torch.mul(right, cosines, out=turned_right).addcmul_(left, sines)
    if turned is not out:
        out.copy_(turned)
