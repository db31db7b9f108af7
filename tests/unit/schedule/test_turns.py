from __future__ import annotations

import asyncio
import math
import time

import pytest

from rerankd.errors import Overloaded
from rerankd.schedule.turns import Line, TurnLimits, Turns

FOREVER = math.inf


class Bench:
    """One thread's turns; notes who had one, and makes the first wait until ``leave`` is set."""

    def __init__(self, **limits: float) -> None:
        self.turns = Turns(1, TurnLimits(**limits))  # type: ignore[arg-type]
        self.order: list[str] = []
        self.leave = asyncio.Event()

    async def request(self, name: str, slices: int, size: int = 100, tenant: str = "") -> None:
        line = self.turns.enter(tenant, slices * size, FOREVER)
        try:
            await asyncio.gather(*(self.turns.run(line, size, lambda: self.slice(name)) for _ in range(slices)))
        finally:
            self.turns.leave(line)

    async def slice(self, name: str) -> None:
        await self.leave.wait()
        self.order.append(name)

    def start(self, *arguments: object, **more: object) -> asyncio.Task[None]:
        return asyncio.create_task(self.request(*arguments, **more))  # type: ignore[arg-type]


async def test_what_is_begun_is_ended_and_the_shortest_has_every_other_turn() -> None:
    bench = Bench()
    tasks = [bench.start("one", 6), bench.start("two", 4), bench.start("short", 2)]
    await asyncio.sleep(0.01)
    bench.leave.set()
    await asyncio.gather(*tasks)
    assert bench.order == ["one", "short", "one", "short", "one", "one", "one", "one", *["two"] * 4]


async def test_a_caller_that_floods_stands_in_its_own_way() -> None:
    bench = Bench()
    tasks = [bench.start(f"flood {number}", 1, tenant="a") for number in range(5)]
    await asyncio.sleep(0.01)
    tasks.append(bench.start("other", 1, size=200, tenant="b"))
    await asyncio.sleep(0.01)
    bench.leave.set()
    await asyncio.gather(*tasks)
    assert bench.order.index("other") <= 2


async def test_no_caller_takes_more_than_its_share_while_another_waits() -> None:
    turns = Turns(1, TurnLimits(characters=1000))
    turns.enter("a", 400, FOREVER)
    turns.enter("a", 400, FOREVER)
    turns.enter("b", 100, FOREVER)
    with pytest.raises(Overloaded, match="share"):
        turns.enter("a", 200, FOREVER)
    turns.enter("b", 300, FOREVER)
    with pytest.raises(Overloaded, match="too many characters"):
        turns.enter("c", 200, FOREVER)


async def test_a_hopeless_deadline_is_refused_but_never_by_idle_threads() -> None:
    turns = Turns(1, TurnLimits())
    line = turns.enter("", 10_000, FOREVER)
    await turns.run(line, 10_000, lambda: asyncio.sleep(0.01))
    turns.leave(line)
    soon = time.monotonic() + 0.1
    turns.leave(turns.enter("", 10_000_000, soon))
    turns.enter("", 1_000_000, FOREVER)
    with pytest.raises(Overloaded, match="longer than the deadline"):
        turns.enter("", 1_000_000, soon)
    assert isinstance(turns.enter("", 1_000, soon), Line)


async def test_turns_of_requests_that_left_are_not_lost() -> None:
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
    assert not bench.turns._lines
    assert bench.turns._free == 1
