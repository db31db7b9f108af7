"""What runs on CUDA alone, run on a CPU: the same plans and passes, with their attention in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from rerankd.engine.base import Batch, HeadSpec
from rerankd.engine.native.activations import FP8
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.cpu.torch_ops import TorchOps
from rerankd.engine.native.cuda.attention_metadata import Attend
from rerankd.engine.native.cuda.backend import CudaBackend
from rerankd.engine.native.cuda.graph_runner import CudaGraphRunner
from rerankd.engine.native.engine import forward
from rerankd.engine.native.kept import Kept
from rerankd.engine.native.models.qwen3 import Qwen3Reranker
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
"""The formats that CUDA computes in."""


def attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lines: torch.Tensor, block: int
) -> torch.Tensor:
    """What the kernel has to give, one line after another, from the definition."""
    attended = torch.full_like(queries, torch.nan)
    shared = queries.shape[1] // keys.shape[1]
    for first, count, own, own_count, kept, kept_count, new, new_count in lines.tolist():
        assert count * shared <= block
        rows = [*range(kept, kept + kept_count), *range(new, new + new_count), *range(own, own + own_count)]
        if count:
            attended[first : first + count] = _attend(queries[first : first + count], keys[rows], values[rows])
    return attended


def _attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The last query sees all keys, the one before it all but the last."""
    repeats = queries.shape[1] // keys.shape[1]
    wide_keys, wide_values = (part.float().repeat_interleave(repeats, dim=1) for part in (keys, values))
    scores = torch.einsum("qhd,khd->hqk", queries.float(), wide_keys) / queries.shape[-1] ** 0.5
    hidden = torch.ones(len(queries), len(keys), dtype=torch.bool, device=queries.device)
    scores = scores.masked_fill(hidden.triu(len(keys) - len(queries) + 1), -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), wide_values).to(queries.dtype)


class OnCpu(CudaBackend):
    """The same backend without a card."""

    def __init__(
        self,
        config: ModelConfig,
        precision: Precision,
        ops: FusedOps,
        kept_tokens: int,
        attend: Attend,
        most_rows: int,
    ) -> None:
        self.device = CPU
        self.precision = precision
        self.ops = ops
        self._runner = CudaGraphRunner(config, CPU, precision.compute_dtype, kept_tokens, attend, most_rows)


def passes_on_cpu(
    folder: Path,
    dtype: str,
    *,
    pieces: FusedOps | None = None,
    kept_tokens: int = 0,
    attend: Attend = attend,
    most_rows: int = 8192,
) -> tuple[Callable[[Batch], np.ndarray], Kept]:
    """Raw scores of the checkpoint in ``folder``, computed as on CUDA, and what is kept meanwhile."""
    kept = Kept(kept_tokens)
    config, numbers = ModelConfig.read(folder), PRECISIONS[dtype]
    backend = OnCpu(config, numbers, pieces or TorchOps(), kept_tokens, attend, most_rows)
    loader = WeightLoader(config, SafetensorsCheckpoint(folder), backend)
    head = HeadSpec("words", positive=9, negative=8)
    with torch.inference_mode():
        model = Qwen3Reranker(config, loader, head, 8192)
    return lambda batch: forward(batch, kept, backend, model), kept
