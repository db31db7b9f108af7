"""The token budget of one forward pass."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from rerankd.engine.base import Batch, EngineOutOfMemory, Group

_CPU_SECONDS = 0.4
"""A batch should last about so long on a CPU: a small request waits for at most one batch of a big one."""
_CPU_SMALLEST = 512
_CPU_LARGEST = 8192
_PROBE_TOKENS = 256
_CUDA_LARGEST = 131_072


def find_budget(score: Callable[[Batch], object], device: torch.device, length: int) -> int:
    """Tokens of one forward pass: what fits (CUDA), or what lasts long enough to be efficient (CPU)."""
    return _what_fits(score, length) if device.type == "cuda" else _what_lasts(score)


def _what_lasts(score: Callable[[Batch], object]) -> int:
    batch = _batch(_PROBE_TOKENS, _PROBE_TOKENS)
    score(batch)
    began = time.perf_counter()
    score(batch)
    rate = _PROBE_TOKENS / (time.perf_counter() - began)
    return int(min(max(rate * _CPU_SECONDS, _CPU_SMALLEST), _CPU_LARGEST))


def _what_fits(score: Callable[[Batch], object], length: int) -> int:
    budget = _CUDA_LARGEST
    while budget > length:
        try:
            score(_batch(budget, length))
        except EngineOutOfMemory:
            budget //= 2
        else:
            break
    # A quarter stays free: other shapes of the same size need a little more or less.
    return max(budget * 3 // 4, length)


def _batch(tokens: int, length: int) -> Batch:
    """``tokens`` in pairs of ``length`` without a shared prefix: the worst case of its size."""
    size = min(length, tokens)
    tail = np.zeros(size, dtype=np.int32)
    return Batch.of([Group(prefix=tail[:0], tails=(tail,) * max(1, tokens // size))])
