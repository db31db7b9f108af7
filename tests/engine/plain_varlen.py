"""What runs on CUDA alone, run on a CPU: packed rows, with their attention in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from rerankd.engine.base import Batch, HeadSpec
from rerankd.engine.native.compiled import CompiledPieces
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.engine import forward
from rerankd.engine.native.kept import Kept
from rerankd.engine.native.layers import FP8, TorchPieces
from rerankd.engine.native.loading import Loader
from rerankd.engine.native.model import Model
from rerankd.engine.native.numbers import Numbers
from rerankd.engine.native.packing import Spans
from rerankd.engine.native.varlen import planner
from rerankd.engine.native.weights import WeightFiles

CPU = torch.device("cpu")
NUMBERS = {
    "float32": Numbers("float32", *[torch.float32] * 4, ""),
    "bfloat16": Numbers("bfloat16", *[torch.bfloat16] * 4, ""),
    "fp8": Numbers("fp8", FP8, FP8, torch.bfloat16, torch.bfloat16, ""),
}
"""The formats that CUDA computes in."""


def packed_on_cpu(
    folder: Path, dtype: str, *, is_compiled: bool = False, kept: Kept | None = None
) -> Callable[[Batch], np.ndarray]:
    """Raw scores of the checkpoint in ``folder``, computed as on CUDA."""
    kept = kept or Kept(0)
    config = ModelConfig.read(folder)
    loader = Loader(config, WeightFiles(folder), NUMBERS[dtype], CPU)
    pieces = CompiledPieces() if is_compiled else TorchPieces()
    with torch.inference_mode():
        model = Model(config, loader, pieces, 2**31, HeadSpec("words", positive=9, negative=8), 8192)
    plan = planner(CPU, plain)
    return lambda batch: forward(batch, kept, plan, model)


def plain(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, spans: Spans
) -> tuple[torch.Tensor, torch.Tensor]:
    """What flash attention of packed sequences has to give, one sequence after another."""
    attended = torch.full_like(queries, torch.nan)
    sums = torch.full(queries.shape[1::-1], torch.nan, device=queries.device)
    places = zip(pairwise(spans.query_offsets.tolist()), pairwise(spans.key_offsets.tolist()), strict=True)
    for (begin, end), (first, last) in places:
        assert 0 < end - begin <= spans.longest_query
        assert 0 < last - first <= spans.longest_key
        part = attend_to_all(queries[begin:end], keys[first:last], values[first:last], is_causal=spans.is_causal)
        attended[begin:end], sums[:, begin:end] = part
    return attended, sums


def attend_to_all(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, is_causal: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of one sequence, and the log-sum-exp of its scores, from the definition."""
    repeats = queries.shape[1] // keys.shape[1]
    wide_keys, wide_values = (part.float().repeat_interleave(repeats, dim=1) for part in (keys, values))
    scores = torch.einsum("qhd,khd->hqk", queries.float(), wide_keys) / queries.shape[-1] ** 0.5
    if is_causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    attended = torch.einsum("hqk,khd->qhd", scores.softmax(dim=-1), wide_values)
    return attended.to(queries.dtype), scores.logsumexp(dim=-1)
