"""Section A: what happens when more is asked than can be done."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.figures import Measured
from tests.scheduling import Bench, is_right, make_request, running

from rerankd.engine.fake import FakeScript
from rerankd.errors import Overloaded, TooLarge


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def timed(bench: Bench, **fields: object) -> float:
    started = time.monotonic()
    work = make_request(**fields)  # type: ignore[arg-type]
    assert is_right(work, await bench.score(work))
    return time.monotonic() - started


@pytest.mark.promise("A-01")
async def test_the_queue_rejects_exactly_the_overflow(measured: Measured) -> None:
    async with running(queue_requests=8) as bench:
        bench.engine.hold()
        works = [make_request(3, seed=seed) for seed in range(10)]
        started = time.monotonic()
        tasks = [asyncio.create_task(bench.score(work)) for work in works]
        await asyncio.sleep(0.02)
        rejected = [task for task in tasks if task.done()]
        seconds = time.monotonic() - started
        assert [type(task.exception()) for task in rejected] == [Overloaded] * 2
        bench.engine.release()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        right = sum(
            is_right(work, done)
            for work, done in zip(works, results, strict=True)
            if not isinstance(done, BaseException)
        )
    measured(
        "A-01",
        "the queue rejects exactly the overflow",
        "2 x 429 < 50 ms, 8 x 200",
        f"{len(rejected)} x 429 < {seconds * 1e3:.0f} ms, {right} x 200",
    )
    assert right == 8


@pytest.mark.promise("A-02")
async def test_backpressure_is_followed_by_recovery(measured: Measured) -> None:
    async with running(queue_requests=2) as bench:
        bench.engine.hold()
        held = [asyncio.create_task(bench.score(make_request(seed=seed))) for seed in range(2)]
        await asyncio.sleep(0.01)
        waits = []
        for seed in range(10, 20):
            with pytest.raises(Overloaded) as refused:
                await bench.score(make_request(seed=seed))
            waits.append(refused.value.retry_after or 0)
        bench.engine.release()
        await asyncio.gather(*held)
        await bench.score(make_request(seed=30))
    measured(
        "A-02",
        "back-pressure, then recovery",
        "10/10 429, Retry-After >= 1",
        f"{len(waits)}/10, Retry-After {min(waits):g}",
    )
    assert min(waits) >= 1


@pytest.mark.promise("A-03")
async def test_a_request_is_admitted_whole_or_not_at_all(measured: Measured) -> None:
    async with running(queue_tokens=60 * 20) as bench:
        with pytest.raises(TooLarge):
            await bench.score(make_request(100, length=20, prefix=0))
    async with running(queue_tokens=160 * 20) as bench:
        bench.engine.hold()
        first = asyncio.create_task(bench.score(make_request(1, seed=1)))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(bench.score(make_request(100, length=20, prefix=0, seed=2)))
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await bench.score(make_request(100, length=20, prefix=0, seed=3))
        bench.engine.release()
        await asyncio.gather(first, second)
        measured(
            "A-03",
            "100 documents, room for 60",
            "429, 0 pairs scored",
            f"429, {bench.engine.pairs - 101} pairs scored",
        )
        assert bench.engine.pairs == 101


@pytest.mark.promise("A-04")
async def test_more_than_the_whole_queue_is_too_large_not_overloaded(measured: Measured) -> None:
    async with running(queue_tokens=1000) as bench:
        with pytest.raises(TooLarge) as refused:
            await bench.score(make_request(100, length=20))
        assert bench.engine.pairs == 0
    measured(
        "A-04",
        "more than the whole queue",
        "413 names the setting",
        f"{refused.value.status} names {refused.value.setting}",
    )
    assert refused.value.setting == "queue_tokens"


@pytest.mark.promise("A-07")
@pytest.mark.slow  # judged by the clock: the machine must be quiet
async def test_a_small_request_is_not_starved_by_a_large_one(measured: Measured) -> None:
    batch_seconds = 0.05
    async with running(FakeScript(seconds_per_batch=batch_seconds), max_batch_tokens=1000) as bench:
        large = asyncio.create_task(bench.score(make_request(1000, length=50, seed=1000)))
        await asyncio.sleep(0.05)
        small = []
        for seed in range(20):
            small.append(await timed(bench, documents=1, seed=seed))
        assert not large.done()
        await large
    batches = percentile(small, 0.95) / batch_seconds
    measured(
        "A-07",
        "20 one-document requests beside one of 1,000",
        "p95 <= 3 batch times",
        f"p95 {batches:.1f} batch times",
    )
    assert batches <= 3


@pytest.mark.slow  # judged by the clock: the machine must be quiet
async def test_twenty_small_requests_at_once_share_one_batch_with_a_large_one() -> None:
    async with running(FakeScript(seconds_per_batch=0.05), max_batch_tokens=2000) as bench:
        large = asyncio.create_task(bench.score(make_request(1000, length=50, seed=1000)))
        await asyncio.sleep(0.05)
        small = await asyncio.gather(*(timed(bench, documents=1, seed=seed) for seed in range(20)))
        assert max(small) <= 3 * 0.05
        await large


async def flood(bench: Bench, seconds: float) -> int:
    """Tenant A keeps as many requests in the queue as it may; how often it was refused."""
    refused, seed, tasks = 0, 10_000, set()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        seed += 1
        task = asyncio.create_task(bench.score(make_request(10, seed=seed, tenant="A")))
        tasks.add(task)
        await asyncio.sleep(0.001)
        refused += sum(isinstance(task.exception(), Overloaded) for task in tasks if task.done())
        tasks = {task for task in tasks if not task.done()}
    await asyncio.gather(*tasks, return_exceptions=True)
    return refused


@pytest.mark.promise("A-08")
@pytest.mark.slow  # judged by the clock: the machine must be quiet
async def test_a_flood_of_one_tenant_leaves_the_other_its_share(measured: Measured) -> None:
    """B asks ten times a second here, so that a short test has enough answers for a p95."""
    async with running(FakeScript(seconds_per_batch=0.03), max_batch_tokens=2000, queue_requests=32) as bench:
        idle = [await timed(bench, documents=1, seed=seed, tenant="B") for seed in range(20)]
        flooding = asyncio.create_task(flood(bench, 2.5))
        await asyncio.sleep(0.3)
        busy = []
        for seed in range(100, 120):
            busy.append(await timed(bench, documents=1, seed=seed, tenant="B"))
            await asyncio.sleep(0.05)
        refused = await flooding
    factor = percentile(busy, 0.95) / percentile(idle, 0.95)
    measured(
        "A-08",
        "tenant A floods, B sends now and then",
        "B: 0 x 429, p95 <= 2 x idle",
        f"B: 0 x 429, p95 {factor:.2f} x idle; A: {refused} x 429",
    )
    assert refused > 0
    assert factor <= 2.1  # one running batch and its own: 2 is the ideal, timers add a little


@pytest.mark.promise("A-09")
async def test_a_hopeless_deadline_is_refused_at_once(measured: Measured) -> None:
    async with running(FakeScript(seconds_per_token=0.0002), max_batch_tokens=1000) as bench:
        await bench.score(make_request(20, length=90, seed=99))
        backlog = [asyncio.create_task(bench.score(make_request(20, length=50, seed=seed))) for seed in range(10)]
        await asyncio.sleep(0.02)
        seen = bench.engine.pairs
        started = time.monotonic()
        with pytest.raises(Overloaded) as refused:
            await bench.score(make_request(20, length=50, seed=50, seconds=0.05))
        seconds = time.monotonic() - started
        assert bench.engine.pairs == seen
        for task in backlog:
            task.cancel()
    measured(
        "A-09",
        "deadline 50 ms, backlog 2 s",
        "429 in < 20 ms, 0 pairs",
        f"429 in {seconds * 1e3:.1f} ms, 0 pairs, Retry-After {refused.value.retry_after:.1f}",
    )
    assert seconds < 0.02
