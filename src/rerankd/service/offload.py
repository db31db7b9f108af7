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

from rerankd.memory import give_back_freed
from rerankd.prompt.fair_semaphore import FairSemaphore, Waiter

T = TypeVar("T")

_INLINE_BYTES = 32 * 1024
"""Work on no more than this is done at once: it takes less than handing it over and back under load."""

SWITCH_SECONDS = 0.0002
"""How long a thread at work keeps the interpreter from the event loop; a small request needs ten turns of it, and
may have to wait for several threads at each: with Python's own 5 ms that is half a second."""

_TRIM_BYTES = 16 * 2**20
"""After so many bytes of large work the allocator gives back what is free ..."""

_TRIM_SECONDS = 5.0
"""... but no more often: the pages that it needs again cost their time."""


class Offload:
    """One thread for decoding, keys, ranking and rendering of what is large; callers share it fairly."""

    def __init__(self) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        self._thread = ThreadPoolExecutor(1, "rerankd-large")
        self._turns = FairSemaphore(1, _INLINE_BYTES)
        self._handled = 0
        """Bytes of large work since the allocator last gave anything back."""

    async def run(self, tenant: str, size: int, work: Callable[[], T]) -> T:
        """The result of ``work``, which handles about ``size`` bytes for a tenant; of little it is done at once."""
        if size <= _INLINE_BYTES:
            return work()
        waiter = Waiter(tenant, size)
        try:
            async with self._turns.slot(waiter, size):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._turns.leave(waiter)
            self._handled += size
            if self._handled - size < _TRIM_BYTES <= self._handled:
                asyncio.get_running_loop().call_later(_TRIM_SECONDS, self._trim)

    def _trim(self) -> None:
        """Bodies come and go in pieces of all sizes, and leave a heap that is mostly free and never shrinks."""
        self._handled = 0
        self._thread.submit(give_back_freed)
