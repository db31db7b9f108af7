"""Section B: clients that leave, and deadlines that pass."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from tests.figures import Measured
from tests.scheduling import is_right, make_request, running
from tests.served import until

from rerankd.engine.fake import FakeScript
from rerankd.errors import DeadlineExceeded
from rerankd.types import Outcome


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def cancelled(task: asyncio.Task[list[Outcome]]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_queued_work_never_reaches_the_engine() -> None:
    async with running() as bench:
        bench.engine.hold()
        first = asyncio.create_task(bench.score(make_request(1)))
        await asyncio.sleep(0.01)
        gone = asyncio.create_task(bench.score(make_request(50, seed=1)))
        await settle()
        await cancelled(gone)
        bench.engine.release()
        await first
        await bench.score(make_request(1, seed=2))
        assert bench.engine.pairs == 2
        assert bench.metric("reranker_dropped_pairs_total", reason="cancelled") == 50


async def test_a_flood_that_left_does_not_delay_the_next_request() -> None:
    async with running(FakeScript(seconds_per_batch=0.05), max_batch_tokens=1000) as bench:
        tasks = [asyncio.create_task(bench.score(make_request(10, seed=seed))) for seed in range(200)]
        await asyncio.sleep(0.12)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        started = time.monotonic()
        await bench.score(make_request(1, seed=999))
        assert time.monotonic() - started < 1
        assert bench.nothing_is_left()


@pytest.mark.promise("B-03")
async def test_cancelling_one_of_a_running_batch_does_not_hurt_its_neighbours(measured: Measured) -> None:
    async with running() as bench:
        bench.engine.hold()
        starter = asyncio.create_task(bench.score(make_request(1, seed=100)))
        await asyncio.sleep(0.01)
        works = [make_request(4, seed=seed) for seed in range(8)]
        tasks = [asyncio.create_task(bench.score(work)) for work in works]
        await settle()
        bench.engine.release()
        bench.engine.hold()
        await asyncio.sleep(0.01)
        await cancelled(tasks[3])
        bench.engine.release()
        await starter
        rest = [index for index in range(8) if index != 3]
        right = [is_right(works[index], await tasks[index]) for index in rest]
        assert bench.nothing_is_left()
    measured("B-03", "cancel 1 of 8 in a running batch", "7/7 right", f"{sum(right)}/7 right")
    assert all(right)


async def test_cancelling_after_the_answer_changes_nothing() -> None:
    async with running() as bench:
        task = asyncio.create_task(bench.score(make_request(3)))
        await task
        task.cancel()
        await settle()
        assert bench.nothing_is_left()


@pytest.mark.promise("B-06")
async def test_a_deadline_in_the_queue_is_kept_and_costs_no_pass(measured: Measured) -> None:
    async with running() as bench:
        bench.engine.hold()
        held = asyncio.create_task(bench.score(make_request(1)))
        await asyncio.sleep(0.01)
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await bench.score(make_request(5, seed=1, seconds=0.1))
        seconds = time.monotonic() - started
        bench.engine.release()
        await held
        await bench.score(make_request(1, seed=2))
        assert bench.engine.pairs == 2
        assert bench.metric("reranker_dropped_pairs_total", reason="deadline") == 5
        assert bench.nothing_is_left()
    measured(
        "B-06",
        "deadline 100 ms while the engine is held",
        "504 in 100..200 ms, 0 pairs",
        f"504 in {seconds * 1e3:.0f} ms, 0 pairs",
    )
    assert 0.1 <= seconds <= 0.2


async def test_a_deadline_that_passes_in_a_running_batch_is_kept_too() -> None:
    async with running(FakeScript(seconds_per_batch=0.3)) as bench:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await bench.score(make_request(5, seconds=0.1))
        assert time.monotonic() - started < 0.2


@pytest.mark.promise("B-07")
async def test_a_shared_pair_survives_one_cancel(measured: Measured) -> None:
    async with running() as bench:
        bench.engine.hold()
        starter = asyncio.create_task(bench.score(make_request(1, seed=100)))
        await asyncio.sleep(0.01)
        work = make_request(3)
        leaves = asyncio.create_task(bench.score(work))
        stays = asyncio.create_task(bench.score(make_request(3)))
        await settle()
        await cancelled(leaves)
        bench.engine.release()
        await starter
        right = is_right(work, await stays)
        assert bench.engine.pairs == 4
        assert bench.nothing_is_left()
    measured(
        "B-07",
        "two wait for one pair, one leaves",
        "the other gets its score",
        "right score, scored once" if right else "wrong",
    )
    assert right


async def test_cancels_at_random_points_leave_nothing_behind() -> None:
    chance = random.Random(7)
    async with running(FakeScript(seconds_per_batch=0.001), max_batch_tokens=400) as bench:

        async def one(seed: int) -> None:
            task = asyncio.create_task(bench.score(make_request(chance.randrange(1, 9), seed=seed % 40)))
            await asyncio.sleep(chance.random() * 0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        await asyncio.gather(*(one(seed) for seed in range(300)))
        # The last batch may still be with the engine: it is finished, for nobody.
        async with asyncio.timeout(5):
            while not bench.nothing_is_left():  # noqa: ASYNC110 (what is waited for has no event)
                await asyncio.sleep(0.005)
        work = make_request(5, seed=5)
        assert is_right(work, await bench.score(work))


@pytest.mark.promise("F-08")
async def test_identical_requests_at_once_are_scored_once(measured: Measured) -> None:
    async with running() as bench:
        work = make_request(10)
        bench.engine.hold()
        tasks = [asyncio.create_task(bench.score(make_request(10))) for _ in range(100)]
        await until(lambda: bench.thread.waiting == 100 and bench.engine.passes)
        bench.engine.release()
        scored = await asyncio.gather(*tasks)
        assert all(is_right(work, one) for one in scored)
        assert bench.metric("reranker_cache_shared_total") == 990
        measured(
            "F-08",
            "100 identical requests at once",
            "1 engine call",
            f"{bench.engine.passes} call, {bench.engine.pairs} pairs",
        )
        assert (bench.engine.passes, bench.engine.pairs) == (1, 10)


async def test_a_failure_wakes_all_who_share_the_pair_and_is_not_remembered_as_a_score() -> None:
    async with running(FakeScript(fail_on=(666, 667))) as bench:
        # Held until all of them wait: a request that came after the failure would be a second one.
        bench.engine.hold()
        tasks = [asyncio.create_task(bench.score(make_request(1, marked=[0]))) for _ in range(10)]
        await until(lambda: bench.thread.waiting == 10 and bench.engine.passes)
        bench.engine.release()
        scored = await asyncio.gather(*tasks)
        assert all(not isinstance(one[0], float) for one in scored)
        bench.engine.script = FakeScript()
        assert isinstance((await bench.score(make_request(1, marked=[0])))[0], float)
