"""Requests of one document that begin alike: fewer tokens, the same scores, each where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rerankd.engine.base import Batch, Engine, Group
from rerankd.engine.native.kept import Beginning, Known
from rerankd.engine.native.sharing import Shared, beginnings, share


def share_new(batch: Batch) -> Shared:
    """Nothing is kept of this batch."""
    return share(batch, [None] * batch.groups)


@pytest.fixture
def batch(rng: np.random.Generator) -> Batch:
    """Requests of one document under two templates among others of several, of none, and of two tokens."""

    def ids(length: int) -> np.ndarray:
        return rng.integers(0, 512, length).astype(np.int32)

    template, other = ids(40), ids(50)

    def single(begin: np.ndarray, query: int, document: int) -> Group:
        return Group(np.concatenate([begin, ids(query)]), (ids(document),))

    return Batch.of(
        [
            single(template, 9, 30),
            Group(ids(60), (ids(5), ids(70), ids(9))),
            single(other, 4, 20),
            single(template, 1, 1),
            Group(template, ()),
            single(ids(33), 3, 8),
            Group(np.concatenate([template, ids(5)]), (ids(11), ids(12))),
            single(template, 12, 50),
            Group(template, (ids(3),)),
            single(other, 6, 6),
            Group(ids(0), (ids(2),)),
            Group(template[:1], (template[1:],)),
        ]
    )


def test_the_pairs_are_the_same_and_each_is_found_again(batch: Batch) -> None:
    shared = share_new(batch)
    prompts = shared.batch.prompts()
    assert [prompts[at].tolist() for at in shared.order] == [prompt.tolist() for prompt in batch.prompts()]


def test_what_pairs_begin_with_is_computed_once(batch: Batch) -> None:
    shared = share_new(batch).batch
    # Of five pairs that begin with the first template one ends before the template does; the second has two.
    assert batch.tokens - shared.tokens == 4 * 39 + 50


def test_a_pair_is_never_all_prefix(batch: Batch) -> None:
    same = np.arange(50, dtype=np.int32)
    shared = share_new(Batch.of([Group(same[:20], (same[20:],)), Group(same[:30], (same[30:],))])).batch
    assert (len(shared.prefix_ids), np.diff(shared.tail_offsets).tolist()) == (49, [1, 1])


def test_a_batch_without_them_is_left_alone(make_groups: Callable[..., list[Group]]) -> None:
    batch = Batch.of(make_groups([40, 50, 60, 70], groups=2))
    assert share_new(batch).batch is batch


def test_what_is_kept_of_a_pair_is_its_prefix_and_pairs_of_the_same_are_a_group(batch: Batch) -> None:
    first, second = (begin[:length].copy() for begin, length in zip(beginnings(batch)[::2], (40, 45), strict=False))
    kept, other = Beginning(first, ()), Beginning(second, ())

    def known(begin: np.ndarray) -> Known | None:
        if begin[:40].tolist() == first.tolist():
            return Known(kept, 40)
        return Known(other, 45) if begin[:45].tolist() == second.tolist() else None

    shared = share(batch, [known(begin) for begin in beginnings(batch)])
    prompts = shared.batch.prompts()
    assert [prompts[at].tolist() for at in shared.order] == [prompt.tolist() for prompt in batch.prompts()]
    for group, found in enumerate(shared.known):
        prefix = shared.batch.prefix_ids[slice(*shared.batch.prefix_offsets[group : group + 2])].tolist()
        assert found is None or prefix[: found.tokens] == found.beginning.ids.tolist()
    # Four pairs alone that begin with the first template, and a request of two documents; two with the second.
    sizes = np.diff(shared.batch.group_offsets)
    found = [(int(size), one.tokens) for size, one in zip(sizes, shared.known, strict=True) if one]
    assert sorted(found) == [(2, 40), (2, 45), (4, 40)]


def test_the_scores_are_the_reference_s(
    batch: Batch, small_checkpoint: Path, make_engine: Callable[..., Engine]
) -> None:
    scores = [make_engine(name, small_checkpoint).score(batch) for name in ("reference", "native")]
    expected, found = (1 / (1 + np.exp(-part.astype(np.float64))) for part in scores)
    assert np.abs(found - expected).max() <= 1e-5
