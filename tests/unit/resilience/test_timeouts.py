from __future__ import annotations

import asyncio
import socket
import time

import pytest

from rerankd.resilience.timeouts import with_timeout


async def answer(seconds: float, value: int = 7) -> int:
    await asyncio.sleep(seconds)
    return value


async def test_what_is_done_in_time_is_the_result() -> None:
    assert await with_timeout(5, answer(0.001)) == 7


async def test_what_takes_longer_is_cancelled() -> None:
    ended = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await with_timeout(0.01, slow())
    assert time.monotonic() - started < 5
    await asyncio.wait_for(ended.wait(), 5)


async def test_an_answer_that_a_late_loop_finds_beside_the_alarm_counts() -> None:
    here, there = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=here)

    async def ask() -> bytes:
        return await reader.readexactly(1)

    waiting = asyncio.create_task(with_timeout(0.02, ask()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    there.send(b"x")
    time.sleep(0.1)  # noqa: ASYNC251 (the loop is late, which is what this is about)
    assert await waiting == b"x"
    writer.close()
    await writer.wait_closed()
    there.close()


async def test_an_error_comes_through_and_a_cancellation_goes_in() -> None:
    async def fails() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await with_timeout(5, fails())
    inner = asyncio.ensure_future(answer(60))
    task = asyncio.create_task(with_timeout(60, asyncio.wait_for(inner, 60)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait((inner,), timeout=5)
    assert inner.cancelled()
