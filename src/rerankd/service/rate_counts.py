"""What callers have used of their windows, in this process or in a Redis that all replicas share.

All windows of a caller are looked at and charged in one step, so that a request that is refused costs nothing, also
when many come at once. A window begins with a caller's first request.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from redis.asyncio import Redis

_MAX_COUNTS = 100_000
"""Counts kept (some 25 MB); beyond that the windows that began first are forgotten, so nobody is locked out."""
_NAMESPACE = "rerankd:rate"


@dataclass(frozen=True, slots=True)
class Window:
    """``amount`` requests or documents in ``seconds``."""

    amount: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Used:
    """What a caller has used of a window before the request, and the seconds until it is over."""

    count: int
    reset: float


class RateCounts(Protocol):
    """Counts of callers by window."""

    async def spend(self, windows: Sequence[Window], caller: str, cost: int) -> tuple[bool, list[Used]]:
        """Charge every window if ``cost`` fits all of them, else none; and what was used before."""
        ...


class MemoryCounts:
    """Counts of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By caller and window: count and end; in the order in which the windows began.
        self._counts: OrderedDict[tuple[str, Window], tuple[int, float]] = OrderedDict()

    async def spend(self, windows: Sequence[Window], caller: str, cost: int) -> tuple[bool, list[Used]]:
        """As the protocol says; nothing else runs in between."""
        now = self._clock()
        used = [self._used((caller, window), now) for window in windows]
        fits = all(before.count + cost <= window.amount for before, window in zip(used, windows, strict=True))
        if fits:
            for before, window in zip(used, windows, strict=True):
                key = (caller, window)
                if before.count == 0:
                    self._counts.pop(key, None)
                    self._make_room(now)
                self._counts[key] = (before.count + cost, now + before.reset)
        return fits, used

    def _used(self, key: tuple[str, Window], now: float) -> Used:
        count, end = self._counts.get(key, (0, 0.0))
        return Used(count, end - now) if count and end > now else Used(0, float(key[1].seconds))

    def _make_room(self, now: float) -> None:
        """Forget up to two windows that are over, and the first one of all when there are too many."""
        for key in [key for key, _ in zip(self._counts, range(2), strict=False)]:
            if self._counts[key][1] <= now:
                del self._counts[key]
        if len(self._counts) >= _MAX_COUNTS:
            del self._counts[next(iter(self._counts))]


class RedisCounts:
    """Counts of all replicas; the script runs whole, so no two requests see the same room."""

    def __init__(self, client: Redis) -> None:
        self._script: Any = client.register_script(_SPEND)

    async def spend(self, windows: Sequence[Window], caller: str, cost: int) -> tuple[bool, list[Used]]:
        """As the protocol says; raises whatever Redis raises."""
        keys = [f"{_NAMESPACE}:{caller}:{window.amount}/{window.seconds}" for window in windows]
        arguments: list[int] = [cost]
        for window in windows:
            arguments += [window.amount, window.seconds * 1000]
        fits, *rows = await self._script(keys=keys, args=arguments)
        return bool(fits), [Used(int(count), int(left) / 1000) for count, left in rows]


_SPEND = """
local cost, fits, rows = tonumber(ARGV[1]), 1, {}
for i, key in ipairs(KEYS) do
  local count, left = tonumber(redis.call('GET', key) or '0'), redis.call('PTTL', key)
  if left < 0 then count, left = 0, tonumber(ARGV[2 * i + 1]) end
  if count + cost > tonumber(ARGV[2 * i]) then fits = 0 end
  rows[i] = {count, left}
end
if fits == 1 then
  for i, key in ipairs(KEYS) do
    redis.call('SET', key, rows[i][1] + cost, 'PX', rows[i][2])
  end
end
return {fits, unpack(rows)}
"""
