"""How often one caller may ask: windows per key, else per address, counted here or in Redis for all replicas.

A window begins with a caller's first request and ends when its time is over, so ``Retry-After`` is exact.
While Redis is out of reach every replica counts by itself: callers stay limited and none is locked out.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rerankd.cache.open import REDIS_SCHEMES
from rerankd.errors import ConfigurationError, RateLimited, TooLarge
from rerankd.resilience.breaker import Breaker
from rerankd.resilience.timeouts import with_timeout
from rerankd.service.rate_counts import MemoryCounts, RateCounts, RedisCounts, Window
from rerankd.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "month": 30 * 86_400, "year": 365 * 86_400}
_WINDOW = re.compile(
    r"([0-9]{1,12})\s*(?:/|per)\s*([0-9]{1,4})?\s*(second|minute|hour|day|month|year)s?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class RateState:
    """Where a caller stands in the window that is nearest to its end of budget.

    Attributes:
        limit: requests or documents that the window allows.
        remaining: what is left of them.
        reset: seconds until the window is over.
        refused: did this request not fit any more? It was then not counted.
    """

    limit: int
    remaining: int
    reset: float
    refused: bool = False

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The ``RateLimit-*`` headers of an answer, refused or not."""
        values = {"limit": self.limit, "remaining": self.remaining, "reset": math.ceil(self.reset)}
        return [(f"ratelimit-{name}".encode(), str(value).encode()) for name, value in values.items()]

    def tell(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Put the state into the headers of an answer, in the place of what an earlier part of the call was told.

        Raises:
            RateLimited: the call is refused, with the seconds after which the window is fresh.
        """
        own = self.headers()
        names = {name for name, _ in own}
        headers[:] = [header for header in headers if header[0] not in names] + own
        if self.refused:
            message = f"the rate limit of {self.limit} is used up; it is fresh again in {math.ceil(self.reset)} s"
            raise RateLimited(message, retry_after=self.reset, setting="rate_limit")


class RateLimiter:
    """Counts what callers ask for against every window of the setting ``rate_limit``.

    Args:
        windows: a request has to fit all of them.
        counts_documents: a request costs its documents instead of one.
        shared: a Redis with the counts of all replicas, closed with the limiter; None counts in this process alone.
        timeout: seconds that a request may wait for the shared counts.
    """

    def __init__(
        self, windows: list[Window], *, counts_documents: bool, shared: Redis | None, timeout: float
    ) -> None:
        self._windows = windows
        self._counts_documents = counts_documents
        self._timeout = timeout
        self._own = MemoryCounts()
        self._redis = shared
        self._shared = RedisCounts(shared) if shared else None
        self._breaker = Breaker("rate limits", shared.ping) if shared else None

    @classmethod
    async def open(cls, settings: Settings) -> RateLimiter | None:
        """The limiter that the settings ask for; None when they ask for none.

        Raises:
            ConfigurationError: the rate cannot be read, or the store cannot be used.
        """
        if not settings.rate_limit:
            return None
        return cls(
            parse_windows(settings.rate_limit),
            counts_documents=settings.rate_limit_unit == "documents",
            shared=await _shared_store(settings.rate_limit_store),
            timeout=settings.cache_timeout_seconds,
        )

    async def spend(self, tenant: str, documents: int) -> RateState:
        """Take a request out of the caller's budget, or find that it does not fit.

        Args:
            tenant: the key's name, else the client's address.
            documents: documents of the request.

        Raises:
            TooLarge: no fresh window would have room for it either.
        """
        return await self._spend_cost(tenant, max(documents, 1) if self._counts_documents else 1, "documents")

    async def spend_passages(self, tenant: str, passages: int) -> RateState | None:
        """Take passages out of the budget that a request's documents were split into beyond one each.

        None where requests are counted.

        Raises:
            TooLarge: as :meth:`spend`.
        """
        if not self._counts_documents or passages <= 0:
            return None
        return await self._spend_cost(tenant, passages, "more passages")

    async def _spend_cost(self, tenant: str, cost: int, unit: str) -> RateState:
        smallest = min(window.amount for window in self._windows)
        if cost > smallest:
            message = f"the request has {cost} {unit}, the rate limit allows {smallest} in one of its windows"
            raise TooLarge(message, setting="rate_limit")
        return await self._spend(tenant, cost)

    async def _spend(self, caller: str, cost: int) -> RateState:
        if self._shared is None or self._breaker is None or self._breaker.is_open:
            return await self._spend_in(self._own, caller, cost)
        try:
            state = await with_timeout(self._timeout, self._spend_in(self._shared, caller, cost))
        except Exception as error:
            self._breaker.failed(error)
            return await self._spend_in(self._own, caller, cost)
        self._breaker.succeeded()
        return state

    async def _spend_in(self, counts: RateCounts, caller: str, cost: int) -> RateState:
        fits, used = await counts.spend(self._windows, caller, cost)
        states = [
            RateState(window.amount, max(window.amount - before.count, 0), before.reset)
            for window, before in zip(self._windows, used, strict=True)
        ]
        if not fits:
            last = max((state for state in states if state.remaining < cost), key=lambda state: state.reset)
            return RateState(last.limit, last.remaining, last.reset, refused=True)
        tightest = min(states, key=lambda state: state.remaining / state.limit)
        return RateState(tightest.limit, tightest.remaining - cost, tightest.reset)

    async def close(self) -> None:
        if self._breaker is not None:
            await self._breaker.close()
        if self._redis is not None:
            await self._redis.aclose()


def parse_windows(rate: str) -> list[Window]:
    """``10/minute;1000/day`` or ``10 per 5 minutes`` as windows.

    Raises:
        ConfigurationError: it cannot be read so, or a window allows nothing.
    """
    windows = []
    for part in re.split("[;,|]", rate):
        match = _WINDOW.fullmatch(part.strip())
        if match is None or not int(match[1]) or match[2] == "0":
            raise ConfigurationError(
                f"the setting 'rate_limit' is {rate[:60]!r} and has to look like 10/minute;1000/day"
            )
        windows.append(Window(int(match[1]), int(match[2] or 1) * _SECONDS[match[3].lower()]))
    return windows


async def _shared_store(address: str) -> Redis | None:
    if address == "memory":
        return None
    if not address.startswith(REDIS_SCHEMES):
        raise ConfigurationError("the setting 'rate_limit_store' has to be memory, or begin with redis://")
    try:
        from rerankd.resilience.redis import check_connection, connect
    except ModuleNotFoundError as error:
        raise ConfigurationError("rate limits in Redis need: pip install 'rerankd[redis]'") from error
    await check_connection(address)
    return connect(address, timeout=1.0)
