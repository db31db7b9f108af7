"""Stacks: every row attended once, little padding."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from tests.unit.engine.native.shapes import GROUPS, batch_of

from rerankd.engine.base import Batch
from rerankd.engine.native.stacks import Stacks


def stacks_of(batch: Batch) -> Stacks:
    return Stacks(batch, torch.device("cpu"), torch.float32)


@given(GROUPS)
@settings(deadline=None)
def test_every_row_is_attended_exactly_once(shape: list[tuple[int, list[int]]]) -> None:
    batch = batch_of(shape)
    stacks = stacks_of(batch)
    rows = torch.cat([stack.rows for stack in stacks.stacks])
    assert sorted(rows.tolist()) == list(range(batch.tokens))
    pairs = torch.cat([stack.rows for stack in stacks.last_stacks])
    assert sorted(pairs.tolist()) == list(range(batch.pairs))


def test_a_long_document_is_not_stacked_with_short_ones() -> None:
    stacks = stacks_of(batch_of([(10, [2000, *[20] * 50])]))
    padded = sum(len(stack.queries) for stack in stacks.stacks)
    assert padded <= 1.2 * (2010 + 50 * 30)
