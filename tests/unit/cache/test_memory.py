from __future__ import annotations

import hashlib

import pytest

from rerankd.cache.base import CachedScore
from rerankd.cache.memory import ENTRY_BYTES, MemoryCache
from rerankd.observe.metrics import Metrics

SCORE = CachedScore(0.5, 100, False)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def key(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "little")).digest()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def cache_of(entries: int, metrics: Metrics, clock: Clock | None = None) -> MemoryCache:
    return MemoryCache(entries * ENTRY_BYTES, 10.0, metrics.cache_evictions, clock or Clock())


async def test_what_was_put_is_found_and_the_rest_is_not(metrics: Metrics) -> None:
    cache = cache_of(10, metrics)
    cache.put_many({key(1): SCORE, key(3): CachedScore(-7.25, 8192, True)})
    assert await cache.get_many([key(3), key(2), key(1)]) == [CachedScore(-7.25, 8192, True), None, SCORE]
    await cache.flush()
    assert await cache.get_many([key(1)]) == [None]


async def test_the_least_recently_used_goes_first_and_is_counted(metrics: Metrics) -> None:
    cache = cache_of(3, metrics)
    cache.put_many({key(number): SCORE for number in (1, 2, 3)})
    await cache.get_many([key(1)])
    cache.put_many({key(2): SCORE})
    cache.put_many({key(4): SCORE})
    found = await cache.get_many([key(number) for number in (1, 2, 3, 4)])
    assert [score is not None for score in found] == [True, True, False, True]
    assert metrics.registry.get_sample_value("reranker_cache_evictions_total") == 1


async def test_a_score_is_forgotten_after_its_time(metrics: Metrics) -> None:
    clock = Clock()
    cache = cache_of(3, metrics, clock)
    cache.put_many({key(1): SCORE})
    clock.now = 9.9
    assert await cache.get_many([key(1)]) == [SCORE]
    clock.now = 10.0
    assert await cache.get_many([key(1)]) == [None]
    assert len(cache) == 0


async def test_a_put_larger_than_the_cache_leaves_it_full_and_no_fuller(metrics: Metrics) -> None:
    cache = cache_of(5, metrics)
    cache.put_many({key(number): SCORE for number in range(100)})
    assert len(cache) == 5
    assert await cache.get_many([key(99), key(0)]) == [SCORE, None]


def test_the_bound_in_bytes_is_the_number_of_entries_that_the_documentation_says(metrics: Metrics) -> None:
    # ADR 3: 384 bytes each.
    assert MemoryCache(384 * 2000, 10.0, metrics.cache_evictions).describe().capacity == 2000
