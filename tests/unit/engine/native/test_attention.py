"""Attention over forests of any depth is what its definition says, by each backend, whatever is cached of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.engine.cuda_on_cpu import plain_attention
from tests.unit.engine.native.forests import SEGMENTS, Segment, Tensors, forest, two_levels

from rerankd.engine.base import Batch
from rerankd.engine.native.attention import AttentionBackend
from rerankd.engine.native.cpu import attention_varlen
from rerankd.engine.native.cpu.attention_sdpa import PaddedSDPA
from rerankd.engine.native.cpu.attention_varlen import VarlenAttention
from rerankd.engine.native.cpu.selftest import usable_kernels
from rerankd.engine.native.cuda.attention_metadata import AttentionMetadata, metadata_of
from rerankd.engine.native.forward_batch import TokenLayout

CPU = torch.device("cpu")
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
DEEP = [Segment(at, 7, at < 20, at % 3 == 0) for at in range(60)]
"""A chain, of which the upper third may be cached."""
LONG = [Segment(0, 1030, False, False), *[Segment(1, length, False, True) for length in (1300, 40, 513)]]
"""Several chunks of keys, and runs of queries."""


def varlen(
    layout: TokenLayout, dtype: torch.dtype = torch.float32, sizes: tuple[int, int, int] = (4, 2, 32)
) -> AttentionBackend:
    built = usable_kernels()
    if not VarlenAttention.supports(built, dtype, sizes[2]):
        pytest.skip("there is no such kernel for this processor")
    return VarlenAttention(layout, built, sizes[0] // sizes[1])


def padded(layout: TokenLayout, dtype: torch.dtype = torch.float32) -> AttentionBackend:
    return PaddedSDPA(layout, CPU, dtype)


def by_tasks(batch: Batch, computed_rows: int, max_queries: int = 16) -> AttentionMetadata:
    arrays = metadata_of(batch, max_queries, computed_rows)
    prefill, last_token, ranges = (torch.from_numpy(arrays[name]) for name in ("prefill", "last_token", "ranges"))
    return AttentionMetadata(prefill.view(-1, 6), last_token.view(-1, 6), ranges.view(-1, 2), plain_attention, 2 * 16)


def check(attention: AttentionBackend, batch: Batch, tensors: Tensors, computed_rows: int = 0) -> None:
    bound = BOUNDS[tensors.keys.dtype]
    queries, keys, values = tensors.laid_out(TokenLayout.of(batch, computed_rows), computed_rows)
    found = attention.prefill(queries, keys, values)[: batch.tokens]
    assert (found.float() - tensors.expected_prefill(batch).float()).abs().max() <= bound
    last = torch.from_numpy(TokenLayout.of(batch, computed_rows).last)
    found = attention.last_token(queries[last], keys, values)
    assert (found.float() - tensors.expected_last(batch).float()).abs().max() <= bound


@given(SEGMENTS)
@example(DEEP)
@example(LONG)
@settings(deadline=None, max_examples=25)
def test_padded(segments: Sequence[Segment]) -> None:
    batch = forest(segments)
    check(padded(TokenLayout.of(batch)), batch, Tensors.of(batch))


@pytest.mark.parametrize("dtype", BOUNDS)
@given(SEGMENTS, st.sampled_from([(4, 2, 32), (4, 4, 32), (8, 2, 64), (4, 1, 128)]))
@example(DEEP, (4, 2, 32))
@example(LONG, (4, 2, 32))
@settings(deadline=None, max_examples=25)
def test_in_c(dtype: torch.dtype, segments: Sequence[Segment], sizes: tuple[int, int, int]) -> None:
    batch = forest(segments)
    check(varlen(TokenLayout.of(batch), dtype, sizes), batch, Tensors.of(batch, dtype, sizes))


@pytest.mark.parametrize("computed_rows", [0, 1500])
@given(SEGMENTS)
@example(DEEP)
@settings(deadline=None, max_examples=25)
def test_by_tasks_as_on_cuda(computed_rows: int, segments: Sequence[Segment]) -> None:
    batch = forest(segments)
    check(by_tasks(batch, computed_rows), batch, Tensors.of(batch), computed_rows)


@given(SEGMENTS)
@example(DEEP)
@settings(deadline=None, max_examples=30)
def test_a_deep_tree_in_c_is_worked_on_in_parts(segments: Sequence[Segment]) -> None:
    """Its paths together are longer than the batch by far; what is packed at a time is not."""
    batch = forest(segments)
    layout = TokenLayout.of(batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_varlen, "_PACKED_AT_LEAST", 4)
        patch.setattr(attention_varlen, "_PACKED_PER_TOKEN", 1)
        attention = varlen(layout)
    check(attention, batch, Tensors.of(batch))


def test_the_parts_of_a_chain_pack_few_blocks_each() -> None:
    batch = forest([Segment(at, 33, False, True) for at in range(300)])
    attention = varlen(TokenLayout.of(batch))
    assert isinstance(attention, VarlenAttention)
    blocks = [len(work.blocks) for work in attention.prefill_work]
    assert len(blocks) > 5
    assert max(blocks) <= 2 * 4 * 2 * 300


def test_two_levels_pack_every_key_once() -> None:
    batch = two_levels((70, [33, 5, 64]), (0, [40]))
    attention = varlen(TokenLayout.of(batch))
    assert isinstance(attention, VarlenAttention)
    ((prefill,), (last_token,)) = attention.prefill_work, attention.last_token_work
    rows = prefill.blocks[prefill.blocks >= 0]
    assert sorted(rows.tolist()) == list(range(batch.tokens))
    assert np.array_equal(last_token.blocks, prefill.blocks)


@given(SEGMENTS)
@settings(deadline=None, max_examples=25)
def test_every_token_is_attended_once_and_little_is_padded(segments: Sequence[Segment]) -> None:
    batch = forest(segments)
    attention = PaddedSDPA(TokenLayout.of(batch), CPU, torch.float32)
    rows = torch.cat([part.rows for part in attention.prefill_batches])
    assert sorted(rows.tolist()) == list(range(batch.tokens))
    pairs = torch.cat([part.rows for part in attention.last_token_batches])
    assert sorted(pairs.tolist()) == list(range(batch.pairs))


def test_a_long_document_is_not_padded_with_short_ones() -> None:
    attention = PaddedSDPA(TokenLayout.of(two_levels((10, [2000, *[20] * 50]))), CPU, torch.float32)
    assert sum(len(part.queries) for part in attention.prefill_batches) <= 1.2 * (2010 + 50 * 30)


@pytest.mark.parametrize("backend", [padded, varlen])
@given(SEGMENTS)
@settings(deadline=None, max_examples=25)
def test_a_pair_that_is_not_numbers_is_seen_by_no_other(backend: object, segments: Sequence[Segment]) -> None:
    batch = forest(
        [
            Segment(0, 20, False, True),
            *[Segment(one.parent + 1, one.length, one.cached, one.is_leaf) for one in segments],
        ]
    )
    below = np.array([0 in batch.path(segment) for segment in range(batch.segments)])
    layout = TokenLayout.of(batch)
    attention = backend(layout)  # type: ignore[operator]
    is_bad = np.repeat(below, layout.lengths)
    tensors = Tensors.of(batch)
    for part in (tensors.queries, tensors.keys, tensors.values):
        part[is_bad] = torch.nan
    queries, keys, values = tensors.laid_out(layout)
    found = attention.prefill(queries, keys, values)
    assert found.isnan().any(dim=1).tolist() == is_bad[layout.is_computed].tolist()
    last = torch.from_numpy(layout.last)
    assert (
        attention.last_token(queries[last], keys, values).isnan().any(dim=1).tolist() == below[batch.leaves].tolist()
    )
