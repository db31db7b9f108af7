from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from rerankd.errors import ClientClosed, Draining
from rerankd.http.in_flight import InFlight


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


async def never_leaves() -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


def leaves_after(seconds: float) -> Any:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(seconds)
        return {"type": "http.disconnect"}

    return receive


class Work:
    """Takes its time and notes whether it was cancelled."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.cancelled = False

    async def run(self) -> str:
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "done"


async def test_a_client_that_stays_gets_its_result() -> None:
    in_flight = InFlight()
    assert await in_flight.run(Work(0.01).run(), never_leaves) == "done"
    assert len(in_flight) == 0
    assert in_flight.idle.is_set()


async def test_the_work_of_a_client_that_left_is_cancelled() -> None:
    work = Work(5)
    with pytest.raises(ClientClosed):
        await InFlight().run(work.run(), leaves_after(0.01))
    assert work.cancelled


async def test_the_server_may_give_up_all_handlers_for_a_reason_that_is_answered() -> None:
    in_flight = InFlight()
    running = [asyncio.create_task(in_flight.run(Work(5).run(), never_leaves)) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert len(in_flight) == 3
    assert not in_flight.idle.is_set()
    in_flight.give_up(Draining("the server ended"))
    outcomes = await asyncio.gather(*running, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Draining] * 3
    await asyncio.wait_for(in_flight.idle.wait(), 1)


async def test_a_cancel_from_outside_stays_a_cancel() -> None:
    task = asyncio.create_task(InFlight().run(Work(5).run(), never_leaves))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_after_a_client_left_its_task_can_still_wait() -> None:
    with pytest.raises(ClientClosed):
        await InFlight().run(Work(5).run(), leaves_after(0))
    # A cancellation that was answered must not strike again at the next await.
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_no_listener_is_left_behind() -> None:
    before = len(asyncio.all_tasks())
    for _ in range(10):
        await InFlight().run(Work(0).run(), never_leaves)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before
