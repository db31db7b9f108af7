from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scheduling import ids

from rerankd.core.prefix_cache import PrefixCache
from rerankd.core.prefix_tree import MIN_SAVED_TOKENS, PrefixTree, batch_of, separate
from rerankd.engine.base import Batch
from rerankd.types import IdArray

LONG = np.arange(1000, 1000 + MIN_SAVED_TOKENS, dtype=np.int32)


def run(*values: int) -> IdArray:
    """A prompt that begins with many shared tokens."""
    return np.concatenate([LONG, ids(*values)])


def tokens_of(batch: Batch, segment: int) -> slice:
    return slice(batch.offsets[segment], batch.offsets[segment + 1])


def check(batch: Batch, prompts: list[IdArray]) -> None:
    """Everything that the contract promises of a batch."""
    assert [found.tolist() for found in batch.prompts()] == [prompt.tolist() for prompt in prompts]
    assert (np.diff(batch.offsets) > 0).all()
    assert (batch.parents < np.arange(batch.segments)).all()
    for segment in np.flatnonzero(batch.cached):
        assert batch.parents[segment] == -1 or batch.cached[batch.parents[segment]]
        assert (batch.slots[batch.offsets[segment] : batch.offsets[segment + 1]] >= 0).all()
    assert not batch.cached[batch.leaves].any()
    used = batch.slots[batch.slots >= 0]
    assert len(set(used.tolist())) == len(used)
    lengths = np.diff(batch.offsets)
    for segment, start in enumerate(batch.starts().tolist()):
        assert start == sum(lengths[step] for step in batch.path(segment)[:-1])


def test_what_prompts_begin_with_is_one_segment_at_any_depth() -> None:
    prompts = [run(*range(40), 1), run(*range(40), 2), run(50), np.concatenate([ids(5), LONG])]
    batch = batch_of(prompts)
    check(batch, prompts)
    assert batch.tokens == len(LONG) + 40 + 1 + 1 + 1 + len(LONG) + 1
    assert sorted(batch.parents.tolist()) == [-1, -1, 0, 0, 1, 1]


def test_a_prompt_that_begins_another_one_ends_in_its_parent() -> None:
    prompts = [run(1, 2, 3), LONG, run(1)]
    batch = batch_of(prompts)
    check(batch, prompts)
    assert batch.tokens == len(LONG) + 3


def test_equal_prompts_share_a_leaf() -> None:
    batch = batch_of([run(1), run(1), run(2)])
    assert batch.leaves[0] == batch.leaves[1] != batch.leaves[2]
    assert batch.tokens == len(LONG) + 2


def test_a_few_tokens_in_common_are_not_worth_a_segment() -> None:
    prompts = [ids(1, 2, 3, value) for value in range(4)]
    assert batch_of(prompts).segments == 4
    assert batch_of([ids(1, 2, 3, value) for value in range(40)]).segments == 41


def test_where_the_budget_asks_for_it_even_one_token_is_shared() -> None:
    tree = PrefixTree()
    for value in range(4):
        tree.add_pair(tree.root, ids(1, 2, 3, value))
    assert tree.layout(max_tokens=7).tokens == 7
    as_dear_as_allowed = tree.layout(max_tokens=16)
    assert (as_dear_as_allowed.tokens, as_dear_as_allowed.segments) == (16, 4)


def test_an_engine_that_cannot_share_gets_whole_prompts() -> None:
    prompts = [run(1), run(1), run(2)]
    batch = separate(prompts)
    check(batch, prompts)
    assert (batch.segments, batch.tokens) == (3, 3 * len(LONG) + 3)
    assert separate([]).pairs == batch_of([]).pairs == 0


def cached_tree(slots: int = 100) -> PrefixTree:
    return PrefixTree(PrefixCache(slots))


def one_batch(tree: PrefixTree, prefix: IdArray, *tails: IdArray, succeeded: bool = True) -> Batch:
    at = tree.insert(prefix)
    for tail in tails:
        tree.add_pair(at, tail)
    batch = tree.layout()
    check(batch, [np.concatenate([prefix, tail]) for tail in tails])
    tree.finish(succeeded=succeeded)
    return batch


def test_a_prefix_is_computed_once_and_read_from_then_on() -> None:
    tree = cached_tree()
    first = one_batch(tree, LONG, ids(1), ids(2))
    assert (first.tokens, first.cached.any()) == (len(LONG) + 2, False)
    second = one_batch(tree, LONG, ids(3))
    assert second.tokens == 1
    assert second.slots[second.slots >= 0].tolist() == first.slots[first.slots >= 0].tolist()


