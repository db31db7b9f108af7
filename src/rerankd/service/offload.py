"""Work that grows with a request, off the event loop: one of megabytes must not hold up the others.

The interpreter runs one thread at a time, so that nothing gets faster; but it changes threads every millisecond, and
the event loop goes on. Hence one thread: each more would only stand between the event loop and its next turn.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rerankd.prompt.fair_semaphore import FairSemaphore, Waiter

T = TypeVar("T")

INLINE_BYTES = 32 * 1024
"""Work on no more than this is done at once: it takes less than handing it over and back under load."""

SWITCH_SECONDS = 0.001
"""How long a thread at work keeps the interpreter from the event loop; Python's own 5 ms are felt at each of the
five turns that a small request needs."""


class Offload:
    """One thread for decoding, keys, ranking and rendering of what is large; callers share it fairly."""

    def __init__(self) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        self._thread = ThreadPoolExecutor(1, "rerankd-large")
        self._turns = FairSemaphore(1, INLINE_BYTES)

    async def run(self, tenant: str, size: int, work: Callable[[], T]) -> T:
        """The result of ``work``, which handles about ``size`` bytes for a tenant."""
        if size <= INLINE_BYTES:
            return work()
        waiter = Waiter(tenant, size)
        try:
            async with self._turns.slot(waiter, size):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._turns.leave(waiter)
