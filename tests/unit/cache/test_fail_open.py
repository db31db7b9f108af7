from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import pytest

from rerankd.cache.base import CachedScore
from rerankd.cache.fail_open import FailOpen
from rerankd.errors import NotReady
from rerankd.observe.metrics import Metrics
from rerankd.resilience.breaker import FAILURES

SCORE = CachedScore(0.5, 100, False)


class Store:
    """A store in memory that fails or hangs when told to."""

    def __init__(self) -> None:
        self.scores: dict[bytes, CachedScore] = {}
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.calls = 0
        self.writes: list[int] = []

    async def _act(self) -> None:
        self.calls += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error

    async def get_many(self, keys: Sequence[bytes]) -> list[CachedScore | None]:
        await self._act()
        return [self.scores.get(key) for key in keys]

    async def put_many(self, scores: Mapping[bytes, CachedScore]) -> None:
        await self._act()
        self.writes.append(len(scores))
        self.scores.update(scores)

    async def ping(self) -> None:
        await self._act()

    async def flush(self) -> None:
        await self._act()
        self.scores.clear()

    async def close(self) -> None:
        pass


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def cache(store: Store, metrics: Metrics) -> FailOpen:
    return FailOpen(store, 0.02, metrics, pause=0.05)


def errors(metrics: Metrics, kind: str) -> float:
    return metrics.registry.get_sample_value("reranker_cache_errors_total", {"kind": kind}) or 0.0


async def test_what_was_put_is_found_once_it_is_written(cache: FailOpen) -> None:
    cache.put_many({b"a": SCORE})
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await cache.get_many([b"a", b"b"]) == [SCORE, None]
    await cache.close()


@pytest.mark.parametrize("error", [ConnectionError("no"), TimeoutError(), RuntimeError("a bug"), ValueError()])
async def test_any_error_is_a_miss_and_is_counted(
    cache: FailOpen, store: Store, metrics: Metrics, error: Exception
) -> None:
    store.error = error
    assert await cache.get_many([b"a", b"b"]) == [None, None]
    assert errors(metrics, "look_up") == 1


async def test_a_store_that_hangs_costs_a_look_up_its_budget_and_no_more(cache: FailOpen, store: Store) -> None:
    store.hold = asyncio.Event()
    started = time.monotonic()
    assert await cache.get_many([b"a"]) == [None]
    assert 0.015 < time.monotonic() - started < 2


async def test_after_failures_in_a_row_nothing_is_asked_until_a_probe_succeeds(cache: FailOpen, store: Store) -> None:
    store.error = ConnectionError()
    for _ in range(FAILURES):
        await cache.get_many([b"a"])
    calls = store.calls
    for _ in range(100):
        assert await cache.get_many([b"a"]) == [None]
        cache.put_many({b"a": SCORE})
    assert store.calls == calls
    store.error = None
    store.scores[b"a"] = SCORE
    async with asyncio.timeout(30):
        while await cache.get_many([b"a"]) != [SCORE]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await cache.close()


async def test_writes_that_wait_go_out_together(cache: FailOpen, store: Store) -> None:
    store.hold = asyncio.Event()
    cache.put_many({b"first": SCORE})
    await asyncio.sleep(0)
    for number in range(50):
        cache.put_many({bytes([number]): SCORE})
    store.hold.set()
    await cache.close()
    assert store.writes == [1, 50]


async def test_more_writes_than_may_wait_are_lost_and_counted(
    cache: FailOpen, store: Store, metrics: Metrics
) -> None:
    store.hold = asyncio.Event()
    cache.put_many({b"first": SCORE})
    await asyncio.sleep(0)
    many = {number.to_bytes(4, "little"): SCORE for number in range(40_000)}
    cache.put_many(many)
    cache.put_many({b"x" + key: SCORE for key in many})
    assert errors(metrics, "lost") == 30_000
    store.hold.set()
    await cache.close()
    assert store.writes == [1, *[1_000] * 50]


@pytest.mark.promise("S17")
async def test_one_put_of_very_many_is_kept_in_parts(cache: FailOpen, store: Store, metrics: Metrics) -> None:
    cache.put_many({number.to_bytes(4, "little"): SCORE for number in range(10_001)})
    await cache.close()
    assert (sum(store.writes), max(store.writes), errors(metrics, "lost")) == (10_001, 1_000, 0)


@pytest.mark.promise("S17")
async def test_a_flush_beside_a_write_under_way_leaves_nothing(cache: FailOpen, store: Store) -> None:
    store.hold = asyncio.Event()
    cache.put_many({number.to_bytes(4, "little"): SCORE for number in range(5_000)})
    await asyncio.sleep(0)
    flushing = asyncio.create_task(cache.flush())
    await asyncio.sleep(0)
    store.hold.set()
    await flushing
    await cache.close()
    assert store.scores == {}


async def test_a_failed_write_is_counted_and_nothing_else(cache: FailOpen, store: Store, metrics: Metrics) -> None:
    store.error = ConnectionError()
    cache.put_many({b"a": SCORE, b"b": SCORE})
    await cache.close()
    assert errors(metrics, "write") == 2


async def test_a_flush_that_did_not_happen_is_said(cache: FailOpen, store: Store) -> None:
    store.error = ConnectionError()
    with pytest.raises(NotReady, match="not flushed"):
        await cache.flush()
    store.error = None
    await cache.flush()


async def test_a_cancelled_look_up_is_cancelled_and_no_failure(
    cache: FailOpen, store: Store, metrics: Metrics
) -> None:
    store.hold = asyncio.Event()
    task = asyncio.create_task(cache.get_many([b"a"]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert errors(metrics, "look_up") == 0
