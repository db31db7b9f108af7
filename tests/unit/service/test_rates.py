from __future__ import annotations

import asyncio
import time

import pytest
from tests.redis_fixtures import PASSWORD, RedisServer

from rerankd.errors import ConfigurationError, RateLimited, TooLarge
from rerankd.resilience.breaker import FAILURES
from rerankd.service.rate_counts import Window
from rerankd.service.rates import RateLimiter, RateState, parse_windows
from rerankd.settings import Settings


async def limiter(rate: str, unit: str = "requests", store: str = "memory", **settings: float) -> RateLimiter:
    opened = await RateLimiter.open(
        Settings(rate_limit=rate, rate_limit_unit=unit, rate_limit_store=store, **settings)  # type: ignore[arg-type]
    )
    assert opened is not None
    return opened


async def accepted(rates: RateLimiter, tenant: str, requests: int, documents: int = 1) -> int:
    states = [await rates.spend(tenant, documents) for _ in range(requests)]
    return sum(not state.refused for state in states)


async def test_no_rate_means_no_limiter() -> None:
    assert await RateLimiter.open(Settings()) is None


async def test_a_caller_gets_the_rate_and_no_more_and_others_their_own() -> None:
    rates = await limiter("3/minute")
    assert await accepted(rates, "a", 5) == 3
    assert await accepted(rates, "b", 2) == 2


async def test_the_state_says_what_is_left_and_when_it_is_fresh() -> None:
    rates = await limiter("3/minute")
    assert await rates.spend("a", 1) == RateState(limit=3, remaining=2, reset=60.0)
    second = await rates.spend("a", 1)
    assert (second.remaining, round(second.reset)) == (1, 60)
    assert second.headers() == [
        (b"ratelimit-limit", b"3"),
        (b"ratelimit-remaining", b"1"),
        (b"ratelimit-reset", b"60"),
    ]
    await rates.spend("a", 1)
    refused = await rates.spend("a", 1)
    assert (refused.refused, refused.remaining) == (True, 0)
    with pytest.raises(RateLimited, match="fresh again in 60 s") as error:
        refused.tell([])
    assert 59 < (error.value.retry_after or 0) <= 60


async def test_after_the_time_it_names_a_refused_caller_gets_in() -> None:
    rates = await limiter("2/second")
    assert await accepted(rates, "a", 3) == 2
    refused = await rates.spend("a", 1)
    await asyncio.sleep(refused.reset + 0.01)
    assert await accepted(rates, "a", 3) == 2


async def test_a_request_has_to_fit_every_window_and_costs_nothing_where_it_is_refused() -> None:
    rates = await limiter("2/second;3/minute")
    assert await accepted(rates, "a", 2) == 2
    refused = await rates.spend("a", 1)
    assert (refused.refused, refused.limit) == (True, 2)
    await asyncio.sleep(refused.reset + 0.01)
    assert (await rates.spend("a", 1)).remaining == 0
    last = await rates.spend("a", 1)
    assert (last.refused, last.limit) == (True, 3)


async def test_documents_are_counted_when_asked_for() -> None:
    rates = await limiter("100/minute", "documents")
    assert (await rates.spend("a", 60)).remaining == 40
    assert (await rates.spend("a", 60)).refused
    assert (await rates.spend("a", 40)).remaining == 0
    assert (await rates.spend("b", 0)).remaining == 99


async def test_a_request_that_no_window_can_hold_is_too_large_and_not_to_be_retried() -> None:
    rates = await limiter("1000/day;100/minute", "documents")
    with pytest.raises(TooLarge, match="has 101 documents, the rate limit allows 100") as refused:
        await rates.spend("a", 101)
    assert refused.value.setting == "rate_limit"


async def test_requests_at_once_never_get_more_than_the_rate() -> None:
    rates = await limiter("10/minute;50/hour")
    states = await asyncio.gather(*(rates.spend("a", 1) for _ in range(40)))
    assert sum(not state.refused for state in states) <= 10


@pytest.mark.promise("S15")
@pytest.mark.parametrize("store", ["memory", "redis"])
async def test_what_is_refused_is_not_charged_also_when_many_come_at_once(
    store: str, request: pytest.FixtureRequest
) -> None:
    address = "memory" if store == "memory" else request.getfixturevalue("redis_server").url
    rates = await limiter("100/minute;1000/day", unit="documents", store=address, cache_timeout_seconds=5.0)
    states = await asyncio.gather(*(rates.spend("a", 60) for _ in range(10)))
    assert sum(not state.refused for state in states) == 1
    refused = next(state for state in states if state.refused)
    assert refused.remaining == 40
    last = await rates.spend("a", 40)
    assert (last.refused, last.remaining) == (False, 0)
    assert (await rates.spend("a", 1)).refused
    await rates.close()


@pytest.mark.promise("S15")
async def test_a_request_that_fits_one_window_and_not_the_other_is_charged_in_neither() -> None:
    rates = await limiter("5/minute;6/day")
    assert await accepted(rates, "a", 5) == 5
    assert await accepted(rates, "a", 10) == 0
    assert [used.count for used in (await rates._own.spend(rates._windows, "a", 0))[1]] == [5, 5]


@pytest.mark.parametrize(
    ("rate", "windows"),
    [
        ("10/minute", [Window(10, 60)]),
        ("10 per hour; 1000/day", [Window(10, 3600), Window(1000, 86_400)]),
        ("5/2 minutes|7 Per 3 Seconds", [Window(5, 120), Window(7, 3)]),
    ],
)
def test_a_rate_is_read_in_its_usual_forms(rate: str, windows: list[Window]) -> None:
    assert parse_windows(rate) == windows


@pytest.mark.parametrize(
    "rate",
    [
        "often",
        "1/0 minutes",
        "9999999999999/day",
        ";",
        "1/minute;",
        "0/minute",
        "10 per",
        "/minute",
        "10/minute;often",
    ],
)
async def test_a_rate_that_cannot_be_read_is_refused_with_an_example(rate: str) -> None:
    with pytest.raises(ConfigurationError, match="10/minute;1000/day"):
        await limiter(rate)


@pytest.mark.parametrize("store", ["nowhere", "redis://:secret@127.0.0.1:1"])
async def test_a_store_that_cannot_be_used_is_refused_without_its_password(store: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        await limiter("1/minute", store=store)
    assert "secret" not in str(refused.value)


@pytest.mark.redis
async def test_replicas_share_their_counts_in_redis(redis_server: RedisServer) -> None:
    one, two = [
        await limiter("5/minute;100/day", store=redis_server.url, cache_timeout_seconds=5.0) for _ in range(2)
    ]
    assert await accepted(one, "a", 3) + await accepted(two, "a", 4) == 5
    assert (await two.spend("a", 1)).limit == 5
    await one.close()
    await two.close()


@pytest.mark.redis
@pytest.mark.parametrize("fault", ["stop", "pause"])
async def test_without_redis_callers_are_limited_by_each_replica_and_none_waits(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    rates = await limiter("8/minute", store=redis_server.url)
    assert await accepted(rates, "a", 2) == 2
    getattr(redis_server, fault)()
    times = []
    for _ in range(20):
        started = time.perf_counter()
        await rates.spend("a", 1)
        times.append(time.perf_counter() - started)
    assert await accepted(rates, "a", 1) == 0
    assert await accepted(rates, "b", 10) == 8
    assert sorted(times)[: 20 - FAILURES][-1] < 0.02
    await rates.close()
    assert PASSWORD not in "".join(capsys.readouterr())
