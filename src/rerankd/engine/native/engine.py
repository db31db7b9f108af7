"""The native engine behind the contract of ``engine/base.py``."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.cores import usable_cores
from rerankd.engine.base import Batch, EngineFault, EngineInfo, EngineOptions, EngineOutOfMemory, Group
from rerankd.engine.native.attention import Attention
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.cpu.library import (
    MAX_HEAD_DIM,
    MAX_WIDTH,
    CpuKernels,
    KernelsUnavailable,
)
from rerankd.engine.native.cpu.selftest import usable_kernels
from rerankd.engine.native.cuda.passes import Passes, packs
from rerankd.engine.native.kept import Kept, Loan
from rerankd.engine.native.kernel_attention import KernelAttention, has_kernel
from rerankd.engine.native.layers import Pieces, TorchPieces
from rerankd.engine.native.loading import Loader
from rerankd.engine.native.memory import find_budget, pages_for_loading
from rerankd.engine.native.model import Model
from rerankd.engine.native.numbers import Numbers
from rerankd.engine.native.plan import Placed, Plan, plan_batch
from rerankd.engine.native.sharing import beginnings, share
from rerankd.engine.native.stacks import Stacks
from rerankd.engine.native.weights import WeightFiles
from rerankd.errors import ConfigurationError

_TORCH_BLOCK = 256
"""Rows that go between two attentions together on a CPU: what lies between products stays in the caches, and small
enough for the allocator to hand the same pages out again, where large blocks are mapped and cleared each time."""
_KERNEL_BLOCK = 2048
"""... with the C kernels, which pass over them once: large enough that a product's own packing of the weights is
little beside the product, and small enough for a pass to do with 250 MB."""
_TILED_BLOCK = 4096
"""... with products in tiles, which are so much faster that packing counts for more, and work in less memory."""
_CUDA_BLOCK = 2**31
"""... on CUDA all: the fewer kernels the better, and memory is measured."""


Planner: TypeAlias = Callable[[Batch, Loan], Plan]


class NativeEngine:
    """A Qwen3 reranker in plain torch, on a CPU or one CUDA device."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._device = _device(options.device)
        self._config = ModelConfig.read(options.folder)
        self._numbers = Numbers.choose(options.dtype, self._device, self._config)
        self._length = min(options.max_pair_tokens, self._config.max_length)
        self._parameters = 0
        self._budget = options.max_batch_tokens
        self._model: Model | None = None
        self._kernels: CpuKernels | None = None
        self._why_torch = ""
        self._kept = Kept(options.prefix_cache_tokens)
        self._passes = self._made_passes() if self._is_packed else None

    def load(self) -> None:
        """Read the weights. Threads are set for the calling thread's work.

        Raises:
            ConfigurationError: the checkpoint is incomplete or does not fit its config.json.
        """
        if self._is_cpu:
            # Torch's own choice knows the affinity, but not the CPU quota of a container.
            torch.set_num_threads(self._options.threads or min(torch.get_num_threads(), usable_cores()))
        with pages_for_loading() if self._is_cpu else nullcontext():
            self._load()

    def warm_up(self) -> None:
        """Run the kernels once, and find the token budget unless the settings fix it."""
        self.health()
        if not self._options.max_batch_tokens:
            self._budget = find_budget(partial(self._score, kept=Kept(0)), self._device, self._length)

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            engine="native",
            device=str(self._device),
            dtype=self._numbers.name,
            architecture=self._config.architecture,
            max_length=self._config.max_length,
            parameters=self._parameters,
            max_batch_tokens=self._budget,
            kernels=self._kernels_name,
            details=self._details,
        )

    def score(self, batch: Batch) -> NDArray[np.float32]:
        """Raw scores, float32 (pairs,), in the order of the batch.

        Raises:
            EngineOutOfMemory: the batch does not fit, a smaller one may.
            EngineFault: the device failed for good.
        """
        return self._score(batch, self._kept)

    def health(self) -> bool:
        """Score one pair of two tokens."""
        two = np.zeros(2, dtype=np.int32)
        return bool(np.isfinite(self.score(Batch.of([Group(prefix=two[:1], tails=(two[1:],))]))).all())

    def close(self) -> None:
        """Let the weights go, and what is kept."""
        self._model = None
        self._kept.clear()
        # Nothing on a CPU waits for a collection, which would hold up whoever is served during a reload.
        if not self._is_cpu:
            self._free()

    def _score(self, batch: Batch, kept: Kept) -> NDArray[np.float32]:
        failure: Exception
        try:
            if self._model is None:
                raise EngineFault("the engine is not loaded")
            return forward(batch, kept, self._plan, self._run)
        except (MemoryError, RuntimeError) as error:
            failure = _classified(error)
        # Out of the except block: until here the traceback kept every tensor of the failed pass alive.
        if isinstance(failure, EngineOutOfMemory):
            kept.clear()
            self._free()
        raise failure

    def _plan(self, batch: Batch, loan: Loan) -> Plan:
        if self._passes:
            return self._passes.plan(batch, loan)
        return plan_batch(batch, loan, self._device, self._lay_out)

    def _run(self, plan: Plan) -> torch.Tensor:
        assert self._model is not None
        return self._passes.run(self._model, plan) if self._passes else self._model(plan)

    def _made_passes(self) -> Passes:
        # Imported here, and in `_pieces`: a CPU need not have Triton.
        from rerankd.engine.native.cuda.pieces import attend

        return Passes(self._config, self._device, self._numbers.rows, self._options.prefix_cache_tokens, attend)

    def _pieces(self, tiles: CpuKernels | None) -> Pieces:
        if tiles:
            return tiles.with_amx_packing()
        if self._kernels:
            return self._kernels
        if self._passes:
            from rerankd.engine.native.cuda.pieces import TritonPieces

            return TritonPieces()
        return TorchPieces()

    def _lay_out(self, placed: Placed) -> Attention:
        config, dtype = self._config, self._numbers.rows
        if self._kernels and has_kernel(self._kernels, dtype, config.head_dim):
            return KernelAttention(placed, self._kernels, config.heads // config.kv_heads)
        return Stacks(placed, self._device, dtype)

    @property
    def _details(self) -> str:
        if not self._is_cpu:
            kernels = "Triton kernels" if self._passes else "padded attention, torch between the products"
            return f"{self._numbers.reason}, {kernels}"
        pieces = f"C kernels for {self._kernels.isa}" if self._kernels else f"torch alone: {self._why_torch}"
        return f"{self._numbers.reason}, {pieces}, {torch.get_num_threads()} threads"

    def _load(self) -> None:
        files = WeightFiles(self._options.folder)
        if self._is_cpu:
            self._find_kernels()
        loader = Loader(self._config, files, self._numbers, self._device, self._kernels)
        with torch.inference_mode():
            pieces = self._pieces(loader.tiles)
            self._model = Model(self._config, loader, pieces, self._block, self._options.head, self._length)
        self._parameters = loader.parameters

    def _find_kernels(self) -> None:
        if not self._fits_kernels:
            self._why_torch = "the model is wider than the kernels"
            return
        try:
            self._kernels = usable_kernels()
        except KernelsUnavailable as error:
            self._why_torch = str(error)

    @property
    def _kernels_name(self) -> str:
        if self._is_cpu:
            return self._kernels.isa if self._kernels else "torch"
        return "triton" if self._passes else "torch"

    @property
    def _block(self) -> int:
        if not self._is_cpu:
            return _CUDA_BLOCK
        if self._kernels is None:
            return _TORCH_BLOCK
        return _TILED_BLOCK if self._kernels.has_amx else _KERNEL_BLOCK

    @property
    def _fits_kernels(self) -> bool:
        config = self._config
        width = max(config.hidden, config.intermediate, config.heads * config.head_dim)
        return width <= MAX_WIDTH and config.head_dim <= MAX_HEAD_DIM

    @property
    def _is_packed(self) -> bool:
        return packs(self._device, self._numbers.rows, self._config.head_dim)

    @property
    def _is_cpu(self) -> bool:
        return self._device.type == "cpu"

    def _free(self) -> None:
        if self._passes:
            self._passes.clear()
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def forward(batch: Batch, kept: Kept, plan: Planner, model: Callable[[Plan], torch.Tensor]) -> NDArray[np.float32]:
    """Raw scores, float32 (pairs,), in the order of the batch; what it shares, with itself and with earlier batches,
    is not computed again."""
    if not batch.pairs:
        return np.empty(0, dtype=np.float32)
    asked = kept.ask(beginnings(batch))
    shared = share(batch, asked.known)
    pair = int(shared.order[batch.group_offsets[asked.group]])
    with torch.inference_mode():
        laid_out = plan(shared.batch, Loan.of(shared.known, pair, asked.tokens))
        # On CUDA nothing waits for the device but this copy of the scores, and a look at what shall be kept.
        scores: NDArray[np.float32] = model(laid_out).cpu().numpy()[shared.order]
        if np.isfinite(scores).all():
            kept.learn(asked, laid_out.exchange.taken)
    return scores


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


def _classified(error: Exception) -> Exception:
    """The contract's exception for a failure of torch; anything unknown is this batch's own failure."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return EngineOutOfMemory(text)
    if "CUDA error" in text or "device-side assert" in text or "cuBLAS" in text.replace("CUBLAS", "cuBLAS"):
        return EngineFault(text)
    return RuntimeError(text)
