"""GEMMs in AMX tiles (``csrc/gemm_amx.c``), with SiLU and the gate's product as an epilogue.

The B operand is a `PackedWeight`: N is blocked in panels of 32 outputs, two B tiles of 16 columns, and K in tiles of
64 bytes, that is 32 bfloat16 or 64 int8 numbers. bfloat16 matrices are read where they lie, in the mapped file, and
packed in passing; int8 ones are packed here, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from rerankd.engine.native.activations import ZERO_POINT, AmxPackedActivations, LinearInput, QuantizedTensor
from rerankd.engine.native.backend import GateUp, Linear, Weights
from rerankd.engine.native.cpu.gemm import Gemm, GemmTarget
from rerankd.engine.native.cpu.library import CpuKernels, Epilogue, PackedWeight
from rerankd.engine.native.cpu.linear_int8 import quantize_weight
from rerankd.engine.native.ops import FusedOps

_SIDE_MULTIPLE: Final = 64
"""What both sides of a matrix have to be a multiple of."""
_TILE_COLUMNS: Final = 16
"""Outputs of one B tile; a panel is two of them."""
_TILE_ROW_BYTES: Final = 64


class AmxLinear:
    """Several matrices that share their input.

    Activations are float32 or bfloat16 and weights bfloat16; or both are int8, and activations that do not come
    quantised are quantised first.
    """

    def __init__(
        self, kernels: CpuKernels, weights: Sequence[PackedWeight], out: torch.dtype, biases: Weights | None = None
    ) -> None:
        self._kernels = kernels
        self._weights = weights
        self._out = out
        self._biases: Sequence[torch.Tensor | None] = biases or [None] * len(weights)

    def __call__(self, rows: LinearInput) -> Sequence[QuantizedTensor]:
        packed = self._pack(rows)
        products = []
        for weight, bias in zip(self._weights, self._biases, strict=True):
            out = torch.empty(packed.num_rows, weight.outputs, dtype=self._out)
            self._kernels.gemm_packed(packed, weight, out)
            products.append(QuantizedTensor(out if bias is None else out.add_(bias)))
        return products

    def _pack(self, rows: LinearInput) -> AmxPackedActivations:
        if isinstance(rows, AmxPackedActivations):
            return rows
        is_int8 = self._weights[0].scales is not None
        return self._kernels.pack_activations(rows.values, torch.uint8 if is_int8 else self._out)


class AmxGateUpLinear:
    """silu(gate) * up, written in the packed layout that the next GEMM reads.

    int8 leaves it unpacked: a row has to be complete before its scale is known.
    """

    def __init__(self, kernels: CpuKernels, weight: PackedWeight, out: torch.dtype) -> None:
        self._kernels = kernels
        self._weight = weight
        self._out = out

    def __call__(self, rows: LinearInput) -> LinearInput:
        assert isinstance(rows, AmxPackedActivations)
        out: LinearInput
        if self._weight.scales is None:
            out = AmxPackedActivations.empty(torch.Size([rows.num_rows, self._weight.outputs]), self._out)
            self._kernels.gemm_packed(rows, self._weight, out)
        else:
            out = QuantizedTensor(torch.empty(rows.num_rows, self._weight.outputs, dtype=self._out))
            self._kernels.gemm_packed(rows, self._weight, out.values)
        return out


class AmxGemm(Gemm):
    """bfloat16 weights; float32 activations are split into three bfloat16 terms (BF16x3), which loses nothing."""

    name = "AMX"
    packs_activations = True
    block_rows = 4096

    @classmethod
    def supports(cls, target: GemmTarget) -> bool:
        # float32 weights have to be bfloat16 in the checkpoint, as of all released models they are.
        precision = target.precision
        is_exact = precision.weight_dtype == torch.float32 and target.stored == {"BF16"}
        return (
            target.kernels is not None
            and target.kernels.has_amx
            and target.has_sides_of(_SIDE_MULTIPLE)
            and target.gate == "silu"
            and (is_exact or precision.compute_dtype == torch.bfloat16)
        )

    def linear(self, weights: Weights, biases: Weights | None = None, two_term: int = 0) -> Linear:
        return AmxLinear(self._kernels, [*map(in_place, weights)], self._target.precision.compute_dtype, biases)

    def gate_up(self, gate: torch.Tensor, up: torch.Tensor, ops: FusedOps) -> GateUp:
        return AmxGateUpLinear(self._kernels, gate_up_in_place(gate, up), self._target.precision.compute_dtype)


class AmxInt8Gemm(AmxGemm):
    """int8 weights and activations; two-term weights add up in the epilogue."""

    name = "AMX int8"

    def linear(self, weights: Weights, biases: Weights | None = None, two_term: int = 0) -> Linear:
        one_term = len(weights) - two_term
        packed = [*map(pack_int8, weights[:one_term]), *map(pack_two_term_int8, weights[one_term:])]
        return AmxLinear(self._kernels, packed, self._target.precision.compute_dtype, biases)

    def gate_up(self, gate: torch.Tensor, up: torch.Tensor, ops: FusedOps) -> GateUp:
        return AmxGateUpLinear(self._kernels, pack_gate_up_int8(gate, up), self._target.precision.compute_dtype)


def in_place(weight: torch.Tensor) -> PackedWeight:
    """A bfloat16 matrix where it lies; another one is copied."""
    weight = weight.bfloat16()
    panels, stride = len(weight) // (2 * _TILE_COLUMNS), weight[: 2 * _TILE_COLUMNS].nbytes
    return PackedWeight(Epilogue.NONE, weight, weight[_TILE_COLUMNS:], panels, stride, len(weight))


def gate_up_in_place(gate: torch.Tensor, up: torch.Tensor) -> PackedWeight:
    """Two bfloat16 matrices where they lie, one B tile of each to a panel."""
    gate, up = gate.bfloat16(), up.bfloat16()
    panels, stride = len(gate) // _TILE_COLUMNS, gate[:_TILE_COLUMNS].nbytes
    return PackedWeight(Epilogue.SILU_MUL, gate, up, panels, stride, len(gate))


def pack_int8(weight: torch.Tensor) -> PackedWeight:
    """A matrix in int8, each output with its own scale."""
    return _pack(Epilogue.NONE, *quantize_weight(weight.float()), len(weight))


def pack_gate_up_int8(gate: torch.Tensor, up: torch.Tensor) -> PackedWeight:
    return _pack(Epilogue.SILU_MUL, *quantize_weight(_interleave(gate, up).float()), len(gate))


def pack_two_term_int8(weight: torch.Tensor) -> PackedWeight:
    """A matrix in int8 and its quantisation residual in int8 again, one B tile of each to a panel."""
    weight = weight.float()
    quantized, scales = quantize_weight(weight)
    residual, residual_scales = quantize_weight(weight - quantized * scales[:, None])
    both = _interleave(scales[:, None], residual_scales[:, None]).flatten()
    return _pack(Epilogue.SUM, _interleave(quantized, residual), both, len(weight))


def _interleave(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(2 * out, in): the outputs of a panel's left tile, then those of its right one."""
    width = left.shape[1]
    parts = [left.view(-1, _TILE_COLUMNS, width), right.view(-1, _TILE_COLUMNS, width)]
    return torch.stack(parts, dim=1).view(-1, width)


def _pack(epilogue: Epilogue, quantized: torch.Tensor, scales: torch.Tensor, outputs: int) -> PackedWeight:
    """VNNI packing: by panel, K tile and B tile, four numbers of each of the sixteen columns, sixteen times."""
    panels = len(quantized) // (2 * _TILE_COLUMNS)
    by_tile = quantized.to(torch.int8).view(panels, 2, _TILE_COLUMNS, -1, _TILE_ROW_BYTES // 4, 4)
    tiles = by_tile.permute(0, 3, 1, 4, 2, 5).contiguous()
    corrections = quantized.sum(dim=1).mul_(ZERO_POINT).to(torch.int32)
    return PackedWeight(epilogue, tiles, tiles, panels, 0, outputs, scales.contiguous(), corrections)
