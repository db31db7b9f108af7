"""Passes as CUDA computes them give the scores of the padded ones; here on a CPU, with attention in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.cuda_on_cpu import CPU, cuda_on_cpu, plain_attention
from tests.engine.layouts import FEW, in_formats
from tests.unit.engine.native.forests import two_levels

from rerankd.engine.base import Batch, Engine
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.cuda.attention_metadata import round_up_to_bucket
from rerankd.engine.native.cuda.graph_runner import CudaGraphRunner
from rerankd.engine.native.kv_cache import KVCache

Forest = Callable[..., Batch]
Make = Callable[..., Engine]

BOUNDS = {"float32": 1e-5, "bfloat16": 1e-2, "fp8": 0.15}
"""Largest difference of a probability. fp8 rounds to 3 bits, and 64 numbers a row average little of that away."""


def runner(folder: Path, max_tokens: int = 8192, max_graphs: int = 64, slots: int = 64) -> CudaGraphRunner:
    config = ModelConfig.read(folder)
    cache = KVCache(config, slots, torch.float32, CPU)
    return CudaGraphRunner(config, CPU, cache, plain_attention, max_tokens=max_tokens, max_graphs=max_graphs)


@pytest.mark.parametrize("is_large", [False, True])
@in_formats(BOUNDS, FEW)
def test_packed_tokens_give_the_scores_of_padded_ones(
    checkpoint: Path, dtype: str, is_large: bool, make_forest: Forest, make_engine: Make
) -> None:
    """Those of a large pass lie as they are, those of a small one are padded to a bucketed size."""
    batch = make_forest(40)
    expected = probability(make_engine("native", checkpoint).score(batch))
    found = probability(cuda_on_cpu(checkpoint, dtype, max_tokens=0 if is_large else 8192)(batch))
    assert np.ptp(expected) > 0.2, "random weights whose scores are all alike would prove nothing"
    assert np.abs(found - expected).max() <= BOUNDS[dtype]


def test_every_token_is_one_row_at_its_position(small_checkpoint: Path, make_forest: Forest) -> None:
    batch = make_forest(40)
    forward_batch = runner(small_checkpoint, max_tokens=0).plan(batch)
    assert len(forward_batch.ids) == batch.tokens
    ends = forward_batch.last
    assert forward_batch.ids[ends].tolist() == [prompt[-1] for prompt in batch.prompts()]
    assert forward_batch.positions[ends].tolist() == [len(prompt) - 1 for prompt in batch.prompts()]


def test_batches_of_like_size_have_the_same_inputs(small_checkpoint: Path) -> None:
    """Their numbers alone are others, and nothing of the last batch is left in them."""
    made, plans = runner(small_checkpoint), []
    for lengths in ([90, 90, 80], [130, 120, 9], [300] * 9):
        batch = two_levels((20, lengths))
        plans.append(made.plan(batch))
        tokens = batch.token_ids.tolist()
        assert plans[-1].ids.tolist() == tokens + [0] * (len(plans[-1].ids) - len(tokens))
        assert len(plans[-1].ids) <= 1.125 * len(tokens) + 64
    assert plans[0] is plans[1]
    assert plans[0] is not plans[2]


def test_padding_is_written_to_a_slot_of_nobody(small_checkpoint: Path) -> None:
    batch = two_levels((20, [5, 6]))
    batch.slots[:3] = [4, 5, 6]
    exchange = runner(small_checkpoint, slots=64).plan(batch).prefix_kv
    assert exchange.written_slots.tolist() == [4, 5, 6] + [64] * (len(exchange.written_slots) - 3)
    assert exchange.written_rows.tolist()[:3] == [0, 1, 2]


def test_the_oldest_sizes_are_forgotten(small_checkpoint: Path) -> None:
    made = runner(small_checkpoint, max_graphs=2)
    first, second = made.plan(two_levels((0, [100]))), made.plan(two_levels((0, [300])))
    assert made.plan(two_levels((0, [100]))) is first
    made.plan(two_levels((0, [900])))
    assert made.plan(two_levels((0, [100]))) is first
    assert made.plan(two_levels((0, [300]))) is not second


@given(st.integers(0, 1 << 20), st.sampled_from([1, 8, 32, 64]), st.sampled_from([1, 2, 8]))
def test_buckets_are_few_and_hold_what_comes(count: int, least: int, parts: int) -> None:
    found = round_up_to_bucket(count, least, parts)
    assert count <= found < max(count + least, count * (1 + 1 / parts) + 1)
    assert round_up_to_bucket(found, least, parts) == found


def probability(scores: np.ndarray) -> np.ndarray:
    assert scores.dtype == np.float32
    return 1 / (1 + np.exp(-scores.astype(np.float64)))
