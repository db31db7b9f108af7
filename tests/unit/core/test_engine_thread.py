from __future__ import annotations

import asyncio

import pytest
from tests.scheduling import Bench, fake_engine, is_right, make_request, running
from tests.served import until

from rerankd.core.engine_core import CoreOptions
from rerankd.core.engine_thread import EngineThread
from rerankd.engine.base import Engine
from rerankd.engine.fake import FakeScript
from rerankd.errors import Draining, EngineDead, NotReady, Overloaded
from rerankd.observe.metrics import EngineMetrics, Metrics


def thread_of(engine: Engine) -> EngineThread:
    metrics = EngineMetrics(Metrics(), "fake")
    return EngineThread(engine, metrics, CoreOptions(), lambda output: None, lambda reason: None)


async def test_times_say_how_long_it_waited_and_ran() -> None:
    async with running(FakeScript(seconds_per_batch=0.05)) as bench:
        with bench.thread.submit(make_request(1)) as first:
            await until(lambda: bench.engine.passes == 1)
            with bench.thread.submit(make_request(1, seed=1)) as second:
                await asyncio.gather(first.done, second.done)
        assert first.started - first.queued < second.started - second.queued
        assert second.ended - second.started > 0.049


async def test_requests_are_refused_before_the_engine_is_warm() -> None:
    thread = thread_of(fake_engine())
    with pytest.raises(NotReady):
        thread.submit(make_request())
    await thread.stop()


async def test_an_engine_that_does_not_load_says_why() -> None:
    engine = fake_engine()

    def fail() -> None:
        raise FileNotFoundError("no weights")

    engine.load = fail  # type: ignore[method-assign]
    thread = thread_of(engine)
    with pytest.raises(FileNotFoundError):
        await thread.start()
    assert thread.state == "stopped"


async def test_draining_finishes_what_waits_and_refuses_the_rest() -> None:
    async with running(FakeScript(seconds_per_batch=0.02)) as bench:
        tasks = [asyncio.create_task(bench.score(make_request(3, seed=seed))) for seed in range(6)]
        await asyncio.sleep(0)
        drained = asyncio.create_task(bench.thread.drain())
        await asyncio.sleep(0)
        with pytest.raises(Draining):
            await bench.score(make_request())
        await drained
        assert [len(outcomes) for outcomes in await asyncio.gather(*tasks)] == [3] * 6


async def test_stopping_answers_whoever_still_waits() -> None:
    async with running() as bench:
        bench.engine.hold()
        task = asyncio.create_task(bench.score(make_request()))
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.05, bench.engine.release)
        await bench.thread.stop()
        await bench.thread.stop()
        with pytest.raises(Draining):
            await task
        assert (bench.deaths, bench.thread.state) == ([], "stopped")


async def test_a_dead_engine_refuses_at_once() -> None:
    async with running(FakeScript(die_after=2)) as bench:
        await bench.score(make_request(seed=1))
        bench.engine.script = FakeScript(die_after=1)
        for seed in (2, 3):
            with pytest.raises(EngineDead):
                await bench.score(make_request(seed=seed))
        assert bench.engine.passes == 2
        assert len(bench.deaths) == 1


@pytest.mark.promise("S9")
async def test_the_death_of_an_engine_that_was_replaced_is_nobodys() -> None:
    async with running(FakeScript(hang_on=(666, 667)), engine_timeout_seconds=0.2) as bench:
        hung = asyncio.create_task(bench.score(make_request(1, marked=[0])))
        await until(lambda: bench.engine.passes == 1)
        bench.thread.replace()
        with pytest.raises(Draining):
            await hung
        assert (bench.deaths, bench.thread.state) == ([], "dead")


async def test_scores_that_come_too_late_are_told_all_the_same() -> None:
    async with running() as bench:
        bench.engine.hold()
        request = make_request(3)
        task = asyncio.create_task(bench.score(request))
        await until(lambda: bench.engine.passes == 1)
        task.cancel()
        bench.engine.release()
        await until(lambda: bench.outputs)
        assert is_right(request, [bench.outputs[0].outcomes[index] for index in range(3)])
        assert bench.nothing_is_left()


async def learn(bench: Bench) -> None:
    await bench.score(make_request(20, length=90, prefix=10, seed=99))


async def test_a_refusal_names_the_time_that_the_backlog_takes() -> None:
    async with running(FakeScript(seconds_per_token=0.00025), max_batch_tokens=1000, queue_requests=2) as bench:
        await learn(bench)
        waiting = [asyncio.create_task(bench.score(make_request(40, length=90, seed=seed))) for seed in (1, 2)]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded) as refused:
            await bench.score(make_request(1, seed=5))
        assert (refused.value.retry_after or 0) >= 1
        for task in waiting:
            task.cancel()


async def test_an_idle_engine_refuses_nothing_so_that_a_wrong_pace_is_corrected() -> None:
    async with running(FakeScript(seconds_per_token=0.0005), max_batch_tokens=1000) as bench:
        await learn(bench)
        bench.engine.script = FakeScript()
        request = make_request(40, length=90, seed=7, seconds=0.9)
        assert bench.thread.status.pace.seconds_for(3610, 1000) > 0.9
        assert is_right(request, await bench.score(request))
        assert bench.thread.status.pace.seconds_for(3610, 1000) < 0.9
