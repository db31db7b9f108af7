"""The token budget of one forward pass, found by trying at warm-up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np
import torch

from rerankd.engine.base import Batch, EngineOutOfMemory

_TARGET_SECONDS: Final = 0.4
"""How long a full batch should last: a small request waits for at most one batch of a big one."""
_CPU_MIN_TOKENS: Final = 512
_CPU_MAX_TOKENS: Final = 8192
_CPU_PROBE_TOKENS: Final = 256
_CUDA_MAX_TOKENS: Final = 131_072
_CUDA_PROBE_TOKENS: Final = 16_384
"""Enough for a CUDA device to be as fast as it gets."""
_CUDA_PAIR_TOKENS: Final = 512
_CUDA_MEMORY_SHARE: Final = 0.75
"""Of the free memory; the rest is for fragmentation and for others on the device."""
_SHARED_PREFIX: Final = 8

Score = Callable[[Batch], object]


def profile_max_batch_tokens(score: Score, device: torch.device, max_pair_tokens: int) -> int:
    """Tokens of one forward pass: enough to be efficient, few enough to end soon, and on CUDA to fit.

    Args:
        score: one forward pass.
        device: what it runs on.
        max_pair_tokens: of the longest pair, which always has to be allowed.
    """
    return (
        _by_memory(score, device, max_pair_tokens) if device.type == "cuda" else _by_latency(score, max_pair_tokens)
    )


def _by_latency(score: Score, max_pair_tokens: int) -> int:
    batch = probe_batch(_CPU_PROBE_TOKENS, min(_CPU_PROBE_TOKENS, max_pair_tokens))
    score(batch)
    # By processor time, all threads together: a busy machine must not make the budget small.
    began = time.process_time()
    score(batch)
    seconds = (time.process_time() - began) / torch.get_num_threads()
    rate = _CPU_PROBE_TOKENS / max(seconds, 1e-4)
    return int(min(max(rate * _TARGET_SECONDS, _CPU_MIN_TOKENS), _CPU_MAX_TOKENS))


def _by_memory(score: Score, device: torch.device, max_pair_tokens: int) -> int:
    """From what one pass takes of the free memory; a pass of that many tokens in long pairs confirms it."""
    batch = probe_batch(max(_CUDA_PROBE_TOKENS, max_pair_tokens), min(_CUDA_PAIR_TOKENS, max_pair_tokens))
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        rate = _tokens_per_second(score, batch)
    except EngineOutOfMemory:
        return max_pair_tokens
    bytes_per_token = (torch.cuda.max_memory_allocated(device) - held) / batch.tokens
    # What torch has reserved of the device's memory and does not use is free too.
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - held
    budget = int(min(free * _CUDA_MEMORY_SHARE / bytes_per_token, rate * _TARGET_SECONDS, _CUDA_MAX_TOKENS))
    while budget > max_pair_tokens:
        try:
            score(probe_batch(budget, max_pair_tokens))
        except EngineOutOfMemory:
            budget //= 2
        else:
            break
    return max(budget, max_pair_tokens)


def _tokens_per_second(score: Score, batch: Batch) -> float:
    """Once everything is in place: the second pass of a size may be captured as a CUDA graph."""
    score(batch)
    score(batch)
    began = time.perf_counter()
    score(batch)
    return batch.tokens / (time.perf_counter() - began)


def probe_batch(tokens: int, pair_tokens: int, vocabulary: int = 1) -> Batch:
    """``tokens`` in as few pairs as ``pair_tokens`` allows, that share next to nothing: the worst case of its size.

    Their ids are spread over the vocabulary.
    """
    pairs = -(-tokens // pair_tokens)
    prompt = np.linspace(0, vocabulary - 1, tokens // pairs).astype(np.int32)
    prefix = prompt[:-1][:_SHARED_PREFIX]
    roots, tail = int(len(prefix) > 0), prompt[len(prefix) :]
    lengths = [len(prefix)] * roots + [len(tail)] * pairs
    return Batch(
        token_ids=np.concatenate([prefix, np.tile(tail, pairs)]),
        offsets=np.cumsum([0, *lengths], dtype=np.int32),
        parents=np.array([-1] * roots + [roots - 1] * pairs, dtype=np.int32),
        leaves=np.arange(roots, roots + pairs, dtype=np.int32),
        cached=np.zeros(roots + pairs, dtype=np.bool_),
        slots=np.full(sum(lengths), -1, dtype=np.int32),
    )
