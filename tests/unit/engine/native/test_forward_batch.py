"""How batches are laid out: rows in order, each with its position and its last row known."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from tests.unit.engine.native.shapes import GROUPS, batch_of

from rerankd.engine.base import Batch
from rerankd.engine.native.cpu.attention_sdpa import PaddedSDPA
from rerankd.engine.native.forward_batch import ForwardBatch, plan_batch
from rerankd.engine.native.kept import Loan

CPU = torch.device("cpu")


def plan_of(batch: Batch) -> ForwardBatch:
    nothing = Loan.of([None] * batch.groups)
    return plan_batch(batch, nothing, CPU, lambda placed: PaddedSDPA(placed, CPU, torch.float32))


@given(GROUPS)
@settings(deadline=None)
def test_positions_go_on_from_the_prefix_to_each_tail(shape: list[tuple[int, list[int]]]) -> None:
    expected = [*(np.arange(prefix) for prefix, _ in shape)]
    expected += [np.arange(prefix, prefix + tail) for prefix, tails in shape for tail in tails]
    assert plan_of(batch_of(shape)).positions.tolist() == np.concatenate(expected).tolist()


def test_the_last_row_of_each_pair_is_that_of_its_last_token() -> None:
    plan = plan_of(batch_of([(3, [2, 1]), (0, [4])]))
    assert plan.last.tolist() == [4, 5, 9]
    assert plan.ids[plan.last].tolist() == [1, 0, 3]
