"""Section D: nothing dies or hangs in silence."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.figures import Measured
from tests.scheduling import POISON, is_right, make_request, running

from rerankd.core.engine_core import EngineCore
from rerankd.engine.base import Batch, EngineFault
from rerankd.engine.fake import FakeScript
from rerankd.errors import EngineDead


@pytest.mark.promise("D-02")
async def test_a_core_that_dies_answers_every_waiter(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise KeyError("a bug in the core")

    async with running() as bench:
        bench.engine.hold()
        tasks = [asyncio.create_task(bench.score(make_request(seed=seed))) for seed in range(5)]
        await asyncio.sleep(0.01)
        monkeypatch.setattr(EngineCore, "step", broken)
        late = asyncio.create_task(bench.score(make_request(seed=9)))
        await asyncio.sleep(0)
        started = time.monotonic()
        bench.engine.release()
        results = await asyncio.gather(*tasks, late, return_exceptions=True)
        seconds = time.monotonic() - started
        dead = [isinstance(result, EngineDead) for result in results]
        assert bench.thread.state == "dead"
        assert len(bench.deaths) == 1
    measured(
        "D-02",
        "the core raises",
        "waiters answered < 1 s",
        f"{sum(dead)} waiter 503 in {seconds * 1e3:.0f} ms",
    )
    assert dead[-1]
    assert seconds < 1


@pytest.mark.promise("D-03")
async def test_a_hung_engine_is_declared_dead(measured: Measured) -> None:
    async with running(FakeScript(hang_on=POISON), engine_timeout_seconds=0.3) as bench:
        work = make_request(5)
        assert is_right(work, await bench.score(work))
        started = time.monotonic()
        hung = asyncio.create_task(bench.score(make_request(1, seed=1, marked=[0])))
        waiting = asyncio.create_task(bench.score(make_request(1, seed=2)))
        results = await asyncio.gather(hung, waiting, return_exceptions=True)
        seconds = time.monotonic() - started
        assert all(isinstance(result, EngineDead) for result in results)
        assert "did not return" in bench.deaths[0]
        assert bench.metric("reranker_engine_failures_total", kind="hang") == 1
    measured(
        "D-03",
        "score never returns, limit 0.3 s",
        "declared dead at the limit",
        f"2/2 waiters 503 after {seconds:.2f} s",
    )
    assert seconds < 0.5


async def test_a_slow_engine_is_not_a_hung_one() -> None:
    async with running(FakeScript(seconds_per_batch=0.25), engine_timeout_seconds=0.3) as bench:
        await bench.score(make_request())
        bench.engine.script = FakeScript(seconds_per_batch=0.4)
        work = make_request(seed=1)
        assert is_right(work, await bench.score(work))


async def test_a_pair_longer_than_the_budget_may_take_longer() -> None:
    async with running(FakeScript(seconds_per_batch=0.7), max_batch_tokens=20, engine_timeout_seconds=0.3) as bench:
        work = make_request(length=50)
        assert is_right(work, await bench.score(work)), "three budgets have thrice the time"
        with pytest.raises(EngineDead):
            await bench.score(make_request(length=10, seed=1))
        assert "a forward pass of 20 tokens did not return" in bench.deaths[0]


@pytest.mark.promise("D-05")
async def test_one_bad_check_does_not_kill(measured: Measured) -> None:
    async with running(check_seconds=0.005) as bench:
        checks = 0

        def alternating() -> bool:
            nonlocal checks
            checks += 1
            return checks % 2 == 0

        bench.engine.health = alternating  # type: ignore[method-assign]
        await asyncio.sleep(0.3)
        assert bench.thread.state == "ready"
    measured("D-05", "every second health check fails", "never declared dead", f"ready after {checks} checks")
    assert checks > 10


async def test_a_fault_in_the_idle_check_is_death_at_once() -> None:
    def fault() -> bool:
        raise EngineFault("the device fell off the bus")

    async with running(check_seconds=0.01) as bench:
        bench.engine.health = fault  # type: ignore[method-assign]
        await asyncio.sleep(0.1)
        assert bench.deaths == ["the device fell off the bus"]


async def test_an_engine_thread_that_is_told_to_exit_is_a_dead_engine() -> None:
    def leave(batch: Batch) -> None:
        raise SystemExit(3)

    async with running() as bench:
        bench.engine.score = leave  # type: ignore[method-assign, assignment]
        with pytest.raises(EngineDead):
            await bench.score(make_request())
        assert len(bench.deaths) == 1
