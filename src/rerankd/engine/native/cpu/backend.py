"""The CPU backend: for each operation the first row of a table that this processor supports."""

from __future__ import annotations

import time
from functools import cache
from typing import Final

import torch
import torch.nn.functional as F

from rerankd.cores import usable_cores
from rerankd.engine.base import Batch, DType, EngineOptions
from rerankd.engine.native.attention import AttentionBackend
from rerankd.engine.native.backend import GateUp, Linear, Run, Weights
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.cpu.attention_sdpa import PaddedSDPA
from rerankd.engine.native.cpu.attention_varlen import VarlenAttention
from rerankd.engine.native.cpu.gemm import Gemm, GemmTarget
from rerankd.engine.native.cpu.library import MAX_HEAD_DIM, MAX_WIDTH, CpuKernels, KernelsUnavailable
from rerankd.engine.native.cpu.linear_amx import AmxGemm, AmxInt8Gemm
from rerankd.engine.native.cpu.linear_avx2 import Avx2Gemm
from rerankd.engine.native.cpu.linear_int8 import Avx2Int8Gemm, OneDnnInt8Gemm
from rerankd.engine.native.cpu.linear_torch import TorchGemm
from rerankd.engine.native.cpu.selftest import usable_kernels
from rerankd.engine.native.cpu.torch_ops import TorchOps
from rerankd.engine.native.forward_batch import ForwardBatch, TokenLayout, plan_batch
from rerankd.engine.native.kv_cache import KVCache
from rerankd.engine.native.ops import FusedOps
from rerankd.engine.native.precision import Precision
from rerankd.errors import ConfigurationError

FLOAT_GEMMS: Final[tuple[type[Gemm], ...]] = (AmxGemm, Avx2Gemm, TorchGemm)
INT8_GEMMS: Final[tuple[type[Gemm], ...]] = (AmxInt8Gemm, Avx2Int8Gemm, OneDnnInt8Gemm)
"""Best first. An instruction set more is a file with a `Gemm` and a row here."""

_TORCH_BLOCK_ROWS: Final = 256
"""Without C kernels: the tensors between GEMMs stay in the caches, and small enough for the allocator to hand the
same pages out again, where large blocks are mapped and cleared each time."""
_SMALL_MODEL: Final = 100_000_000
"""Weights of the layers below which memory does not matter, so that ``auto`` takes the fastest exact dtype."""
_DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}


