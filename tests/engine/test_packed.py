"""Passes as CUDA computes them give the scores of the stacks; here on a CPU, with attention in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.cuda_on_cpu import CPU, attend, passes_on_cpu

from rerankd.engine.base import Batch, Engine, Group
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.cuda import graph_runner as module
from rerankd.engine.native.cuda.attention_metadata import round_up_to_bucket
from rerankd.engine.native.cuda.graph_runner import CudaGraphRunner
from rerankd.engine.native.kept import Loan

Groups = Callable[..., list[Group]]
Make = Callable[..., Engine]

BOUNDS = {"float32": 1e-5, "bfloat16": 1e-2, "fp8": 0.15}
"""Largest difference of a probability. fp8 rounds to 3 bits, and 64 numbers a row average little of that away."""


@pytest.fixture
def mixed(make_groups: Groups) -> Batch:
    """Groups of many pairs, of one, of none; without a prefix, with one of a single token; tails of one token."""
    many = make_groups([5, 1, 60, 90, 300, 33, 33, 1], groups=3)
    (bare,), (alone,), (single,) = (make_groups([7, 40], groups=1) for _ in range(3))
    nothing = alone.prefix[:0]
    return Batch.of(
        [
            Group(nothing, bare.tails),
            many[0],
            Group(alone.prefix, alone.tails[:1]),
            Group(alone.prefix, ()),
            many[1],
            Group(nothing, alone.tails[1:]),
            Group(single.tails[0][:1], single.tails),
            many[2],
        ]
    )


def passes(folder: Path, most_rows: int = 8192) -> CudaGraphRunner:
    return CudaGraphRunner(ModelConfig.read(folder), CPU, torch.float32, 0, attend, most_rows)


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("dtype", BOUNDS)
def test_packed_rows_give_the_scores_of_the_stacks(
    checkpoint: Path, dtype: str, is_large: bool, mixed: Batch, make_engine: Make
) -> None:
    """Those of a large pass lie as they are, those of a small one are filled up to a common size."""
    expected = probability(make_engine("native", checkpoint).score(mixed))
    found = probability(passes_on_cpu(checkpoint, dtype, most_rows=0 if is_large else 8192)[0](mixed))
    assert np.ptp(expected) > 0.2, "random weights whose scores are all alike would prove nothing"
    assert np.abs(found - expected).max() <= BOUNDS[dtype]


def test_every_token_is_one_row_at_its_place_in_the_pair(small_checkpoint: Path, mixed: Batch) -> None:
    plan = passes(small_checkpoint, most_rows=0).plan(mixed, Loan.of([None] * mixed.groups))
    assert len(plan.ids) == mixed.tokens
    ends = plan.last
    assert plan.ids[ends].tolist() == [prompt[-1] for prompt in mixed.prompts()]
    assert plan.positions[ends].tolist() == [len(prompt) - 1 for prompt in mixed.prompts()]


def test_batches_of_like_size_have_one_plan(small_checkpoint: Path, rng: np.random.Generator) -> None:
    """Its numbers alone are others, and nothing of the last batch is left in them."""
    made = passes(small_checkpoint)
    plans = []
    for lengths in ([90, 90, 80], [130, 120, 9], [300] * 9):
        prefix, *tails = (rng.integers(0, 512, length).astype(np.int32) for length in (20, *lengths))
        batch = Batch.of([Group(prefix, tuple(tails))])
        plans.append(made.plan(batch, Loan.of([None])))
        tokens = [*batch.prefix_ids.tolist(), *batch.tail_ids.tolist()]
        assert plans[-1].ids.tolist() == tokens + [0] * (len(plans[-1].ids) - len(tokens))
        assert len(plans[-1].ids) <= 1.125 * len(tokens) + 64
    assert plans[0] is plans[1]
    assert plans[0] is not plans[2]


def test_the_oldest_sizes_are_forgotten(
    small_checkpoint: Path, make_groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_GRAPHS", 2)
    made = passes(small_checkpoint)

    def plan(length: int) -> object:
        return made.plan(Batch.of(make_groups([length], groups=1)), Loan.of([None]))

    first, second = plan(100), plan(300)
    assert plan(100) is first
    plan(900)
    assert plan(100) is first
    assert plan(300) is not second


@given(st.integers(0, 1 << 20), st.sampled_from([1, 8, 32, 64]), st.sampled_from([1, 2, 8]))
def test_rooms_are_few_and_hold_what_comes(count: int, least: int, parts: int) -> None:
    found = round_up_to_bucket(count, least, parts)
    assert count <= found < max(count + least, count * (1 + 1 / parts) + 1)
    assert round_up_to_bucket(found, least, parts) == found


def probability(scores: np.ndarray) -> np.ndarray:
    assert scores.dtype == np.float32
    return 1 / (1 + np.exp(-scores.astype(np.float64)))
