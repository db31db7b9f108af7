"""What callers have used of their windows: charged in one step, forgotten when it is over, bounded in number."""

from __future__ import annotations

import pytest

from rerankd.service import rate_counts
from rerankd.service.rate_counts import MemoryCounts, Window


class Clock:
    """A time that tests move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_window_begins_with_its_first_count_and_ends_by_itself() -> None:
    clock = Clock()
    counts, window = MemoryCounts(clock), Window(10, 60)
    fits, (before,) = await counts.spend([window], "a", 4)
    assert (fits, before.count, before.reset) == (True, 0, 60.0)
    clock.now += 20
    fits, (before,) = await counts.spend([window], "a", 1)
    assert (fits, before.count, before.reset) == (True, 4, 40.0)
    clock.now += 41
    _, (before,) = await counts.spend([window], "a", 1)
    assert (before.count, before.reset) == (0, 60.0)


async def test_what_does_not_fit_every_window_is_charged_to_none() -> None:
    counts, windows = MemoryCounts(Clock()), [Window(10, 1), Window(12, 60)]
    assert (await counts.spend(windows, "a", 10))[0]
    fits, _ = await counts.spend(windows, "a", 3)
    assert not fits
    _, used = await counts.spend(windows, "a", 0)
    assert [window.count for window in used] == [10, 10]


async def test_callers_do_not_share_a_window() -> None:
    counts, window = MemoryCounts(Clock()), Window(1, 60)
    assert (await counts.spend([window], "a", 1))[0]
    assert (await counts.spend([window], "b", 1))[0]
    assert not (await counts.spend([window], "a", 1))[0]


async def test_too_many_callers_push_out_those_that_began_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_counts, "_MAX_COUNTS", 10)
    counts, window = MemoryCounts(Clock()), Window(5, 60)
    for number in range(25):
        await counts.spend([window], str(number), 1)
    used = {number: (await counts.spend([window], str(number), 0))[1][0].count for number in reversed(range(25))}
    assert [number for number, count in used.items() if count] == list(range(24, 14, -1))
