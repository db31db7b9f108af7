from __future__ import annotations

import asyncio

from rerankd.prompt.fair_semaphore import FairSemaphore, Waiter


class Bench:
    """One slot; notes who had it, and makes the first wait until ``leave`` is set."""

    def __init__(self) -> None:
        self.semaphore = FairSemaphore(1, 100)
        self.order: list[str] = []
        self.leave = asyncio.Event()

    async def request(self, name: str, slices: int, size: int = 100, tenant: str = "") -> None:
        waiter = Waiter(tenant, slices * size)

        async def one() -> None:
            async with self.semaphore.slot(waiter, size):
                await self.leave.wait()
                self.order.append(name)

        try:
            await asyncio.gather(*(one() for _ in range(slices)))
        finally:
            self.semaphore.leave(waiter)

    def start(self, *arguments: object, **more: object) -> asyncio.Task[None]:
        return asyncio.create_task(self.request(*arguments, **more))  # type: ignore[arg-type]


async def test_what_is_begun_is_ended_and_a_short_one_goes_first() -> None:
    bench = Bench()
    tasks = [bench.start("one", 6), bench.start("two", 6), bench.start("short", 1)]
    await asyncio.sleep(0.01)
    bench.leave.set()
    await asyncio.gather(*tasks)
    assert bench.order == ["one", "short", *["one"] * 5, *["two"] * 6]


async def test_a_caller_that_floods_stands_in_its_own_way() -> None:
    bench = Bench()
    tasks = [bench.start(f"flood {number}", 1, tenant="a") for number in range(5)]
    await asyncio.sleep(0.01)
    tasks.append(bench.start("other", 1, size=200, tenant="b"))
    await asyncio.sleep(0.01)
    bench.leave.set()
    await asyncio.gather(*tasks)
    assert bench.order.index("other") <= 3


async def test_the_wait_is_estimated_from_what_is_ahead() -> None:
    semaphore = FairSemaphore(1, 100)
    assert semaphore.is_idle
    async with semaphore.slot(Waiter("", 100), 100):
        await asyncio.sleep(0.01)
    async with semaphore.slot(Waiter("", 100), 100):
        waiting = Waiter("", 1000)
        task = asyncio.create_task(semaphore.slot(waiting, 1000).__aenter__())
        await asyncio.sleep(0)
        assert semaphore.seconds_until_done("", 1000) >= 0.2
        assert semaphore.seconds_until_done("", 10) < 0.1
        task.cancel()


async def test_a_slice_says_something_of_the_pace_from_a_sixty_fourth_of_the_usual_size_on() -> None:
    semaphore = FairSemaphore(1, 6400)
    for size, tells in ((99, False), (100, True)):
        async with semaphore.slot(Waiter("", size), size):
            await asyncio.sleep(0.01)
        assert (semaphore.seconds_until_done("", 6400) > 0) == tells


async def test_slots_of_requests_that_left_are_not_lost() -> None:
    bench = Bench()
    first = bench.start("first", 1)
    await asyncio.sleep(0.01)
    leaving = [bench.start("left", 2) for _ in range(3)]
    await asyncio.sleep(0.01)
    leaving[0].cancel()
    bench.leave.set()
    await first
    leaving[1].cancel()  # its turn may have come in this very moment
    leaving[2].cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    await asyncio.wait_for(bench.request("last", 1), 1)
    assert bench.order[0] == "first"
    assert bench.order[-1] == "last"
    assert bench.semaphore.is_idle


async def test_a_slot_that_is_given_in_the_moment_of_leaving_is_not_lost() -> None:
    semaphore = FairSemaphore(1, 100)
    async with semaphore.slot(Waiter("", 1), 1):
        waiting = asyncio.create_task(semaphore.slot(Waiter("", 1), 1).__aenter__())
        await asyncio.sleep(0)
    assert not semaphore.is_idle, "it has the slot and does not know it yet"
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert semaphore.is_idle
