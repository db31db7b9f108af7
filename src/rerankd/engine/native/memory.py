"""The token budget of one forward pass, and the pages it works in."""

from __future__ import annotations

import ctypes
import sys
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


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""What glibc's malloc.h calls M_TRIM_THRESHOLD and M_MMAP_THRESHOLD."""
_KEPT_BYTES = 64 * 2**20


def keep_freed_pages() -> None:
    """Let what a layer frees be what the next one takes.

    Left alone, glibc hands blocks of some megabytes back to the system at once: 200,000 page faults, and a fifth of
    the time, in one pass over 2,600 tokens of the 0.6B. Other systems' allocators are not touched.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, 2 * _KEPT_BYTES)


def find_budget(score: Callable[[Batch], object], device: torch.device, length: int) -> int:
    """Tokens of one forward pass: what fits (CUDA), or what lasts long enough to be efficient (CPU)."""
    return _what_fits(score, length) if device.type == "cuda" else _what_lasts(score)


def _what_lasts(score: Callable[[Batch], object]) -> int:
    batch = _batch(_PROBE_TOKENS, _PROBE_TOKENS)
    score(batch)
    # By processor time, all threads together: a busy machine must not make the budget small.
    began = time.process_time()
    score(batch)
    seconds = (time.process_time() - began) / torch.get_num_threads()
    rate = _PROBE_TOKENS / max(seconds, 1e-4)
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
