"""Scores in Redis, shared by replicas: one MGET a look-up, pipelined SETs with a time to live, no retries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from rerankd.cache.base import CachedScore, CacheStats
from rerankd.cache.codec import Codec, CorruptValue
from rerankd.observe.metrics import Metrics

_NAMESPACE = b"rerankd:score:"
_SCAN = 1_000


class RedisCache:
    """Scores under ``rerankd:score:`` + key. Every method raises when Redis does not answer in time.

    Args:
        ttl: seconds after which Redis forgets a score.
        secret: what values are authenticated with; empty for a checksum alone.
    """

    def __init__(self, client: aioredis.Redis, ttl: float, metrics: Metrics, secret: str = "") -> None:
        self._client = client
        self._codec = Codec(secret)
        self._milliseconds = max(int(ttl * 1000), 1)
        self._corrupt = metrics.cache_errors.labels("corrupt")
        self._refused = metrics.cache_errors.labels("refused")

    async def get_many(self, keys: Sequence[bytes]) -> list[CachedScore | None]:
        values = await self._client.mget([_NAMESPACE + key for key in keys])
        return [self._read(key, value) for key, value in zip(keys, values, strict=True)]

    def _read(self, key: bytes, value: bytes | str | None) -> CachedScore | None:
        if not isinstance(value, bytes):
            return None
        try:
            return self._codec.decode(key, value)
        except CorruptValue:
            self._corrupt.inc()
            return None

    async def put_many(self, scores: Mapping[bytes, CachedScore]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for key, score in scores.items():
            pipeline.set(_NAMESPACE + key, self._codec.encode(key, score), px=self._milliseconds)
        # A full Redis refuses writes while it still answers look-ups: that must not open the breaker.
        replies = await pipeline.execute(raise_on_error=False)
        self._refused.inc(sum(isinstance(reply, RedisError) for reply in replies))

    async def ping(self) -> None:
        await self._client.ping()

    async def count(self) -> int:
        """Scores in the database; every key is looked at."""
        return sum([1 async for _ in self._all_keys()])

    def describe(self) -> CacheStats:
        return CacheStats("redis")

    async def flush(self) -> int:
        """Delete the scores and nothing else of the database; how many they were."""
        deleted = 0
        found: list[bytes] = []
        async for key in self._all_keys():
            found.append(key)
            if len(found) == _SCAN:
                deleted += await self._client.unlink(*found)
                found.clear()
        return deleted + (await self._client.unlink(*found) if found else 0)

    def _all_keys(self) -> AsyncIterator[bytes]:
        keys: AsyncIterator[bytes] = self._client.scan_iter(match=_NAMESPACE + b"*", count=_SCAN)
        return keys

    async def close(self) -> None:
        await self._client.aclose()
