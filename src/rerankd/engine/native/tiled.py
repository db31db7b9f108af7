"""Matrix products in AMX tiles (``gemm_amx.c``), and what can be done with a product before it is written."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rerankd.engine.native.cpu.library import CpuKernels, Epilogue, PackedWeight
from rerankd.engine.native.layers import MIDDLE, Activations, Inputs, Packed
from rerankd.engine.native.linear import to_eight_bits

WHOLE = 64
"""What both sides of a matrix have to be a multiple of."""
_HALF = 16
"""Outputs of a tile; a panel is two of them."""
_LINE = 64
"""Bytes of a row in a tile."""


class TiledLinear:
    """Products of the same rows with several weights.

    Rows are float32 or bfloat16, and weights bfloat16 where they lie in the mapped file; or both are in eight bits,
    and rows that do not come so are rounded first.
    """

    def __init__(
        self,
        kernels: CpuKernels,
        panels: Sequence[PackedWeight],
        out: torch.dtype,
        biases: Sequence[torch.Tensor] | None = None,
    ) -> None:
        self._kernels = kernels
        self._panels = panels
        self._out = out
        self._biases: Sequence[torch.Tensor | None] = biases or [None] * len(panels)

    def __call__(self, rows: Inputs) -> Sequence[Activations]:
        packed = self._pack(rows)
        products = []
        for panels, bias in zip(self._panels, self._biases, strict=True):
            out = torch.empty(packed.count, panels.outputs, dtype=self._out)
            self._kernels.gemm_packed(packed, panels, out)
            products.append(Activations(out if bias is None else out.add_(bias)))
        return products

    def _pack(self, rows: Inputs) -> Packed:
        if isinstance(rows, Packed):
            return rows
        is_rounded = self._panels[0].scales is not None
        return self._kernels.pack_activations(rows.values, torch.uint8 if is_rounded else self._out)


class TiledGate:
    """silu(gate) * up, ready for the product behind it.

    It comes packed, but for eight bits, where all of a row has to be there before it is rounded.
    """

    def __init__(self, kernels: CpuKernels, panels: PackedWeight, out: torch.dtype) -> None:
        self._kernels = kernels
        self._panels = panels
        self._out = out

    def __call__(self, rows: Inputs) -> Inputs:
        assert isinstance(rows, Packed)
        out: Inputs
        if self._panels.scales is None:
            out = Packed.empty(torch.Size([rows.count, self._panels.outputs]), self._out)
            self._kernels.gemm_packed(rows, self._panels, out)
        else:
            out = Activations(torch.empty(rows.count, self._panels.outputs, dtype=self._out))
            self._kernels.gemm_packed(rows, self._panels, out.values)
        return out


def in_place(weight: torch.Tensor) -> PackedWeight:
    """A bfloat16 matrix where it lies; another one is copied."""
    weight = weight.bfloat16()
    count, apart = len(weight) // (2 * _HALF), weight[: 2 * _HALF].nbytes
    return PackedWeight(Epilogue.NONE, weight, weight[_HALF:], count, apart, len(weight))


def rounded(weight: torch.Tensor) -> PackedWeight:
    """A matrix in eight bits, each output with its own scale."""
    return _packed(Epilogue.NONE, *to_eight_bits(weight.float()), len(weight))


def gated(gate: torch.Tensor, up: torch.Tensor, *, in_eight_bits: bool) -> PackedWeight:
    """Two matrices, bfloat16 where they lie or in eight bits; the product is silu(gate) * up."""
    if in_eight_bits:
        return _packed(Epilogue.SILU_MUL, *to_eight_bits(_by_turns(gate, up).float()), len(gate))
    gate, up = gate.bfloat16(), up.bfloat16()
    return PackedWeight(Epilogue.SILU_MUL, gate, up, len(gate) // _HALF, gate[:_HALF].nbytes, len(gate))


def finely_rounded(weight: torch.Tensor) -> PackedWeight:
    """A matrix in eight bits, and what rounding took from it in eight more; the products are added."""
    weight = weight.float()
    whole, scales = to_eight_bits(weight)
    rest, rest_scales = to_eight_bits(weight - whole * scales[:, None])
    both = _by_turns(scales[:, None], rest_scales[:, None]).flatten()
    return _packed(Epilogue.SUM, _by_turns(whole, rest), both, len(weight))


def _by_turns(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(2 * out, in): the outputs of a panel's left tile, then those of its right one."""
    width = left.shape[1]
    return torch.stack([left.view(-1, _HALF, width), right.view(-1, _HALF, width)], dim=1).view(-1, width)


def _packed(epilogue: Epilogue, whole: torch.Tensor, scales: torch.Tensor, outputs: int) -> PackedWeight:
    """By panel, step of 64 numbers and tile: four numbers of each of the sixteen outputs, sixteen times."""
    count = len(whole) // (2 * _HALF)
    tiles = whole.to(torch.int8).view(count, 2, _HALF, -1, _LINE // 4, 4).permute(0, 3, 1, 4, 2, 5).contiguous()
    zero_point_corrections = whole.sum(dim=1).mul_(MIDDLE).to(torch.int32)
    return PackedWeight(epilogue, tiles, tiles, count, 0, outputs, scales.contiguous(), zero_point_corrections)
