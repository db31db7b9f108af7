"""How batches are laid out: every row attended once, little padding, causal order."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankd.engine.base import Batch, Group
from rerankd.engine.native.plan import plan_batch

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=12)
GROUPS = st.lists(st.tuples(st.integers(0, 40), LENGTHS), min_size=1, max_size=4)


def batch_of(shape: list[tuple[int, list[int]]]) -> Batch:
    def ids(length: int) -> np.ndarray:
        return np.arange(length, dtype=np.int32)

    return Batch.of([Group(ids(prefix), tuple(ids(tail) for tail in tails)) for prefix, tails in shape])


@given(GROUPS)
@settings(deadline=None)
def test_every_row_is_attended_exactly_once(shape: list[tuple[int, list[int]]]) -> None:
    batch = batch_of(shape)
    plan = plan_batch(batch, torch.device("cpu"), torch.float32)
    rows = torch.cat([stack.rows for stack in plan.stacks])
    assert sorted(rows.tolist()) == list(range(batch.tokens))
    pairs = torch.cat([stack.rows for stack in plan.last_stacks])
    assert sorted(pairs.tolist()) == list(range(batch.pairs))


@given(GROUPS)
@settings(deadline=None)
def test_positions_go_on_from_the_prefix_to_each_tail(shape: list[tuple[int, list[int]]]) -> None:
    batch = batch_of(shape)
    plan = plan_batch(batch, torch.device("cpu"), torch.float32)
    expected = [*(np.arange(prefix) for prefix, _ in shape)]
    expected += [np.arange(prefix, prefix + tail) for prefix, tails in shape for tail in tails]
    assert plan.positions.tolist() == np.concatenate(expected).tolist()


def test_a_long_document_is_not_stacked_with_short_ones() -> None:
    plan = plan_batch(batch_of([(10, [2000, *[20] * 50])]), torch.device("cpu"), torch.float32)
    padded = sum(len(stack.queries) for stack in plan.stacks)
    assert padded <= 1.2 * (2010 + 50 * 30)
