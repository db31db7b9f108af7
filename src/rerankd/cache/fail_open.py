"""A store that may fail, made into a cache that cannot: an error or too long a wait is a miss."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from rerankd.cache.base import CachedScore, CacheStats
from rerankd.errors import NotReady
from rerankd.observe.metrics import Metrics
from rerankd.resilience.breaker import PAUSE_SECONDS, Breaker
from rerankd.resilience.timeouts import with_timeout

_MAX_UNWRITTEN = 50_000
"""Scores that may wait to be written (some 15 MB); more are lost, and counted."""
_WRITE_SCORES = 1_000
"""Scores of one write, which has to end in time."""
_WRITE_SECONDS = 1.0


class RemoteStore(Protocol):
    """A store out of this process; every method may raise anything or hang."""

    def get_many(self, keys: Sequence[bytes]) -> Coroutine[Any, Any, list[CachedScore | None]]: ...

    async def put_many(self, scores: Mapping[bytes, CachedScore]) -> None: ...

    async def ping(self) -> None: ...

    async def flush(self) -> int: ...

    def describe(self) -> CacheStats: ...

    async def close(self) -> None: ...


class FailOpen:
    """A time budget, a breaker, and one writer in the background around a store.

    Args:
        store: what may fail.
        budget: seconds that a request may wait for a look-up.
        metrics: look-ups and writes that failed are counted there.
        on_change: told True when the store counts as out of reach, False when it is back.
        pause: seconds between two probes of a store out of reach.
    """

    def __init__(
        self,
        store: RemoteStore,
        budget: float,
        metrics: Metrics,
        on_change: Callable[[bool], None] | None = None,
        pause: float = PAUSE_SECONDS,
    ) -> None:
        self._store = store
        self._budget = budget
        self._breaker = Breaker("score cache", store.ping, pause, on_change)
        self._look_up_errors = metrics.cache_errors.labels("look_up")
        self._write_errors = metrics.cache_errors.labels("write")
        self._lost = metrics.cache_errors.labels("lost")
        self._unwritten: dict[bytes, CachedScore] = {}
        self._writer: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    async def get_many(self, keys: Sequence[bytes]) -> list[CachedScore | None]:
        if self._breaker.is_open:
            return [None] * len(keys)
        try:
            found = await with_timeout(self._budget, self._store.get_many(keys))
        except Exception as error:
            self._look_up_errors.inc()
            self._breaker.failed(error)
            return [None] * len(keys)
        self._breaker.succeeded()
        return found

    def put_many(self, scores: Mapping[bytes, CachedScore]) -> None:
        room = 0 if self._breaker.is_open else _MAX_UNWRITTEN - len(self._unwritten)
        self._unwritten.update(itertools.islice(scores.items(), room))
        self._lost.inc(max(len(scores) - room, 0))
        if not self._unwritten:
            return
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        """Write what waits, a part at a time, until nothing waits."""
        while self._unwritten:
            async with self._writing:
                scores = dict(itertools.islice(self._unwritten.items(), _WRITE_SCORES))
                for key in scores:
                    del self._unwritten[key]
                try:
                    async with asyncio.timeout(_WRITE_SECONDS):
                        await self._store.put_many(scores)
                except Exception as error:
                    self._write_errors.inc(len(scores))
                    self._breaker.failed(error)

    def describe(self) -> CacheStats:
        return dataclasses.replace(self._store.describe(), reachable=not self._breaker.is_open)

    async def flush(self) -> None:
        self._unwritten.clear()
        try:
            # A write under way would put scores back behind the flush.
            async with self._writing:
                await self._store.flush()
        except Exception as error:
            raise NotReady("the score cache is out of reach and was not flushed", retry_after=5) from error

    async def close(self) -> None:
        await self._breaker.close()
        if self._writer is not None:
            await self._writer
        await self._store.close()
