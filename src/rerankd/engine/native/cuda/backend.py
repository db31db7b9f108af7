"""The CUDA backend: Triton kernels and packed tokens where the device and the model allow, else torch."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Final

import torch

from rerankd.engine.base import Batch, DType, EngineOptions
from rerankd.engine.native.activations import FP8, LinearInput
from rerankd.engine.native.attention import AttentionBackend
from rerankd.engine.native.backend import GateUp, Linear, Run, Weights
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.cpu.attention_sdpa import PaddedSDPA
from rerankd.engine.native.cpu.torch_ops import TorchOps
from rerankd.engine.native.cuda.graph_runner import CudaGraphRunner
from rerankd.engine.native.cuda.linear import Fp8Linear, FusedLinear, has_fp8
from rerankd.engine.native.forward_batch import ForwardBatch, TokenLayout, plan_batch
from rerankd.engine.native.kv_cache import KVCache
from rerankd.engine.native.ops import FusedOps, gated
from rerankd.engine.native.precision import Precision
from rerankd.errors import ConfigurationError

_AMPERE: Final = (8, 0)
_HEAD_DIMS: Final = (16, 32, 64, 128, 256)
_DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp8": FP8,
}


class CudaBackend:
    """GEMMs, operations and attention of one model on one CUDA device."""

    block_rows = 2**31
    """All at once: the fewer kernels the better, and memory is measured."""

    def __init__(self, options: EngineOptions, config: ModelConfig, device: torch.device) -> None:
        self.device = device
        self.precision = choose_precision(options.dtype, device)
        self.kv_cache = KVCache(config, options.prefix_cache_tokens, self.precision.compute_dtype, device)
        self.ops: FusedOps = TorchOps()
        self._gate = config.family.gate
        self._runner: CudaGraphRunner | None = None
        if supports_packed(device, self.precision.compute_dtype, config.head_dim):
            # Imported here: without a CUDA device there need not be a Triton.
            from rerankd.engine.native.cuda.ops import TritonOps, attention

            self.ops = TritonOps()
            self._runner = CudaGraphRunner(config, device, self.kv_cache, attention)

    def prepare(self, stored: frozenset[str]) -> None:
        """Triton compiles a kernel when it is first used."""

    def linear(
        self,
        weights: Weights,
        biases: Weights | None = None,
        *,
        keep_unquantized: bool = False,
        two_term_int8: int = 0,
    ) -> Linear:
        precision = self.precision
        if precision.weight_dtype == FP8 and not keep_unquantized:
            return Fp8Linear([weight.to(self.device) for weight in weights], precision.compute_dtype, biases)
        dtype = precision.compute_dtype if precision.weight_dtype == FP8 else precision.weight_dtype
        return FusedLinear([weight.to(self.device, dtype) for weight in weights], biases)

    def gate_up(self, gate: torch.Tensor, up: torch.Tensor) -> GateUp:
        both, dtype = self.linear([gate, up]), self.precision.activation_dtype
        multiply = gated(self._gate, self.ops)

        def gate_up(rows: LinearInput) -> LinearInput:
            left, right = both(rows)
            return multiply(left, right, dtype)

        return gate_up

    def plan(self, batch: Batch) -> ForwardBatch:
        if self._runner:
            return self._runner.plan(batch)
        return plan_batch(batch, self.kv_cache, self.device, self._padded)

    def run(self, model: Run, forward_batch: ForwardBatch) -> torch.Tensor:
        return self._runner.run(model, forward_batch) if self._runner else model(forward_batch)

    def free_memory(self) -> None:
        """Drop graphs and KV cache, and give unused memory back to the device."""
        if self._runner:
            self._runner.clear()
        self.kv_cache.free()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def kernels(self) -> str:
        return "triton" if self._runner else "torch"

    def describe(self) -> str:
        how = "Triton kernels, CUDA graphs" if self._runner else "padded attention, torch between GEMMs"
        return f"{self.precision.reason}, {how}"

    def _padded(self, layout: TokenLayout) -> AttentionBackend:
        return PaddedSDPA(layout, self.device, self.precision.compute_dtype)


def choose_precision(name: DType, device: torch.device) -> Precision:
    """The dtypes for ``--dtype name`` on CUDA; ``auto`` is bfloat16.

    Raises:
        ConfigurationError: a dtype that this device does not compute in.
    """
    if name == "auto":
        name = "bfloat16"
    if name not in _DTYPES:
        raise ConfigurationError(f"the native engine does not compute {name!r} on {device.type}")
    if name == "fp8" and not has_fp8(device):
        raise ConfigurationError(
            f"the native engine does not compute 'fp8' on {device}: that takes CUDA of capability 8.9 or later"
        )
    dtype, wide = _DTYPES[name], torch.float32
    if dtype == FP8:
        return Precision(name, FP8, FP8, torch.bfloat16, wide, "fp8 GEMMs, scaled by row and by channel")
    return Precision(name, dtype, dtype, dtype, wide, f"{name} GEMMs")


def supports_packed(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether tokens are computed without padding there: that takes a card of Ampere or later, Triton, and for Triton
    a C compiler."""
    has_compiler = any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")))
    return (
        device.type == "cuda"
        and torch.cuda.get_device_capability(device) >= _AMPERE
        and dtype in (torch.bfloat16, torch.float16)
        and head_dim in _HEAD_DIMS
        and has_compiler
        and importlib.util.find_spec("triton") is not None
    )
