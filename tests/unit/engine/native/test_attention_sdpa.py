"""PaddedSDPA: every row attended once, little padding."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from tests.unit.engine.native.shapes import GROUPS, KEPT, Shape, placed_of

from rerankd.engine.native.cpu.attention_sdpa import PaddedSDPA
from rerankd.engine.native.forward_batch import TokenLayout


def stacks_of(placed: TokenLayout) -> PaddedSDPA:
    return PaddedSDPA(placed, torch.device("cpu"), torch.float32)


@given(GROUPS, KEPT)
@settings(deadline=None)
def test_every_row_is_attended_exactly_once(shape: Shape, kept: list[int]) -> None:
    placed = placed_of(shape, kept)
    stacks = stacks_of(placed)
    rows = torch.cat([stack.rows for stack in stacks.stacks])
    assert sorted(rows.tolist()) == list(range(placed.computed))
    pairs = torch.cat([stack.rows for stack in stacks.last_stacks])
    assert sorted(pairs.tolist()) == list(range(placed.batch.pairs))


def test_a_long_document_is_not_stacked_with_short_ones() -> None:
    stacks = stacks_of(placed_of([(10, [2000, *[20] * 50])]))
    padded = sum(len(stack.queries) for stack in stacks.stacks)
    assert padded <= 1.2 * (2010 + 50 * 30)


@given(GROUPS, KEPT)
@settings(deadline=None)
def test_a_pair_that_is_not_numbers_is_seen_by_no_other(shape: Shape, kept: list[int]) -> None:
    placed = placed_of([(0, [20]), *shape], [0, *kept])
    stacks = stacks_of(placed)
    is_bad = torch.zeros(placed.computed + max(kept), dtype=torch.bool)
    bad = placed.first_of(pair=0, tokens=20)
    is_bad[bad] = True
    rows = torch.where(is_bad[:, None, None], torch.nan, torch.ones(len(is_bad), 1, 8))
    found = stacks.prefill(rows[: placed.computed], rows, rows)
    assert torch.equal(found.isnan().any(dim=1), is_bad[: placed.computed])
    assert stacks.last_token(rows[placed.last], rows, rows).isnan().any(dim=1).tolist() == [True] + [False] * (
        placed.batch.pairs - 1
    )
