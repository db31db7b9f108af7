from __future__ import annotations

import asyncio
import time

import pytest

from rerankd.service import rate_counts
from rerankd.service.rate_counts import MemoryCounts


async def test_a_window_begins_with_its_first_count_and_ends_by_itself() -> None:
    counts = MemoryCounts()
    assert await counts.get("a") == 0
    assert await counts.incr("a", 1) == 1
    expires = await counts.get_expiry("a")
    await asyncio.sleep(0.01)
    assert await counts.incr("a", 1, amount=5) == 6
    assert await counts.get_expiry("a") == expires
    assert 0.9 < expires - time.time() < 1
    counts._counts["a"] = (6, time.time())
    assert await counts.get("a") == 0
    assert await counts.incr("a", 1) == 1
    assert await counts.check()


async def test_windows_that_are_over_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = MemoryCounts()
    for number in range(100):
        await counts.incr(str(number), 0)
    assert len(counts._counts) <= 2


async def test_too_many_callers_push_the_first_ones_out_and_cost_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_counts, "_MOST_COUNTS", 10)
    counts = MemoryCounts()
    for number in range(25):
        await counts.incr(str(number), 60)
    assert list(counts._counts) == [str(number) for number in range(15, 25)]


async def test_counts_can_be_forgotten() -> None:
    counts = MemoryCounts()
    for key in "abc":
        await counts.incr(key, 60)
    await counts.clear("a")
    assert await counts.get("a") == 0
    assert await counts.reset() == 2
