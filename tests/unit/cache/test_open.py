from __future__ import annotations

import pytest

from rerankd.cache.base import CachedScore, NoCache
from rerankd.cache.memory import MemoryCache
from rerankd.cache.open import open_cache
from rerankd.errors import ConfigurationError
from rerankd.observe.metrics import Metrics
from rerankd.settings import Settings


async def test_the_setting_chooses_the_cache() -> None:
    assert isinstance(await open_cache(Settings(), Metrics()), MemoryCache)
    assert isinstance(await open_cache(Settings(cache="off"), Metrics()), NoCache)
    assert isinstance(await open_cache(Settings(cache_bytes=0), Metrics()), NoCache)


async def test_a_cache_that_is_off_knows_nothing() -> None:
    cache = NoCache()
    cache.put_many({b"a": CachedScore(1.0, 1, False)})
    assert await cache.get_many([b"a"]) == [None]
    await cache.flush()
    await cache.close()


@pytest.mark.parametrize("value", ["yes", "redsi://:secret@host", ""])
async def test_any_other_value_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(ConfigurationError, match="memory, off") as refused:
        await open_cache(Settings(cache=value), Metrics())
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["redis://:secret@127.0.0.1:1/0", "redis://:secret@no-such-host.invalid/0", "redis://:secret@127.0.0.1:port/0"],
)
async def test_a_redis_out_of_reach_is_refused_with_its_address_and_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        await open_cache(Settings(cache=url), Metrics())
    # What is no address may be a part of the password, and is not shown.
    assert ("…" if ":port" in url else url.rpartition("@")[2]) in str(refused.value)
    assert "secret" not in str(refused.value)
