"""The token budget of one forward pass, and the pages it works in."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from rerankd.engine.base import Batch, EngineOutOfMemory, Group

_SECONDS = 0.4
"""A batch should last about so long: a small request waits for at most one batch of a big one."""
_CPU_SMALLEST = 512
_CPU_LARGEST = 8192
_PROBE_TOKENS = 256
_CUDA_LARGEST = 131_072
_CUDA_PROBE = 16_384
"""Tokens that are enough for a CUDA device to be as fast as it gets."""
_CUDA_PAIR = 512
_CUDA_SHARE = 0.75
"""Of the free memory; the rest is for what the allocator cannot fill and for others on the device."""
_PREFIX = 8

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""What glibc's malloc.h calls M_TRIM_THRESHOLD and M_MMAP_THRESHOLD."""
_KEPT_BYTES = 64 * 2**20
_RETURNED_BYTES = 2**20


@contextmanager
def pages_for_loading() -> Iterator[None]:
    """Pages of what is freed go back while weights are read; after that, however it ended, they are kept."""
    return_freed_pages()
    try:
        yield
    finally:
        keep_freed_pages()


def return_freed_pages() -> None:
    """Let large blocks go back to the system when they are freed, as suits loading.

    Left alone, glibc soon cuts them out of memory that it holds, and more of it with every matrix: 2 GB for the 0.6B
    in int8, all of which later passes would touch sooner or later.
    """
    _set_thresholds(_RETURNED_BYTES, _RETURNED_BYTES)


def keep_freed_pages() -> None:
    """Let what a layer frees be what the next one takes.

    Left alone, glibc hands blocks of some megabytes back to the system at once: 200,000 page faults, and a fifth of
    the time, in one pass over 2,600 tokens of the 0.6B. What loading has freed goes back before.
    """
    _tell_glibc("malloc_trim", 0)
    _set_thresholds(_KEPT_BYTES, 2 * _KEPT_BYTES)


def _set_thresholds(mmap: int, trim: int) -> None:
    _tell_glibc("mallopt", _MMAP_THRESHOLD, mmap)
    _tell_glibc("mallopt", _TRIM_THRESHOLD, trim)


def _tell_glibc(name: str, *numbers: int) -> None:
    """Other systems' allocators are not touched."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, name):
        getattr(library, name)(*numbers)


def find_budget(score: Callable[[Batch], object], device: torch.device, length: int) -> int:
    """Tokens of one forward pass: what lasts long enough to be efficient, and on CUDA fits."""
    return _what_fits(score, device, length) if device.type == "cuda" else _what_lasts(score)


def _what_lasts(score: Callable[[Batch], object]) -> int:
    batch = _batch(_PROBE_TOKENS, _PROBE_TOKENS)
    score(batch)
    # By processor time, all threads together: a busy machine must not make the budget small.
    began = time.process_time()
    score(batch)
    seconds = (time.process_time() - began) / torch.get_num_threads()
    rate = _PROBE_TOKENS / max(seconds, 1e-4)
    return int(min(max(rate * _SECONDS, _CPU_SMALLEST), _CPU_LARGEST))


def _what_fits(score: Callable[[Batch], object], device: torch.device, length: int) -> int:
    """From what one pass takes of the free memory; a pass of that many tokens in long pairs confirms it."""
    batch = _batch(max(_CUDA_PROBE, length), min(_CUDA_PAIR, length))
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        rate = _rate(score, batch)
    except EngineOutOfMemory:
        return length
    taken = (torch.cuda.max_memory_allocated(device) - held) / batch.tokens
    # What torch holds of the device's memory and does not use is free too.
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - held
    budget = int(min(free * _CUDA_SHARE / taken, rate * _SECONDS, _CUDA_LARGEST))
    while budget > length:
        try:
            score(_batch(budget, length))
        except EngineOutOfMemory:
            budget //= 2
        else:
            break
    return max(budget, length)


def _rate(score: Callable[[Batch], object], batch: Batch) -> float:
    """Tokens a second, once everything is in place: the second pass of a size may be recorded."""
    score(batch)
    score(batch)
    began = time.perf_counter()
    score(batch)
    return batch.tokens / (time.perf_counter() - began)


def _batch(tokens: int, length: int) -> Batch:
    """``tokens`` in as few pairs as ``length`` allows, that share next to nothing: the worst case of its size."""
    pairs = -(-tokens // length)
    pair = np.zeros(tokens // pairs, dtype=np.int32)
    prefix = pair[1:][:_PREFIX]
    return Batch.of([Group(prefix, (pair[len(prefix) :],) * pairs)])
