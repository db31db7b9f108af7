"""Activations between GEMMs: plain or quantised row by row, and the packed layout that AMX reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

ZERO_POINT = 128
"""Zero point of uint8 activations: oneDNN's and our int8 GEMMs multiply u8 activations by s8 weights."""

FP8 = torch.float8_e4m3fn


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """Activations, ``values`` times ``scales``; plain where there are no scales.

    A row's scale depends on that row alone, so a pair's score does not depend on its neighbours in the batch.

    Attributes:
        values: (rows, width), floating point, or uint8 around `ZERO_POINT`.
        scales: float32 (rows,), or None where the values are the numbers themselves.
    """

    values: torch.Tensor
    scales: torch.Tensor | None = None

    @classmethod
    def concat(cls, parts: Sequence[QuantizedTensor]) -> QuantizedTensor:
        """Parts of one dtype, one after another along the rows."""
        if len(parts) == 1:
            return parts[0]
        scales = [part.scales for part in parts if part.scales is not None]
        return cls(torch.cat([part.values for part in parts]), torch.cat(scales) if scales else None)

    def __getitem__(self, rows: slice) -> QuantizedTensor:
        return QuantizedTensor(self.values[rows], None if self.scales is None else self.scales[rows])

    def split_heads(self, head_dim: int) -> QuantizedTensor:
        """(rows, heads, head_dim)"""
        return QuantizedTensor(self.values.view(len(self.values), -1, head_dim), self.scales)

    def dequantize(self) -> torch.Tensor:
        """The numbers: ``values`` as they are where nothing is scaled, else float32."""
        return self.values if self.scales is None else self.values.float() * self._per_row(self.scales)

    def dequantize_into(self, out: torch.Tensor) -> None:
        """The numbers, written to ``out`` in its dtype."""
        if self.scales is None:
            out.copy_(self.values)
        else:
            torch.mul(self.values, self._per_row(self.scales), out=out)

    def _per_row(self, scales: torch.Tensor) -> torch.Tensor:
        return scales.view(-1, *[1] * (self.values.dim() - 1))


_TILE_ROW_BYTES = 64
_ROW_BLOCK = 32
"""Rows that are packed together: two AMX A tiles."""


@dataclass(frozen=True, slots=True)
class AmxPackedActivations:
    """The A operand of an AMX GEMM (layout: ``cpu/csrc/gemm_pack.h``).

    Attributes:
        tiles: uint8, whole blocks of 32 rows. A float32 number is stored as the three bfloat16 terms that sum to it.
        num_rows: rows, without the padding of the last block.
        width: numbers in a row.
        dtype: float32, bfloat16, or uint8 around `ZERO_POINT`.
        scales: float32 (num_rows,) for uint8, else None.
    """

    tiles: torch.Tensor
    num_rows: int
    width: int
    dtype: torch.dtype
    scales: torch.Tensor | None

    @classmethod
    def empty(cls, shape: torch.Size, dtype: torch.dtype) -> AmxPackedActivations:
        num_rows, width = shape
        size = {torch.float32: 6, torch.bfloat16: 2, torch.uint8: 1}[dtype]
        tiles = torch.empty(-(-num_rows // _ROW_BLOCK) * _ROW_BLOCK * width * size, dtype=torch.uint8)
        return cls(tiles, num_rows, width, dtype, torch.empty(num_rows) if dtype == torch.uint8 else None)

    @property
    def k_tiles(self) -> int:
        """Tiles along a row (K), for each of its terms."""
        return self.width * (1 if self.dtype == torch.uint8 else 2) // _TILE_ROW_BYTES


LinearInput: TypeAlias = QuantizedTensor | AmxPackedActivations
"""What a linear layer multiplies."""


def require_unpacked(rows: LinearInput) -> QuantizedTensor:
    """The same rows, for a GEMM that does not run on AMX.

    Raises:
        TypeError: they are packed for AMX, which is a mistake in the choice of GEMMs.
    """
    if isinstance(rows, AmxPackedActivations):
        raise TypeError("activations are packed for AMX, and this GEMM does not read that layout")
    return rows


def quantize(rows: torch.Tensor, dtype: torch.dtype) -> QuantizedTensor:
    """Rows in ``dtype``: scaled row by row to uint8 around `ZERO_POINT` or to fp8, merely cast to anything else."""
    if dtype == FP8:
        return QuantizedTensor(*quantize_fp8(rows))
    if dtype != torch.uint8:
        return QuantizedTensor(rows.to(dtype))
    scales = rows.abs().amax(dim=1).clamp_min_(1e-12).div_(127)
    # The cast truncates, so adding a half rounds.
    return QuantizedTensor((rows / scales[:, None]).add_(ZERO_POINT + 0.5).to(torch.uint8), scales)


def quantize_fp8(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows in float8_e4m3fn, and the scale of each, float32 (rows,)."""
    scales = rows.abs().amax(dim=1).float().clamp_min(1e-12) / torch.finfo(FP8).max
    return (rows / scales[:, None]).to(FP8), scales


def split_outputs(
    out: torch.Tensor, sizes: Sequence[int], scales: torch.Tensor | None = None
) -> Sequence[QuantizedTensor]:
    """Columns of (rows, out) as the outputs of several matrices that were multiplied as one."""
    parts: Sequence[torch.Tensor] = torch.split(out, list(sizes), dim=1)
    return [QuantizedTensor(part, scales) for part in parts]
