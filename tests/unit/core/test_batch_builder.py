"""What a batch counts, and when a pair is one too many."""

from __future__ import annotations

import numpy as np
import pytest
from tests.scheduling import ids

from rerankd.core.batch_builder import BatchBuilder
from rerankd.core.prefix_tree import MIN_SAVED_TOKENS
from rerankd.engine.base import EngineInfo
from rerankd.types import PairPrompt

PREFIX = np.arange(1000, 1000 + MIN_SAVED_TOKENS, dtype=np.int32)
OTHER = PREFIX + 1000


def builder(*, shares_prefix: bool = True, slots: int = 0) -> BatchBuilder:
    info = EngineInfo("x", "cpu", "float32", "x", 1000, 0, 1000, shares_prefix=shares_prefix, kv_cache_slots=slots)
    return BatchBuilder(info)


def test_a_new_builder_is_an_empty_batch_without_a_limit() -> None:
    made = builder()
    assert (made.tokens, made.pairs) == (0, [])
    assert made.add(PairPrompt(PREFIX, ids(1)))
    assert made.add(PairPrompt(OTHER, ids(1)))
    assert made.tokens == 2 * len(PREFIX) + 2


@pytest.mark.parametrize(("shares_prefix", "cost"), [(True, 1), (False, len(PREFIX) + 1)])
def test_a_pair_is_taken_in_up_to_the_last_token_of_the_budget(shares_prefix: bool, cost: int) -> None:
    made, first, second = builder(shares_prefix=shares_prefix), PairPrompt(PREFIX, ids(1)), PairPrompt(PREFIX, ids(2))
    for budget, fits in ((first.tokens + cost, True), (first.tokens + cost - 1, False)):
        made.begin(budget)
        assert made.add(first)
        assert made.add(second) is fits
        assert made.tokens == first.tokens + cost * fits
        assert made.pairs == [first, second][: 1 + fits]
        batch = made.layout()
        assert [prompt.tolist() for prompt in batch.prompts()] == [pair.ids.tolist() for pair in made.pairs]
        assert batch.tokens == made.tokens
        made.finish(succeeded=True)


def test_a_prefix_of_its_own_is_taken_in_up_to_the_last_token_of_the_budget() -> None:
    first, second = PairPrompt(PREFIX, ids(1)), PairPrompt(OTHER, ids(1))
    made = builder()
    for budget, fits in ((first.tokens + second.tokens, True), (first.tokens + second.tokens - 1, False)):
        made.begin(budget)
        assert (made.add(first), made.add(second)) == (True, fits)
        made.finish(succeeded=False)


def test_the_first_pair_is_taken_in_whatever_it_costs() -> None:
    made = builder()
    made.begin(3)
    assert made.add(PairPrompt(PREFIX, ids(1)))
    assert not made.add(PairPrompt(PREFIX, ids(2)))


def test_what_is_cached_costs_nothing_until_it_is_forgotten() -> None:
    made, pair = builder(slots=100), PairPrompt(PREFIX, ids(1))
    found = []
    for step in range(4):
        made.begin()
        made.add(pair)
        made.layout()
        found.append(made.tokens)
        made.finish(succeeded=step != 0)
        if step == 2:
            made.forget_cache()
    assert found == [len(PREFIX) + 1, len(PREFIX) + 1, 1, len(PREFIX) + 1]
