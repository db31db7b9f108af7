"""A semaphore whose slots go to whom the fair queue names: a few threads, and requests in slices before them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator

from rerankd.core.fair_queue import FairQueue
from rerankd.core.token_budget import Pace, PaceMeter

_TELLING_SHARE = 64
"""A slice of less than this share of the usual size says nothing of the pace: its time is overhead."""


class Waiter:
    """One request that has work in slices."""

    __slots__ = ("left", "slices", "tenant")

    def __init__(self, tenant: str, size: int) -> None:
        self.tenant = tenant
        self.left = size
        """What of it has not had a slot yet."""
        self.slices: deque[tuple[int, asyncio.Future[None]]] = deque()
        """Slices that wait for a slot, with their sizes."""


class FairSemaphore:
    """``slots`` slices of at most about ``slice_size`` at a time; lives on the event loop alone."""

    def __init__(self, slots: int, slice_size: int) -> None:
        self._slots = self._free = slots
        self._slice_size = slice_size
        self._queue: FairQueue[Waiter] = FairQueue()
        self._running = 0
        self._meter = PaceMeter()
        self._pace = Pace()

    @property
    def is_idle(self) -> bool:
        """Does a request that comes now have a slot at once?"""
        return self._free > 0

    def seconds_until_done(self, tenant: str, size: int) -> float:
        """Time until a request of ``size`` that comes now is done, as far as is known."""
        everything = self._running + self._queue.backlog.until_done(tenant, size)
        return self._pace.seconds_for(everything // self._slots, self._slice_size)

    def leave(self, waiter: Waiter) -> None:
        """A request is done, or was given up."""
        if waiter in self._queue:
            self._queue.remove(waiter)

    @contextlib.asynccontextmanager
    async def slot(self, waiter: Waiter, size: int) -> AsyncIterator[None]:
        """Wait for a slot for a slice of that size, and hold it."""
        await self._acquire(waiter, size)
        self._running += size
        started = time.monotonic()
        try:
            yield
            if size >= self._slice_size // _TELLING_SHARE:
                ended = time.monotonic()
                self._pace = self._meter.observe(size, ended - started, ended)
        finally:
            self._running -= size
            self._release()

    async def _acquire(self, waiter: Waiter, size: int) -> None:
        if self._free:
            self._free -= 1
            waiter.left -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter.slices.append((size, turn))
        if waiter in self._queue:
            self._queue.resume(waiter)
        else:
            self._queue.push(waiter, waiter.tenant, waiter.left)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came at the very moment
                self._release()
            raise

    def _release(self) -> None:
        """A slot is free: it goes to the slice whose turn it is, if one waits."""
        while (waiter := self._queue.first()) is not None:
            while waiter.slices:
                size, turn = waiter.slices.popleft()
                if not turn.done():  # else its client has left
                    self._queue.serve(waiter, size)
                    waiter.left -= size
                    turn.set_result(None)
                    return
            self._queue.park(waiter)
        self._free += 1
