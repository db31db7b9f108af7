"""A bounded amount of something that callers hold together, and what one caller may have of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from rerankd.errors import Overloaded, TooLarge


class Quota:
    """Never more than ``limit`` is held by all callers together.

    While others wait, a caller with something may have up to its share; one that is alone may have all. A caller
    that finds everything taken is refused, but from then on it waits, and who took it all gets no more.

    Args:
        what: bytes, requests, characters or tokens, for messages.
        limit: for all callers together.
        max_tenant_share: share of it for one caller while others wait.
        setting: the setting that moves the limit.
        reserve: what a caller that is alone leaves free for the first amount of the next.
        remember_seconds: a caller that asked so lately counts as waiting: it may have been refused, and is about to
            ask again.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        what: str,
        limit: int,
        max_tenant_share: float,
        setting: str,
        *,
        reserve: int = 0,
        remember_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what = what
        self.limit = limit
        self.setting = setting
        self.held = 0
        self._share = math.ceil(limit * max_tenant_share)
        self._alone = max(self._share, limit - reserve)
        self._remember_seconds = remember_seconds
        self._by_tenant: dict[str, int] = {}
        self._asked: dict[str, float] = {}
        """When each caller asked last, the longest ago first; only those of late."""
        self._clock = clock

    def take(self, tenant: str, amount: int) -> None:
        """Hold so much more of it, until it is given back.

        Raises:
            TooLarge: it is more than all callers may hold together.
            Overloaded: there is no room now, or the caller's share is full.
        """
        if amount > self.limit:
            message = f"the request has {amount} {self.what}, more than all requests may have together ({self.limit})"
            raise TooLarge(message, setting=self.setting)
        now = self._clock()
        self._asked.pop(tenant, None)
        self._asked[tenant] = now
        while (first := next(iter(self._asked))) != tenant and self._asked[first] <= now - self._remember_seconds:
            del self._asked[first]
        own = self._by_tenant.get(tenant, 0)
        if self.held + amount > self.limit:
            raise Overloaded(f"too many {self.what} are waiting", retry_after=1.0, setting=self.setting)
        others_wait = self.held > own or len(self._asked) > 1
        if own and own + amount > (self._share if others_wait else self._alone):
            message = f"your share of the waiting {self.what} is full"
            raise Overloaded(message, retry_after=1.0, setting="max_tenant_share")
        if amount:
            self._by_tenant[tenant] = own + amount
            self.held += amount

    def give_back(self, tenant: str, amount: int) -> None:
        self.held -= amount
        left = self._by_tenant.get(tenant, 0) - amount
        if left:
            self._by_tenant[tenant] = left
        else:
            self._by_tenant.pop(tenant, None)
