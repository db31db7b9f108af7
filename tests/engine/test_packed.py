"""Packed rows, as CUDA computes them, give the scores of the stacks; here on a CPU, with attention in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.engine.plain_varlen import attend_to_all, packed_on_cpu, plain

from rerankd.engine.base import Batch, Engine, Group
from rerankd.engine.native import varlen
from rerankd.engine.native.kept import Kept, Loan
from rerankd.engine.native.packing import kinds, pack
from rerankd.engine.native.varlen import Packed, merge

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


@pytest.mark.parametrize("dtype", BOUNDS)
def test_packed_rows_give_the_scores_of_the_stacks(
    checkpoint: Path, dtype: str, mixed: Batch, make_engine: Make
) -> None:
    expected = probability(make_engine("native", checkpoint).score(mixed))
    found = probability(packed_on_cpu(checkpoint, dtype)(mixed))
    assert np.ptp(expected) > 0.2, "random weights whose scores are all alike would prove nothing"
    assert np.abs(found - expected).max() <= BOUNDS[dtype]


def test_every_token_is_one_row_at_its_place_in_the_pair(mixed: Batch) -> None:
    plan = pack(mixed, Loan.of([None] * mixed.groups), torch.device("cpu"))
    computed = [prefix for prefix, pairs in _groups(mixed) if pairs]
    assert len(plan.ids) == sum(computed) + len(mixed.tail_ids)
    ends = plan.last
    assert plan.ids[ends].tolist() == [prompt[-1] for prompt in mixed.prompts()]
    assert plan.positions[ends].tolist() == [len(prompt) - 1 for prompt in mixed.prompts()]


def test_two_sets_of_keys_merged_are_one() -> None:
    # Scores up to 60 apart: one set may outweigh the other by any factor.
    generator = torch.Generator().manual_seed(1)
    queries, keys, values = (torch.randn(50, heads, 32, generator=generator) for heads in (4, 2, 2))
    expected, _ = attend_to_all(queries * 10, keys, values)
    attended, sums = attend_to_all(queries * 10, keys[:13], values[:13])
    merge(attended, sums, *attend_to_all(queries * 10, keys[13:], values[13:]))
    assert (attended - expected).abs().max() <= 1e-5


def test_every_row_sees_its_prefix_and_itself_and_no_more(mixed: Batch) -> None:
    plan = pack(mixed, Loan.of([None] * mixed.groups), torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    queries, keys, values = (torch.randn(len(plan.ids), heads, 32, generator=generator) for heads in (4, 2, 2))
    attention = Packed(plan, plain, merge)
    found = attention.every(queries, keys, values)
    final = attention.last(queries[plan.last], keys, values)
    assert torch.isfinite(found).all()
    assert (found[plan.last] - final).abs().max() <= 1e-5


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("fp8", 0.1)])
def test_compiled_pieces_compute_the_same_and_after_the_kinds_of_batches_compile_no_more(
    dtype: str,
    bound: float,
    small_checkpoint: Path,
    make_groups: Groups,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rounded at other places; in fp8 that is up to a sixteenth of a number."""
    plain_score = packed_on_cpu(small_checkpoint, dtype)
    monkeypatch.setattr(varlen, "can_compile", lambda device: True)
    score = packed_on_cpu(small_checkpoint, dtype, is_compiled=True, kept=Kept(512))
    for batch in kinds():
        score(batch)
    template = rng.integers(0, 512, 50).astype(np.int32)
    with torch.compiler.set_stance("fail_on_recompile"):
        for _ in range(40):
            groups = int(rng.integers(1, 6))
            made = make_groups(rng.integers(2, 100, int(rng.integers(groups, 20))).tolist(), groups)
            begins = (template[: int(rng.integers(2)) * len(template)] for _ in made)
            batch = Batch.of(
                [
                    Group(np.concatenate([begin, group.prefix]), group.tails)
                    for begin, group in zip(begins, made, strict=True)
                ]
            )
            assert np.abs(probability(score(batch)) - probability(plain_score(batch))).max() <= bound


def probability(scores: np.ndarray) -> np.ndarray:
    assert scores.dtype == np.float32
    return 1 / (1 + np.exp(-scores.astype(np.float64)))


def _groups(batch: Batch) -> list[tuple[int, int]]:
    """Tokens of the prefix and number of pairs of every group."""
    return list(zip(np.diff(batch.prefix_offsets).tolist(), np.diff(batch.group_offsets).tolist(), strict=True))
