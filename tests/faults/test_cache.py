"""Section F through a real server: a cache that is wrong, full, slow or gone costs no request its answer."""

from __future__ import annotations

import asyncio
import random
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.figures import Measured
from tests.live import LiveServer
from tests.redis_fixtures import PASSWORD, RedisServer
from tests.served import Served, served
from tests.served import until as until_within

from rerankd.cache.codec import Codec
from rerankd.resilience.breaker import FAILURES
from rerankd.service.lifecycle import State
from rerankd.types import CallContext, RerankRequest, RerankResult

pytestmark = pytest.mark.redis

PATIENCE = 60.0
"""Seconds to wait for what is about to happen: a machine busy with other things takes its time."""
DOCUMENTS = [f"document {number}" for number in range(10)]


async def until(condition: Callable[[], bool]) -> None:
    await until_within(condition, PATIENCE)


async def ask(server: Served, query: str, documents: list[str]) -> list[float]:
    """Raw scores in input order, past HTTP, so that every bit counts."""
    context = CallContext("id", time.monotonic() + 30)
    (result,) = await server.service.rerank([RerankRequest(query, tuple(documents))], context)
    assert isinstance(result, RerankResult)
    assert not result.errors
    return [score.logit for score in result.scores if score.logit is not None]


class Load:
    """Four clients that ask for pairs nobody knows, without a pause; every answer has to be 200.

    What the cache adds to a request is the time of its look-up, so that is what is measured.
    """

    def __init__(self, server: Served, patch: pytest.MonkeyPatch) -> None:
        self._server = server
        self.look_ups: list[float] = []
        self.answers = 0
        cache = server.service.cache
        patch.setattr(cache, "get_many", self._timed(cache.get_many))
        self._clients = [asyncio.create_task(self._client()) for _ in range(4)]

    def _timed(self, get_many: Callable[[Sequence[bytes]], Awaitable[Any]]) -> Callable[[Sequence[bytes]], Any]:
        async def timed(keys: Sequence[bytes]) -> Any:
            started = time.perf_counter()
            try:
                return await get_many(keys)
            finally:
                self.look_ups.append(1000 * (time.perf_counter() - started))

        return timed

    async def _client(self) -> None:
        while True:
            response = await self._server.rerank(f"query {random.random()}", DOCUMENTS)
            assert response.status_code == 200
            self.answers += 1

    async def until(self, condition: Callable[[], bool]) -> list[float]:
        """The milliseconds of every look-up until then."""
        self.look_ups.clear()
        await until(condition)
        return list(self.look_ups)

    async def __aenter__(self) -> Load:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            client.cancel()
        results = await asyncio.gather(*self._clients, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results


def is_open(server: Served) -> bool:
    return server.service.lifecycle.state is State.DEGRADED


@pytest.mark.promise("D-06", "F-01", "F-02")
@pytest.mark.parametrize(
    ("fault", "most"),
    [
        ("F-01", 50),
        ("F-02", 50),
        pytest.param("F-01", 25, marks=pytest.mark.slow),  # judged by the clock: the machine must be quiet
        pytest.param("F-02", 25, marks=pytest.mark.slow),
    ],
)
async def test_a_redis_that_is_gone_or_hangs_costs_little(
    redis_server: RedisServer, measured: Measured, monkeypatch: pytest.MonkeyPatch, fault: str, most: float
) -> None:
    async with served(cache=redis_server.url) as server, Load(server, monkeypatch) as load:
        healthy = await load.until(lambda: len(load.look_ups) >= 100)
        if is_open(server):
            pytest.skip("this machine is so busy that a healthy Redis takes longer than 20 ms")
        redis_server.stop() if fault == "F-01" else redis_server.pause()
        outage = await load.until(lambda: is_open(server))
        await asyncio.sleep(0.1)  # for those that were on their way when it opened
        after = await load.until(lambda: len(load.look_ups) >= 100)
        later = statistics.quantiles(after, n=100)[98]
        measured(
            fault,
            "Redis refuses, under load" if fault == "F-01" else "Redis hangs (SIGSTOP), under load",
            f"0 errors, p99 + <= {most} ms, then + < 1 ms",
            f"0 errors in {load.answers}; a look-up at most {max(outage):.1f} ms ({statistics.median(healthy):.1f} "
            f"before), then {later:.3f} ms (p99)",
        )
        probes = {path: (await server.client.get(path)).status_code for path in ("/livez", "/readyz")}
        state = (await server.client.get("/health")).json()["state"]
    measured("D-06", "Redis is gone", "/livez and /readyz 200, degraded", f"{probes}, {state}")
    assert (probes, state) == ({"/livez": 200, "/readyz": 200}, "degraded")
    # Few look-ups open the breaker: the slowest stands for the 99th percentile; a machine that is busy made some of
    # the healthy ones slow too.
    assert max(outage) - max(healthy) <= most
    assert statistics.median(after) < 1


@pytest.mark.promise("F-03")
@pytest.mark.slow
async def test_a_redis_that_comes_back_is_used_again(redis_server: RedisServer, measured: Measured) -> None:
    async with served(cache=redis_server.url) as server:
        redis_server.stop()
        for _ in range(FAILURES):
            await ask(server, "query", DOCUMENTS)
        await until(lambda: is_open(server))
        redis_server.start()
        started = time.monotonic()
        while server.metric("reranker_cache_hits_total") == 0:
            assert time.monotonic() - started < PATIENCE
            await ask(server, "query", DOCUMENTS)
            await asyncio.sleep(0.05)
        seconds = time.monotonic() - started
        assert server.service.lifecycle.state is State.READY
    measured("F-03", "Redis comes back", "hits again < 10 s", f"{seconds:.1f} s")
    assert seconds < 10


@pytest.mark.promise("F-04")
@pytest.mark.parametrize(
    ("address", "cause"),
    [
        pytest.param("redis://:{password}@127.0.0.1:1/0", "127.0.0.1:1", marks=pytest.mark.thorough),
        ("redis://:{password}x@127.0.0.1:{port}/0", "invalid username-password pair"),
        pytest.param("redis://:{password}@127.0.0.1:{port}/99", "out of range", marks=pytest.mark.thorough),
    ],
    ids=["nobody-there", "wrong-password", "wrong-database"],
)
def test_a_misconfigured_redis_refuses_to_start(
    redis_server: RedisServer, tmp_path: Path, measured: Measured, address: str, cause: str
) -> None:
    url = address.format(password=PASSWORD, port=redis_server.port)
    started = time.monotonic()
    server = LiveServer("--engine", "fake", "--cache", url, log=tmp_path / "server.log")
    status = server.process.wait(timeout=60)
    seconds = time.monotonic() - started
    log = server.log.read_text()
    measured(
        "F-04", f"Redis: {cause}", "exit != 0 with the cause", f"exit {status} after {seconds:.1f} s: cause named"
    )
    assert status != 0
    assert cause in log
    assert "cannot be used" in log
    assert PASSWORD not in log
    assert "Traceback" not in log


@pytest.mark.promise("F-06")
@pytest.mark.parametrize("store", ["memory", "redis"])
async def test_cached_scores_equal_fresh_ones_to_the_bit(
    redis_server: RedisServer, measured: Measured, store: str
) -> None:
    rng = random.Random(store)
    requests = {
        f"query {rng.random()}": [f"{rng.random()} " * rng.randint(1, 8) for _ in range(100)] for _ in range(30)
    }
    # A look-up that a busy machine delays is a miss: this test is about bits, not about time.
    async with served(cache="memory" if store == "memory" else redis_server.url, cache_timeout_seconds=5.0) as server:
        fresh = [await ask(server, query, documents) for query, documents in requests.items()]
        if store == "redis":
            await until(lambda: redis_server.send("DBSIZE") == b":3000")
        pairs = server.engine.pairs
        cached = [await ask(server, query, documents) for query, documents in requests.items()]
        scored_again = server.engine.pairs - pairs
    different = sum(
        struct.pack("<d", one) != struct.pack("<d", two)
        for first, second in zip(fresh, cached, strict=True)
        for one, two in zip(first, second, strict=True)
    )
    measured(
        "F-06", f"3,000 pairs twice, {store}", "identical bits", f"{different} differ, {scored_again} scored again"
    )
    assert (different, scored_again, sum(map(len, fresh))) == (0, 0, 3_000)


@pytest.mark.promise("F-07")
async def test_corrupt_values_are_misses_and_counted(redis_server: RedisServer, measured: Measured) -> None:
    async with served(cache=redis_server.url, cache_timeout_seconds=5.0) as server:
        right = await ask(server, "query", DOCUMENTS)
        await until(lambda: redis_server.send("DBSIZE") == b":10")
        spoil(redis_server)
        pairs = server.engine.pairs
        again = await ask(server, "query", DOCUMENTS)
        corrupt = server.metric("reranker_cache_errors_total", kind="corrupt")
        scored = server.engine.pairs - pairs
        await asyncio.sleep(0.2)
        assert await ask(server, "query", DOCUMENTS) == right
        assert server.engine.pairs == pairs + scored
    measured(
        "F-07", "10 values spoiled in 5 ways", "miss + counter", f"{scored} scored again, counter +{corrupt:.0f}"
    )
    assert again == right
    assert (corrupt, scored) == (10, 10)


def spoil(redis_server: RedisServer) -> None:
    """Too short, another version, NaN, another key's value, empty: two values each."""
    with redis.Redis.from_url(redis_server.url) as client:
        keys = sorted(client.keys("rerankd:score:*"))
        values = [client.get(key) for key in keys]
        assert [len(value) for value in values] == [Codec().value_bytes] * 10
        for number, (key, value) in enumerate(zip(keys, values, strict=True)):
            nan = value[:1] + struct.pack("<d", float("nan")) + value[9:]
            wrong = [value[:-1], b"\x02" + value[1:], nan, values[number - 1], b""][number % 5]
            client.set(key, wrong)


@pytest.mark.promise("F-10")
async def test_a_full_redis_refuses_writes_and_still_answers_look_ups(
    redis_server: RedisServer, measured: Measured
) -> None:
    async with served(cache=redis_server.url, cache_timeout_seconds=5.0) as server:
        known = await ask(server, "query", DOCUMENTS)
        await until(lambda: redis_server.send("DBSIZE") == b":10")
        redis_server.send("CONFIG", "SET", "maxmemory-policy", "noeviction")
        redis_server.send("CONFIG", "SET", "maxmemory", "1mb")
        for number in range(20):
            await ask(server, f"other {number}", DOCUMENTS)
        await until(lambda: server.metric("reranker_cache_errors_total", kind="refused") == 200)
        pairs = server.engine.pairs
        assert await ask(server, "query", DOCUMENTS) == known
        hits = 10 - (server.engine.pairs - pairs)
        state = server.service.lifecycle.state
    measured(
        "F-10",
        "noeviction and full",
        "writes fail silently, reads fine",
        f"200 writes refused, {hits}/10 hits, {state}",
    )
    assert (hits, state) == (10, State.READY)


FILL = """
import hashlib, random
from prometheus_client import CollectorRegistry, Counter
from rerankd.cache.base import CachedScore
from rerankd.cache.memory import ENTRY_BYTES, MemoryCache

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

capacity = 16 * 2**20
cache = MemoryCache(capacity, 3600, Counter("evictions", "of a test", registry=CollectorRegistry()))
before = resident()
for number in range(4 * capacity // ENTRY_BYTES):
    key = hashlib.sha256(number.to_bytes(8, "little")).digest()
    cache.put_many({key: CachedScore(random.random(), 300 + number % 500, False)})
print((resident() - before) / capacity)
"""


@pytest.mark.promise("F-09")
def test_the_cache_in_memory_stays_within_its_bound(measured: Measured) -> None:
    run = subprocess.run([sys.executable, "-c", FILL], capture_output=True, text=True, check=True)
    share = float(run.stdout)
    measured("F-09", "four times the capacity put in", "RSS within the bound + 10 %", f"{share:.0%} of the bound")
    assert share < 1.1


async def test_two_replicas_share_what_they_know(redis_server: RedisServer) -> None:
    async with served(cache=redis_server.url, cache_timeout_seconds=5.0) as one:
        first = await ask(one, "query", DOCUMENTS)
        await until(lambda: redis_server.send("DBSIZE") == b":10")
        async with served(cache=redis_server.url, cache_timeout_seconds=5.0) as two:
            assert await ask(two, "query", DOCUMENTS) == first
            assert two.engine.pairs == 0


async def test_a_flush_deletes_the_scores_and_nothing_else_in_redis(redis_server: RedisServer) -> None:
    async with served(cache=redis_server.url, cache_timeout_seconds=5.0) as server:
        for number in range(110):
            await ask(server, f"other {number}", DOCUMENTS)
        await ask(server, "query", DOCUMENTS)
        redis_server.send("SET", "somebody:else", "value")
        await until(lambda: redis_server.send("DBSIZE") == b":1111")
        await server.service.flush_cache()
        assert redis_server.send("DBSIZE") == b":1"
        pairs = server.engine.pairs
        await ask(server, "query", DOCUMENTS)
        assert server.engine.pairs == pairs + 10
