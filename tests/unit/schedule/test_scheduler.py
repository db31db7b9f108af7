from __future__ import annotations

import asyncio
import time

import pytest
from tests.scheduling import Bench, fake_engine, is_right, make_work, running

from rerankd.engine.fake import FakeScript
from rerankd.errors import Draining, EngineDead, NotReady, Overloaded
from rerankd.observe.metrics import Metrics
from rerankd.schedule.scheduler import ScheduleOptions, Scheduler


async def test_outcomes_come_in_the_order_of_the_pairs() -> None:
    async with running() as bench:
        work = make_work(50)
        assert is_right(work, await bench.scheduler.score(work))


async def test_requests_at_once_share_batches() -> None:
    async with running() as bench:
        works = [make_work(5, seed=seed) for seed in range(40)]
        scored = await asyncio.gather(*(bench.scheduler.score(work) for work in works))
        assert all(map(is_right, works, scored))
        assert bench.engine.passes <= 3


async def test_a_work_without_pairs_is_done_at_once() -> None:
    async with running() as bench:
        assert (await bench.scheduler.score(make_work(0))).outcomes == ()


async def test_times_say_how_long_it_waited_and_ran() -> None:
    async with running(FakeScript(seconds_per_batch=0.05)) as bench:
        first = asyncio.create_task(bench.scheduler.score(make_work(1)))
        await asyncio.sleep(0.01)
        second = await bench.scheduler.score(make_work(1, seed=1))
        assert (await first).queue_seconds < second.queue_seconds
        assert second.queue_seconds > 0.03
        assert second.engine_seconds > 0.049


async def test_work_is_refused_before_the_engine_is_warm() -> None:
    scheduler = Scheduler(fake_engine(), ScheduleOptions(queue_tokens=1000), Metrics(), print)
    with pytest.raises(NotReady):
        await scheduler.score(make_work())
    await scheduler.stop()


async def test_an_engine_that_does_not_load_says_why() -> None:
    engine = fake_engine()

    def fail() -> None:
        raise FileNotFoundError("no weights")

    engine.load = fail  # type: ignore[method-assign]
    scheduler = Scheduler(engine, ScheduleOptions(queue_tokens=1000), Metrics(), print)
    with pytest.raises(FileNotFoundError):
        await scheduler.start()
    assert scheduler.state == "stopped"


async def test_draining_finishes_what_waits_and_refuses_the_rest() -> None:
    async with running(FakeScript(seconds_per_batch=0.02)) as bench:
        tasks = [asyncio.create_task(bench.scheduler.score(make_work(3, seed=seed))) for seed in range(6)]
        await asyncio.sleep(0)
        drained = asyncio.create_task(bench.scheduler.drain())
        await asyncio.sleep(0)
        with pytest.raises(Draining):
            await bench.scheduler.score(make_work())
        await drained
        assert all(len(task.result().outcomes) == 3 for task in tasks)


async def test_stopping_answers_whoever_still_waits() -> None:
    async with running() as bench:
        bench.engine.hold()
        task = asyncio.create_task(bench.scheduler.score(make_work()))
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.05, bench.engine.release)
        await bench.scheduler.stop()
        with pytest.raises(Draining):
            await task
        assert bench.deaths == []


async def test_stopping_twice_is_the_same_as_once() -> None:
    async with running() as bench:
        await bench.scheduler.stop()
        await bench.scheduler.stop()
        assert bench.scheduler.state == "stopped"


async def test_a_dead_scheduler_refuses_at_once() -> None:
    async with running(FakeScript(die_after=1)) as bench:
        await bench.scheduler.score(make_work(seed=1))
        for seed in (2, 3):
            with pytest.raises(EngineDead):
                await bench.scheduler.score(make_work(seed=seed))
        assert bench.engine.passes == 2
        assert len(bench.deaths) == 1


async def learn_speed(bench: Bench) -> None:
    await bench.scheduler.score(make_work(20, length=90, prefix=10, seed=99))


async def test_the_wait_is_estimated_from_full_batches() -> None:
    async with running(FakeScript(seconds_per_token=0.0001), max_batch_tokens=1000) as bench:
        assert bench.scheduler.estimated_wait(make_work(10)) == 0
        await learn_speed(bench)
        assert 0.05 < bench.scheduler.estimated_wait(make_work(10, length=99)) < 0.5


async def test_a_refusal_names_the_time_that_the_backlog_takes() -> None:
    async with running(FakeScript(seconds_per_token=0.00025), max_batch_tokens=1000, queue_requests=2) as bench:
        await learn_speed(bench)
        waiting = [asyncio.create_task(bench.scheduler.score(make_work(40, length=90, seed=s))) for s in (1, 2)]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded) as refused:
            await bench.scheduler.score(make_work(1, seed=5))
        assert 1.2 < (refused.value.retry_after or 0) < 5
        for task in waiting:
            task.cancel()


async def test_an_idle_engine_refuses_nothing_so_that_a_wrong_speed_is_corrected() -> None:
    async with running(FakeScript(seconds_per_token=0.0005), max_batch_tokens=1000) as bench:
        await learn_speed(bench)
        bench.engine.script = FakeScript()
        work = make_work(40, length=90, seed=7, seconds=0.5)
        assert bench.scheduler.estimated_wait(work) > 0.5
        assert is_right(work, await bench.scheduler.score(work))
        assert bench.scheduler.estimated_wait(work) < 0.5


async def test_an_idle_engine_that_fails_three_checks_in_a_row_is_dead() -> None:
    async with running(check_seconds=0.02) as bench:
        answers = iter([False, False, True, False, False, False])
        bench.engine.health = lambda: next(answers)  # type: ignore[method-assign]
        await asyncio.sleep(0.11)
        assert bench.scheduler.state == "ready"
        await asyncio.sleep(0.05)
        assert bench.scheduler.state == "dead"
        assert "health checks" in bench.deaths[0]


async def test_a_snapshot_holds_numbers_alone() -> None:
    async with running() as bench:
        bench.engine.hold()
        task = asyncio.create_task(bench.scheduler.score(make_work(3, seconds=time.monotonic() + 30)))
        await asyncio.sleep(0.01)
        assert bench.scheduler.snapshot() == {
            "state": "ready",
            "waiting_requests": 1,
            "waiting_tokens": 0,
            "queue_tokens": 1_000_000,
            "batch_tokens": 16_384,
            "tokens_per_second": None,
        }
        bench.engine.release()
        await task
