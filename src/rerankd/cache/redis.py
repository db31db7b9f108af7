"""Scores in Redis, shared by replicas: one MGET a look-up, pipelined SETs with a time to live, no retries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from urllib.parse import urlsplit

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from rerankd.cache.base import CachedScore
from rerankd.cache.codec import CorruptValue, decode, encode
from rerankd.errors import ConfigurationError
from rerankd.observe.metrics import Metrics

_NAMESPACE = b"rerankd:score:"
_CONNECTIONS = 32
_START_SECONDS = 2.0
_SCAN = 1_000


def connect(url: str, timeout: float) -> aioredis.Redis:
    """A client that gives up after ``timeout`` seconds and never retries; it connects at the first command.

    With its own defaults a dead Redis costs 4 s a call, and a hanging one more than 20 s.

    Raises:
        ConfigurationError: the address is not one of Redis.
    """
    try:
        pool = aioredis.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
    except ValueError as error:
        raise ConfigurationError(f"the Redis address {without_secret(url)} cannot be read: {error}") from None
    return aioredis.Redis.from_pool(pool)


async def check_connection(url: str) -> None:
    """Prove that a Redis answers at the address and lets us in.

    Raises:
        ConfigurationError: it does not; the message has the cause and never the password.
    """
    client = connect(url, _START_SECONDS)
    try:
        await client.ping()
    except (RedisError, OSError, TimeoutError) as error:
        cause = str(error) or type(error).__name__
        raise ConfigurationError(f"the Redis at {without_secret(url)} cannot be used: {cause}") from None
    finally:
        await client.aclose()


def without_secret(url: str) -> str:
    """An address as it may be shown: scheme, host, port and database."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


class RedisCache:
    """Scores under ``rerankd:score:`` + key. Every method raises when Redis does not answer in time."""

    def __init__(self, client: aioredis.Redis, ttl: float, metrics: Metrics) -> None:
        self._client = client
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
            return decode(key, value)
        except CorruptValue:
            self._corrupt.inc()
            return None

    async def put_many(self, scores: Mapping[bytes, CachedScore]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for key, score in scores.items():
            pipeline.set(_NAMESPACE + key, encode(key, score), px=self._milliseconds)
        # A full Redis refuses writes while it still answers look-ups: that must not open the breaker.
        replies = await pipeline.execute(raise_on_error=False)
        self._refused.inc(sum(isinstance(reply, RedisError) for reply in replies))

    async def ping(self) -> None:
        await self._client.ping()

    async def flush(self) -> None:
        """Delete the scores and nothing else of the database."""
        found: list[bytes] = []
        async for key in self._all_keys():
            found.append(key)
            if len(found) == _SCAN:
                await self._client.unlink(*found)
                found.clear()
        if found:
            await self._client.unlink(*found)

    def _all_keys(self) -> AsyncIterator[bytes]:
        keys: AsyncIterator[bytes] = self._client.scan_iter(match=_NAMESPACE + b"*", count=_SCAN)
        return keys

    async def close(self) -> None:
        await self._client.aclose()
