"""Kept rows are seen as if they had been computed, by each kind of attention, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from benchmarks.checkpoints import Layout, write_checkpoint
from hypothesis import given, settings
from tests.engine.cuda_on_cpu import attend
from tests.unit.engine.native.shapes import GROUPS, KEPT, Shape, batch_of, loan_of, placed_of

from rerankd.engine.base import Batch
from rerankd.engine.native.attention import AttentionBackend
from rerankd.engine.native.config import ModelConfig
from rerankd.engine.native.cpu.attention_sdpa import PaddedSDPA
from rerankd.engine.native.cpu.attention_varlen import VarlenAttention
from rerankd.engine.native.cpu.selftest import usable_kernels
from rerankd.engine.native.cuda.graph_runner import CudaGraphRunner
from rerankd.engine.native.forward_batch import plan_batch
from rerankd.engine.native.kept import Beginning, Exchange, Known, Loan

HEADS, KEY_HEADS, SIZE = 4, 2, 32
CPU = torch.device("cpu")


def with_rows(loan: Loan) -> Loan:
    """The same with ids and rows behind it, as `Kept` lends them."""
    longest = int(loan.counts.max())
    nothing = Beginning(np.zeros(longest, dtype=np.int32), ())
    return Loan(loan.counts, loan.places, (Known(nothing, longest),) if longest else ())


def on_stacks(batch: Batch, loan: Loan) -> tuple[AttentionBackend, torch.Tensor, torch.Tensor]:
    plan = plan_batch(batch, loan, CPU, lambda placed: PaddedSDPA(placed, CPU, torch.float32))
    return plan.attention, plan.ids, plan.last


def in_kernels(batch: Batch, loan: Loan) -> tuple[AttentionBackend, torch.Tensor, torch.Tensor]:
    built = usable_kernels()
    plan = plan_batch(batch, loan, CPU, lambda placed: VarlenAttention(placed, built, HEADS // KEY_HEADS))
    return plan.attention, plan.ids, plan.last


@cache
def passes() -> CudaGraphRunner:
    with TemporaryDirectory() as folder:
        layout = Layout(num_attention_heads=HEADS, num_key_value_heads=KEY_HEADS, head_dim=SIZE)
        config = ModelConfig.read(write_checkpoint(Path(folder), layout))
    return CudaGraphRunner(config, CPU, torch.float32, 0, attend, most_rows=0)


def in_lines(batch: Batch, loan: Loan) -> tuple[AttentionBackend, torch.Tensor, torch.Tensor]:
    plan = passes().plan(batch, loan)
    return plan.attention, plan.ids, plan.last


@pytest.mark.parametrize("lay_out", [on_stacks, in_kernels, in_lines])
@given(GROUPS, KEPT)
@settings(deadline=None, max_examples=60)
def test_what_is_kept_is_seen_as_what_is_computed(
    lay_out: Callable[[Batch, Loan], tuple[AttentionBackend, torch.Tensor, torch.Tensor]],
    shape: Shape,
    kept: list[int],
) -> None:
    batch = numbered(batch_of(shape))
    generator = torch.Generator().manual_seed(1)
    queries, keys, values = (
        torch.randn(batch.tokens, heads, SIZE, generator=generator) for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    # The groups begin alike, so what they keep is the same.
    beginning = torch.randn(2, 40, KEY_HEADS, SIZE, generator=generator)
    for begin, end in zip(batch.prefix_offsets, batch.prefix_offsets[1:], strict=False):
        keys[begin:end], values[begin:end] = beginning[:, : end - begin]
    truth = PaddedSDPA(placed_of(shape), CPU, torch.float32)
    loan = with_rows(loan_of(shape, kept))
    attention, ids, last = lay_out(batch, loan)
    computed = ids.long()
    room = (len(ids) + int(loan.counts.max()), KEY_HEADS, SIZE)
    rows = [torch.full(room, torch.nan) for _ in range(2)]
    for at, tokens, which in zip(rows, (keys, values), range(2), strict=True):
        at[: len(ids)] = tokens[computed]
        at[len(ids) :] = beginning[which, : room[0] - len(ids)]
    found = attention.prefill(queries[computed], *rows)
    assert (found - truth.prefill(queries, keys, values)[computed]).abs().max() <= 1e-5
    ends = torch.from_numpy(placed_of(shape).last)
    assert computed[last].tolist() == ends.tolist()
    found = attention.last_token(queries[ends], *rows)
    assert (found - truth.last_token(queries[ends], keys, values)).abs().max() <= 1e-5


def numbered(batch: Batch) -> Batch:
    """The same shape; each token's id is its number."""
    ids = np.arange(batch.tokens, dtype=np.int32)
    first_tail = len(batch.prefix_ids)
    return Batch(ids[:first_tail], batch.prefix_offsets, ids[first_tail:], batch.tail_offsets, batch.group_offsets)


@given(GROUPS, KEPT)
@settings(deadline=None)
def test_what_shall_be_kept_is_found_wherever_it_lies(shape: Shape, kept: list[int]) -> None:
    batch, loan = numbered(batch_of(shape)), with_rows(loan_of(shape, kept))
    pair = batch.pairs - 1
    prompt = batch.prompts()[pair]
    wanted = Loan(loan.counts, loan.places, loan.parts, pair, len(prompt))
    count = int(loan.counts[-1])
    for plan in (
        plan_batch(batch, wanted, CPU, lambda placed: PaddedSDPA(placed, CPU, torch.float32)),
        passes().plan(batch, wanted),
    ):
        assert plan.exchange.wanted is not None
        rows = plan.exchange.wanted.tolist()
        assert rows[:count] == [len(plan.ids) + at for at in range(count)], "kept rows lie behind all others"
        assert plan.ids[rows[count:]].tolist() == prompt[count:].tolist()


def test_a_pass_gets_the_rows_of_its_layer_and_gives_those_that_shall_be_kept() -> None:
    layers = tuple(torch.full((2, 5, 1, 2), float(layer)) for layer in range(3))
    one, other = (
        Beginning(np.arange(5, dtype=np.int32), layers),
        Beginning(np.arange(5, dtype=np.int32), layers[::-1]),
    )
    loan = Loan.of([Known(one, 2), None, Known(other, 4), Known(one, 3)])
    assert (loan.counts.tolist(), loan.places.tolist()) == ([2, 0, 4, 3], [0, 0, 3, 0])
    exchange = Exchange(loan.parts, torch.tensor([0, 7]))
    assert exchange.rows == 7
    for layer in range(3):
        keys, values = torch.full((10, 1, 2), -1.0), torch.full((10, 1, 2), -2.0)
        exchange(layer, keys, values)
        assert keys[:, 0, 0].tolist() == [-1.0] * 3 + [layer] * 3 + [2 - layer] * 4
        assert exchange.taken[layer][:, :, 0, 0].tolist() == [[-1.0, 2 - layer], [-2.0, 2 - layer]]
