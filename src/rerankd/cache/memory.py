"""Scores in this process's memory: least recently used go first, and none is older than its time to live."""

from __future__ import annotations

import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import Counter

from rerankd.cache.base import CachedScore, CacheStats

ENTRY_BYTES = 384
"""Bytes of an entry with key, value and its share of the table, rounded up from what was measured.

All entries have the same size, so a bound in bytes is a bound on their number.
"""
# Expiry, logit, tokens, truncated: one bytes object takes half of the memory that four Python objects do.
_ENTRY = struct.Struct("<ddI?")


class MemoryCache:
    """A bounded LRU with a time to live.

    Args:
        capacity: bytes that the entries may take together.
        ttl: seconds for which an entry is valid.
        evictions: counts entries that made room for others.
        clock: seconds, monotonic.
    """

    def __init__(
        self, capacity: int, ttl: float, evictions: Counter, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = capacity // ENTRY_BYTES
        self._ttl = ttl
        self._evictions = evictions
        self._clock = clock
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    async def get_many(self, keys: Sequence[bytes]) -> list[CachedScore | None]:
        now = self._clock()
        return [self._get(key, now) for key in keys]

    def _get(self, key: bytes, now: float) -> CachedScore | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires, logit, tokens, truncated = _ENTRY.unpack(entry)
        if expires <= now:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return CachedScore(logit, tokens, truncated)

    def put_many(self, scores: Mapping[bytes, CachedScore]) -> None:
        expires = self._clock() + self._ttl
        for key, score in scores.items():
            self._entries[key] = _ENTRY.pack(expires, score.logit, score.tokens, score.truncated)
            self._entries.move_to_end(key)
        excess = max(len(self._entries) - self._most, 0)
        for _ in range(excess):
            self._entries.popitem(last=False)
        self._evictions.inc(excess)

    def describe(self) -> CacheStats:
        return CacheStats("memory", len(self._entries), self._most)

    async def flush(self) -> None:
        self._entries.clear()

    async def close(self) -> None:
        self._entries.clear()
