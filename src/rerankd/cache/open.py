"""From the setting ``cache`` to a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rerankd.cache.base import NoCache, ScoreCache
from rerankd.cache.fail_open import FailOpen
from rerankd.cache.memory import MemoryCache
from rerankd.errors import ConfigurationError
from rerankd.observe.metrics import Metrics
from rerankd.settings import Settings

if TYPE_CHECKING:
    from rerankd.cache.redis import RedisCache

REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


async def open_cache(
    settings: Settings, metrics: Metrics, on_change: Callable[[bool], None] | None = None
) -> ScoreCache:
    """The cache that the settings ask for, reachable at this moment.

    Args:
        on_change: told True when the store behind it is out of reach, False when it is back.

    Raises:
        ConfigurationError: the setting is none of the choices, or the Redis it names cannot be used.
    """
    if settings.cache == "off" or (settings.cache == "memory" and settings.cache_bytes == 0):
        return NoCache()
    if settings.cache == "memory":
        return MemoryCache(settings.cache_bytes, settings.cache_ttl_seconds, metrics.cache_evictions)
    if settings.cache.startswith(REDIS_SCHEMES):
        return await _open_redis(settings, metrics, on_change)
    # The value is not shown: it may be an address with a password and a slip in its scheme.
    raise ConfigurationError("the setting 'cache' has to be memory, off, or an address that begins with redis://")


async def _open_redis(settings: Settings, metrics: Metrics, on_change: Callable[[bool], None] | None) -> ScoreCache:
    budget, ttl = settings.cache_timeout_seconds, settings.cache_ttl_seconds
    store = await open_redis_store(
        settings.cache, metrics, ttl=ttl, budget=max(budget, 1.0), secret=settings.cache_secret
    )
    return FailOpen(store, budget, metrics, on_change)


async def open_redis_store(url: str, metrics: Metrics, *, ttl: float, budget: float, secret: str = "") -> RedisCache:
    """The scores in a Redis that answers; every method raises where it does not within ``budget`` seconds.

    Raises:
        ConfigurationError: the package redis is not installed, or the Redis cannot be used.
    """
    try:
        from rerankd.cache.redis import RedisCache
        from rerankd.resilience.redis import check_connection, connect
    except ModuleNotFoundError as error:
        raise ConfigurationError("a score cache in Redis needs: pip install 'rerankd[redis]'") from error
    await check_connection(url)
    return RedisCache(connect(url, timeout=budget), ttl, metrics, secret)
