"""What runs on CUDA alone, run on a CPU: the same layouts and passes, with their attention in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tests.unit.engine.native.forests import attend

from rerankd.engine.base import Batch, HeadSpec
from rerankd.engine.native.activations import FP8
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.cpu.torch_ops import TorchOps
from rerankd.engine.native.cuda.attention_metadata import AttentionKernel
from rerankd.engine.native.cuda.backend import CudaBackend
from rerankd.engine.native.cuda.graph_runner import CudaGraphRunner
from rerankd.engine.native.kv_cache import KVCache
from rerankd.engine.native.models.decoder import Decoder
from rerankd.engine.native.ops import FusedOps
from rerankd.engine.native.precision import Precision
from rerankd.engine.native.safetensors_reader import SafetensorsCheckpoint
from rerankd.engine.native.weight_loader import WeightLoader

CPU = torch.device("cpu")
PRECISIONS = {
    "float32": Precision("float32", *[torch.float32] * 4, ""),
    "bfloat16": Precision("bfloat16", *[torch.bfloat16] * 3, torch.float32, ""),
    "fp8": Precision("fp8", FP8, FP8, torch.bfloat16, torch.float32, ""),
}
"""What CUDA computes in."""


def plain_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tasks: torch.Tensor,
    ranges: torch.Tensor,
    block: int,
) -> torch.Tensor:
    """What the kernel has to give, one task after another, from the definition."""
    attended = torch.full_like(queries, torch.nan)
    group_size = queries.shape[1] // keys.shape[1]
    for first, count, own, own_count, begin, end in tasks.tolist():
        assert count * group_size <= block
        before = [range(row, row + keys_there) for row, keys_there in ranges[begin:end].tolist()]
        rows = [row for part in (*before, range(own, own + own_count)) for row in part]
        if count:
            attended[first : first + count] = attend(queries[first : first + count], keys[rows], values[rows])
    return attended


class OnCpu(CudaBackend):
    """The same backend without a card."""

    def __init__(
        self,
        config: ModelConfig,
        precision: Precision,
        ops: FusedOps,
        attention: AttentionKernel,
        slots: int,
        max_tokens: int,
    ) -> None:
        self.device = CPU
        self.precision = precision
        self.ops = ops
        self._gate = config.family.gate
        self.kv_cache = KVCache(config, slots, precision.compute_dtype, CPU)
        self._runner = CudaGraphRunner(config, CPU, self.kv_cache, attention, max_tokens=max_tokens)


def cuda_on_cpu(
    folder: Path,
    dtype: str,
    *,
    ops: FusedOps | None = None,
    attention: AttentionKernel = plain_attention,
    slots: int = 0,
    max_tokens: int = 8192,
) -> Callable[[Batch], np.ndarray]:
    """Raw scores of the checkpoint in ``folder``, computed as on CUDA."""
    config = ModelConfig.read(folder)
    backend = OnCpu(config, PRECISIONS[dtype], ops or TorchOps(), attention, slots, max_tokens)
    loader = WeightLoader(config, SafetensorsCheckpoint(folder), backend)
    with torch.inference_mode():
        model = Decoder(config, loader, HeadSpec("words", positive=9, negative=8), 8192)

    def score(batch: Batch) -> np.ndarray:
        with torch.inference_mode():
            return backend.run(model, backend.plan(batch)).numpy()[: batch.pairs]

    return score
