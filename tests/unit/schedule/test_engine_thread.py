from __future__ import annotations

import asyncio
import threading

import pytest

from rerankd.schedule.engine_thread import EngineThread


async def test_all_calls_run_on_one_thread_that_is_not_the_loops() -> None:
    thread = EngineThread()
    seen = {await thread.call(threading.get_ident) for _ in range(5)}
    assert len(seen) == 1
    assert threading.get_ident() not in seen
    thread.end()


@pytest.mark.parametrize(("error", "heard"), [(ValueError("x"), ValueError), (SystemExit(3), RuntimeError)])
async def test_what_a_call_raises_reaches_the_caller_and_the_thread_goes_on(
    error: BaseException, heard: type[Exception]
) -> None:
    def fail() -> None:
        raise error

    thread = EngineThread()
    with pytest.raises(heard):
        await thread.call(fail)
    assert await thread.call(lambda: 7) == 7
    thread.end()


async def test_a_caller_that_left_does_not_stop_the_call() -> None:
    thread, go = EngineThread(), threading.Event()
    caller = asyncio.create_task(thread.call(go.wait, 5))
    await asyncio.sleep(0.01)
    caller.cancel()
    go.set()
    assert await thread.call(lambda: "next") == "next"
    thread.end()


async def test_the_thread_ends_when_told() -> None:
    thread = EngineThread()
    thread.end()
    thread._thread.join(timeout=1)
    assert not thread._thread.is_alive()
