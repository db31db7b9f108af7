"""One object for each kind of device: it owns GEMMs, fused operations, attention, and its own description."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import torch

from rerankd.engine.base import Batch, EngineOptions
from rerankd.engine.native.activations import LinearInput, QuantizedTensor
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.forward_batch import ForwardBatch
from rerankd.engine.native.kv_cache import KVCache
from rerankd.engine.native.ops import FusedOps
from rerankd.engine.native.precision import Precision
from rerankd.errors import ConfigurationError

Linear: TypeAlias = Callable[[LinearInput], Sequence[QuantizedTensor]]
"""(rows, in) -> (rows, out) for each matrix; slices of wider rows where the matrices lie side by side."""

GateUp: TypeAlias = Callable[[LinearInput], LinearInput]
"""(rows, hidden) -> (rows, intermediate): the first half of the MLP, gate times up, ready for the second."""

Weights: TypeAlias = Sequence[torch.Tensor]
"""Matrices (out, in) of the checkpoint that share their input, as its files store them."""

Run: TypeAlias = Callable[[ForwardBatch], torch.Tensor]
"""The model: raw scores, float32 (pairs,)."""


class Backend(Protocol):
    """How one kind of device computes; ``cpu/backend.py`` and ``cuda/backend.py`` implement it."""

    device: torch.device
    precision: Precision
    ops: FusedOps
    kv_cache: KVCache
    block_rows: int
    """Rows that pass through the operations between two attentions together."""

    def prepare(self, stored: frozenset[str]) -> None:
        """Load the kernels and choose one implementation of each operation.

        Called once, before weights are read, on the thread that computes. ``stored`` are the number formats of the
        checkpoint's matrices, in safetensors' words.
        """
        ...

    def linear(
        self,
        weights: Weights,
        biases: Weights | None = None,
        *,
        keep_unquantized: bool = False,
        two_term_int8: int = 0,
    ) -> Linear:
        """A linear layer with one output for each matrix.

        Where matrices are quantised, those of a layer with ``keep_unquantized`` are not; in int8 the last
        ``two_term_int8`` of them get a second int8 term for the quantisation residual (W ~ s1*Q1 + s2*Q2).
        """
        ...

    def gate_up(self, gate: torch.Tensor, up: torch.Tensor) -> GateUp:
        """activation(x gate^T) * (x up^T) of the matrices (intermediate, hidden)."""
        ...

    def plan(self, batch: Batch) -> ForwardBatch:
        """Lay ``batch``, which has pairs, out on the device."""
        ...

    def run(self, model: Run, forward_batch: ForwardBatch) -> torch.Tensor:
        """Raw scores, float32 (n,); those behind the batch's own pairs mean nothing."""
        ...

    def free_memory(self) -> None:
        """Let go of everything that is not weights, the KV cache included."""
        ...

    @property
    def kernels(self) -> str:
        """What computes: the instruction set of the C kernels, ``triton``, or ``torch`` for want of any."""
        ...

    def describe(self) -> str:
        """One line for the log and ``/info``: kernels, instruction sets, threads."""
        ...


def choose_backend(options: EngineOptions, config: ModelConfig) -> Backend:
    """The backend for ``options.device``, which computes in ``options.dtype``.

    Raises:
        ConfigurationError: no such device, or it does not compute in this dtype.
    """
    device = _device(options.device)
    if device.type == "cpu":
        from rerankd.engine.native.cpu.backend import CpuBackend

        return CpuBackend(options, config)
    from rerankd.engine.native.cuda.backend import CudaBackend

    return CudaBackend(options, config, device)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigurationError(f"there is no device {name!r}; give auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigurationError(f"the native engine runs on cpu and cuda, not on {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(f"there is no device {name!r}: torch sees {torch.cuda.device_count()} CUDA devices")
    return device