class CpuBackend:
    """GEMMs, operations and attention of one model on a CPU."""

    def __init__(self, options: EngineOptions, config: ModelConfig) -> None:
        self.device = torch.device("cpu")
        self.precision = choose_precision(options.dtype, config)
        self.kv_cache = KVCache(config, options.prefix_cache_tokens, self.precision.compute_dtype, self.device)
        self._threads = options.threads
        self._config = config
        self._why_torch = "not loaded"
        self._use(None, frozenset())

    def prepare(self, stored: frozenset[str]) -> None:
        # Torch's own choice knows the affinity, but not the CPU quota of a container.
        torch.set_num_threads(self._threads or min(torch.get_num_threads(), usable_cores()))
        try:
            self._use(self._usable_kernels(), stored)
        except KernelsUnavailable as error:
            self._why_torch = str(error)
            self._use(None, stored)

    def linear(
        self,
        weights: Weights,
        biases: Weights | None = None,
        *,
        keep_unquantized: bool = False,
        two_term_int8: int = 0,
    ) -> Linear:
        if keep_unquantized or self.precision.weight_dtype != torch.int8:
            return self._float_gemm.linear(weights, biases)
        return self._gemm.linear(weights, biases, two_term_int8)

    def gate_up(self, gate: torch.Tensor, up: torch.Tensor) -> GateUp:
        return self._gemm.gate_up(gate, up, self.ops)

    def plan(self, batch: Batch) -> ForwardBatch:
        return plan_batch(batch, self.kv_cache, self.device, self._attention)

    def run(self, model: Run, forward_batch: ForwardBatch) -> torch.Tensor:
        return model(forward_batch)

    def free_memory(self) -> None:
        self.kv_cache.free()

    @property
    def kernels(self) -> str:
        return self._kernels.isa if self._kernels else "torch"

    def describe(self) -> str:
        how = f"torch alone: {self._why_torch}"
        if self._kernels:
            how = f"C kernels for {self._kernels.isa}, {self._gemm.name} GEMMs"
        return f"{self.precision.reason}, {how}, {torch.get_num_threads()} threads"

    def _usable_kernels(self) -> CpuKernels:
        config = self._config
        if max(config.hidden, config.intermediate, config.heads * config.head_dim) > MAX_WIDTH:
            raise KernelsUnavailable(f"a layer is wider than the {MAX_WIDTH} of the C kernels")
        if config.head_dim > MAX_HEAD_DIM:
            raise KernelsUnavailable(f"a head is wider than the {MAX_HEAD_DIM} of the C kernels")
        return usable_kernels()

    def _use(self, found: CpuKernels | None, stored: frozenset[str]) -> None:
        target = GemmTarget.of(found, self.precision, stored, self._config)
        self._kernels = found
        self._float_gemm = _first(FLOAT_GEMMS, target)
        self._gemm = _first(INT8_GEMMS, target) if self.precision.weight_dtype == torch.int8 else self._float_gemm
        self.block_rows = self._gemm.block_rows if found else _TORCH_BLOCK_ROWS
        self.ops = _ops(found, self._gemm)

    def _attention(self, layout: TokenLayout) -> AttentionBackend:
        config, dtype = self._config, self.precision.compute_dtype
        if self._kernels and VarlenAttention.supports(self._kernels, dtype, config.head_dim):
            return VarlenAttention(layout, self._kernels, config.heads // config.kv_heads)
        return PaddedSDPA(layout, self.device, dtype)


def _first(table: tuple[type[Gemm], ...], target: GemmTarget) -> Gemm:
    return next(gemm(target) for gemm in table if gemm.supports(target))


def _ops(found: CpuKernels | None, gemm: Gemm) -> FusedOps:
    if found is None:
        return TorchOps()
    return found.with_amx_packing() if gemm.packs_activations else found


def choose_precision(name: DType, config: ModelConfig) -> Precision:
    """The dtypes for ``--dtype name`` on a CPU.

    ``auto`` never costs accuracy: it is the checkpoint's own format, or float32 for small models.

    Raises:
        ConfigurationError: a dtype that CPUs do not compute in.
    """
    if name == "auto":
        name = config.stored if config.weights >= _SMALL_MODEL else "float32"
    if name not in _DTYPES:
        where = ": that takes CUDA of capability 8.9 or later" if name == "fp8" else ""
        raise ConfigurationError(f"the native engine does not compute {name!r} on cpu{where}")
    weight, wide = _DTYPES[name], torch.float32
    if weight == wide:
        return Precision(name, wide, wide, wide, wide, "float32 throughout")
    narrow = torch.bfloat16 if bfloat16_gemm_pays() else wide
    if weight == torch.int8:
        return Precision(name, weight, torch.uint8, narrow, wide, "int8 GEMMs, scaled by row and by channel")
    if weight == narrow:
        return Precision(name, weight, weight, weight, wide, "bfloat16 GEMMs: faster than float32 on this CPU")
    return Precision(name, weight, wide, wide, wide, f"{name} weights, upcast to float32: faster on this CPU")


@cache
def bfloat16_gemm_pays() -> bool:
    """Whether this CPU multiplies bfloat16 matrices faster than float32 ones; not all that can do.

    Measured once, in some milliseconds: on one thread and by that thread's own time, so that a busy machine does not
    decide it; the two take turns.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    for _ in range(4):
        for dtype in best:
            best[dtype] = min(best[dtype], _gemm_seconds(dtype))
    torch.set_num_threads(threads)
    return best[torch.bfloat16] < best[torch.float32]


def _gemm_seconds(dtype: torch.dtype) -> float:
    rows, weight = torch.ones(256, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    began = time.thread_time()
    F.linear(rows, weight)
    return time.thread_time() - began
