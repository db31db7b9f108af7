"""Every engine gives the reference's scores, whatever else is in the batch and however it is laid out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.checkpoints import RERANKER_0_6B, write_checkpoint

from rerankd.engine.base import Batch, Engine, Group

Groups = Callable[..., list[Group]]
Make = Callable[..., Engine]

BOUNDS = {"float32": 1e-5, "bfloat16": 1e-2, "float16": 1e-2, "int8": 4e-2}
"""Largest difference of a probability. int8 is held to 2e-2 on the real layout; 64 numbers a row average less."""


def lengths(rng: np.random.Generator, pairs: int, longest: int) -> list[int]:
    """Many short pairs and some long ones, up to ``longest`` tokens."""
    return [5, longest, *np.exp(rng.uniform(np.log(5), np.log(longest), pairs - 2)).astype(int).tolist()]


def probabilities(engine: Engine, groups: list[Group]) -> np.ndarray:
    scores = engine.score(Batch.of(groups))
    assert scores.dtype == np.float32
    return 1 / (1 + np.exp(-scores.astype(np.float64)))


@pytest.fixture(scope="session", params=BOUNDS)
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_native_agrees_with_the_reference(
    checkpoint: Path, dtype: str, make_engine: Make, make_groups: Groups, rng: np.random.Generator
) -> None:
    groups = make_groups(lengths(rng, 60, 400))
    expected = probabilities(make_engine("reference", checkpoint), groups)
    found = probabilities(make_engine("native", checkpoint, dtype), groups)
    assert np.ptp(expected) > 0.2, "random weights whose scores are all alike would prove nothing"
    assert np.abs(found - expected).max() <= BOUNDS[dtype]


def test_native_agrees_with_the_reference_on_200_pairs_of_5_to_3000_tokens(
    small_checkpoint: Path, make_engine: Make, make_groups: Groups, rng: np.random.Generator
) -> None:
    groups = make_groups(lengths(rng, 200, 3000), groups=10)
    expected = probabilities(make_engine("reference", small_checkpoint), groups)
    found = probabilities(make_engine("native", small_checkpoint), groups)
    assert np.abs(found - expected).max() <= BOUNDS["float32"]


def test_sharing_the_prefix_changes_nothing(
    small_checkpoint: Path, dtype: str, make_engine: Make, make_groups: Groups, rng: np.random.Generator
) -> None:
    engine = make_engine("native", small_checkpoint, dtype)
    groups = make_groups(lengths(rng, 40, 300))
    whole = [Group(prompt[:0], (prompt,)) for prompt in Batch.of(groups).prompts()]
    assert np.abs(probabilities(engine, groups) - probabilities(engine, whole)).max() <= BOUNDS[dtype]


def test_a_pair_scores_the_same_alone_and_in_a_crowd(
    small_checkpoint: Path, dtype: str, make_engine: Make, make_groups: Groups, rng: np.random.Generator
) -> None:
    engine = make_engine("native", small_checkpoint, dtype)
    (needle,) = make_groups([90], groups=1)
    alone = probabilities(engine, [needle])[0]
    for _ in range(8):
        crowd = make_groups(rng.integers(1, 160, int(rng.integers(20, 40))).tolist())
        assert abs(probabilities(engine, [*crowd, needle])[-1] - alone) <= min(2e-3, BOUNDS[dtype])


def test_the_order_of_documents_does_not_matter(
    small_checkpoint: Path, dtype: str, make_engine: Make, make_groups: Groups, rng: np.random.Generator
) -> None:
    engine = make_engine("native", small_checkpoint, dtype)
    (group,) = make_groups(lengths(rng, 20, 200), groups=1)
    first = probabilities(engine, [group])
    for _ in range(20):
        order = rng.permutation(len(group.tails))
        again = probabilities(engine, [Group(group.prefix, tuple(group.tails[at] for at in order))])
        assert np.abs(again - first[order]).max() <= min(2e-3, BOUNDS[dtype])


def test_a_restart_gives_the_same_scores_to_the_last_bit(
    small_checkpoint: Path, dtype: str, make_engine: Make, make_groups: Groups, rng: np.random.Generator
) -> None:
    engine = make_engine("native", small_checkpoint, dtype)
    groups = make_groups(lengths(rng, 20, 200))
    scores = []
    for _ in range(2):
        engine.close()
        engine.load()
        # What is kept of the first batch lets the second be computed in fewer rows.
        scores.append([engine.score(Batch.of(groups)) for _ in range(3)])
    assert np.array_equal(*scores)


@pytest.mark.parametrize("name", ["native", "reference"])
def test_a_group_without_a_prefix_and_an_empty_batch_are_scored(
    name: str, small_checkpoint: Path, make_engine: Make
) -> None:
    engine = make_engine(name, small_checkpoint)
    one = np.array([3], dtype=np.int32)
    assert engine.score(Batch.of([Group(one[:0], (one, one))])).shape == (2,)
    assert engine.score(Batch.of([])).shape == (0,)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_native_agrees_with_the_reference_on_the_0_6b_layout(
    tmp_path: Path, make_engine: Make, make_groups: Groups, rng: np.random.Generator
) -> None:
    folder = write_checkpoint(tmp_path, RERANKER_0_6B, dtype=torch.bfloat16)
    groups = make_groups(lengths(rng, 200, 3000), groups=10, vocabulary=RERANKER_0_6B.vocab_size)
    expected = probabilities(make_engine("reference", folder), groups)
    bounds = {**BOUNDS, "int8": 2e-2}
    errors = {}
    for dtype in bounds:
        errors[dtype] = float(np.abs(probabilities(make_engine("native", folder, dtype), groups) - expected).max())
        print(f"{dtype}: max difference of p {errors[dtype]:.1e} over {len(expected)} pairs")
    assert all(errors[dtype] <= bound for dtype, bound in bounds.items()), errors
