"""When a failed call is tried again: few times, spread out, and never so often that it feeds an outage."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rerankd.client.errors import ClientError

FIRST_WAIT = 0.25
LONGEST_WAIT = 8.0
LONGEST_RETRY_AFTER = 300.0
"""Seconds; a server that asks for more is not waited for."""
MOST_RETRIES = 2


class RetryBudget:
    """Retries are at most a tenth of a client's calls, however long a server stays down.

    Every call earns one credit, a retry costs ten. A new client is lent two retries, so that its very first
    call may be tried again, and its next twenty calls pay them back. Credits beyond ten retries are lost:
    a long good time must not pay for a flood later. Safe to share between threads.
    """

    COST = 10
    LENT = 2 * COST
    MOST = 10 * COST

    def __init__(self) -> None:
        self._credits = self.LENT
        self._owed = self.LENT
        self._lock = threading.Lock()

    def earn(self) -> None:
        with self._lock:
            if self._owed:
                self._owed -= 1
            else:
                self._credits = min(self.MOST, self._credits + 1)

    def spend(self) -> bool:
        """Pay for one retry; False when there is not enough."""
        with self._lock:
            if self._credits < self.COST:
                return False
            self._credits -= self.COST
            return True


@dataclass(slots=True)
class Attempts:
    """The attempts of one call.

    Args:
        retries: how often it may be tried again.
        budget: what all calls of the client share.
        total: seconds for the whole call, waits included; None for no limit.
    """

    retries: int
    budget: RetryBudget
    total: float | None
    clock: Callable[[], float] = time.monotonic
    _tried_again: int = 0
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()
        self.budget.earn()

    @property
    def remaining(self) -> float | None:
        """Seconds that the call still has."""
        return None if self.total is None else self._began + self.total - self.clock()

    def wait_after(self, error: ClientError) -> float | None:
        """Seconds to wait before the next attempt; None when there is to be none."""
        if not error.retryable or self._tried_again >= self.retries:
            return None
        wait = (error.retry_after or 0.0) + random.uniform(0.0, min(LONGEST_WAIT, FIRST_WAIT * 2**self._tried_again))
        if wait > LONGEST_RETRY_AFTER:
            return None
        remaining = self.remaining
        if (remaining is not None and wait >= remaining) or not self.budget.spend():
            return None
        self._tried_again += 1
        return wait


def check_retries(retries: int) -> int:
    if not 0 <= retries <= MOST_RETRIES:
        raise ValueError(f"retries has to be 0 to {MOST_RETRIES}: more of them only feed an outage")
    return retries
