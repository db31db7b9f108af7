"""What a way to multiply matrices on a CPU has to offer; ``backend.py`` has the table of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from rerankd.engine.native.activations import LinearInput
from rerankd.engine.native.backend import GateUp, Linear, Weights
from rerankd.engine.native.config import Gate, ModelConfig
from rerankd.engine.native.cpu.library import CpuKernels
from rerankd.engine.native.ops import FusedOps, gated
from rerankd.engine.native.precision import Precision


@dataclass(frozen=True, slots=True)
class GemmTarget:
    """What is to be multiplied, and with what.

    Attributes:
        kernels: the C kernels, or None where there are none.
        precision: the dtypes of weights and activations.
        stored: the number formats of the matrices in the checkpoint, in safetensors' words (``BF16``).
        sides: the sizes of all sides of the matrices.
        gate: the activation of the gated MLP.
    """

    kernels: CpuKernels | None
    precision: Precision
    stored: frozenset[str]
    sides: tuple[int, ...]
    gate: Gate

    @classmethod
    def of(
        cls, kernels: CpuKernels | None, precision: Precision, stored: frozenset[str], config: ModelConfig
    ) -> GemmTarget:
        heads = (config.heads * config.head_dim, config.kv_heads * config.head_dim)
        return cls(kernels, precision, stored, (config.hidden, config.intermediate, *heads), config.family.gate)

    def has_sides_of(self, multiple: int) -> bool:
        return not any(side % multiple for side in self.sides)


class Gemm(ABC):
    """GEMMs of one kind of weights on one instruction set or library: makes the linear layers of a model."""

    name: ClassVar[str]
    """For the log and ``/info``."""
    packs_activations: ClassVar[bool] = False
    """`FusedOps` have to give activations in the layout of AMX."""
    block_rows: ClassVar[int] = 2048
    """Rows that are multiplied together: large enough that packing the weights is little beside the GEMM, small
    enough for a pass to work in 250 MB."""

    def __init__(self, target: GemmTarget) -> None:
        self._target = target

    @classmethod
    @abstractmethod
    def supports(cls, target: GemmTarget) -> bool:
        """Whether it can multiply this on this processor, and is the best of the table from here on."""

    @abstractmethod
    def linear(self, weights: Weights, biases: Weights | None = None, two_term: int = 0) -> Linear:
        """One output for each matrix; int8 gives the last ``two_term`` of them a second term."""

    def gate_up(self, gate: torch.Tensor, up: torch.Tensor, ops: FusedOps) -> GateUp:
        """Two products and an operation behind them; a GEMM with an epilogue of its own does better."""
        both, dtype = self.linear([gate, up]), self._target.precision.activation_dtype
        multiply = gated(self._target.gate, ops)

        def gate_up(rows: LinearInput) -> LinearInput:
            left, right = both(rows)
            return multiply(left, right, dtype)

        return gate_up

    @property
    def _kernels(self) -> CpuKernels:
        assert self._target.kernels, "a GEMM in C was chosen without the C kernels"
        return self._target.kernels