def test_another_query_reads_the_template_it_has_in_common() -> None:
    tree = cached_tree()
    one_batch(tree, run(1, 2), ids(9), ids(8))
    batch = one_batch(tree, run(3, 4), ids(9))
    assert batch.tokens == 3
    assert batch.cached.tolist() == [True, False]


def test_a_prefix_of_one_pair_is_cached_when_nothing_of_it_is() -> None:
    tree = cached_tree()
    one_batch(tree, run(1), ids(9))
    assert tree.cache.used == len(LONG) + 1
    one_batch(tree, run(2), ids(9))
    assert tree.cache.used == len(LONG) + 1, "a query of one pair is worth no place"


def test_a_pass_that_failed_has_written_nothing() -> None:
    tree = cached_tree()
    one_batch(tree, LONG, ids(1), ids(2), succeeded=False)
    assert tree.cache.used == 0
    assert one_batch(tree, LONG, ids(3)).tokens == len(LONG) + 1


def test_what_is_forgotten_is_computed_again() -> None:
    tree = cached_tree()
    one_batch(tree, LONG, ids(1), ids(2))
    tree.forget()
    assert one_batch(tree, LONG, ids(3)).tokens == len(LONG) + 1


def test_the_least_recently_used_prefix_goes_first_and_what_a_batch_reads_never() -> None:
    tree = cached_tree(2 * len(LONG))
    one, two, three = (np.concatenate([ids(first), LONG[:-1]]) for first in (1, 2, 3))
    for prefix in (one, two, one, three):
        one_batch(tree, prefix, ids(9))
    assert one_batch(tree, one, ids(9)).tokens == 1
    assert one_batch(tree, two, ids(9)).tokens == len(LONG) + 1


def test_a_prefix_longer_than_the_cache_is_cached_as_far_as_it_goes() -> None:
    tree = cached_tree(10)
    one_batch(tree, LONG, ids(1), ids(2))
    assert one_batch(tree, LONG, ids(3)).tokens == len(LONG) - 10 + 1


def test_a_prompt_that_ends_inside_of_what_is_cached_computes_its_last_token() -> None:
    tree = cached_tree()
    one_batch(tree, LONG, ids(1), ids(2))
    batch = one_batch(tree, LONG[:10], LONG[10:20])
    assert batch.tokens == 1
    assert one_batch(tree, LONG, ids(3)).tokens == len(LONG) - 19 + 1


PROMPTS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2), max_size=40),
        st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 50), st.lists(st.tuples(PROMPTS, st.booleans()), min_size=1, max_size=5))
def test_slots_always_hold_what_is_read_from_them(
    capacity: int, batches: list[tuple[list[tuple[list[int], list[list[int]]]], bool]]
) -> None:
    tree = cached_tree(capacity)
    held: dict[int, bytes] = {}
    for requests, succeeded in batches:
        prompts: list[IdArray] = []
        for prefix, tails in requests:
            at = tree.insert(ids(*prefix))
            for tail in tails:
                tree.add_pair(at, ids(*tail))
                prompts.append(ids(*prefix, *tail))
        batch = tree.layout()
        check(batch, prompts)
        written: dict[int, bytes] = {}
        for segment in range(batch.segments):
            whole = np.concatenate([batch.token_ids[tokens_of(batch, step)] for step in batch.path(segment)])
            first = batch.starts()[segment] + 1
            for place, slot in enumerate(batch.slots[tokens_of(batch, segment)].tolist(), first):
                if batch.cached[segment]:
                    assert held[slot] == whole[:place].tobytes()
                elif slot >= 0:
                    written[slot] = whole[:place].tobytes()
        tree.finish(succeeded=succeeded)
        held.update(written if succeeded else dict.fromkeys(written, b""))
        assert tree.cache.used <= capacity


TOKENS = 20_000


@pytest.mark.promise("A8")
def test_the_cost_is_linear_in_the_tokens() -> None:
    """Eight times the tokens take far less than sixty-four times as long, chains and deep trees too."""

    def seconds(count: int, *, chain: bool) -> float:
        rng = np.random.default_rng(1)
        prompts = [
            np.zeros(index + 1, dtype=np.int32) if chain else rng.integers(0, 9, 50, dtype=np.int32)
            for index in range(count)
        ]
        tokens = sum(map(len, prompts))
        # As many tokens each time, so that the machine's own steps fall on short and long ones alike.
        times, best = max(1, TOKENS // tokens), float("inf")
        for _ in range(3):
            started = time.thread_time()
            for _ in range(times):
                batch_of(prompts)
            best = min(best, time.thread_time() - started)
        return best / (times * tokens)

    for chain in (True, False):
        assert seconds(400, chain=chain) < 4 * seconds(50, chain=chain)
