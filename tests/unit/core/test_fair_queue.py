from __future__ import annotations

import heapq
import itertools
import random
import sys
from collections.abc import Callable

import pytest

from rerankd.core.fair_queue import Backlog, FairQueue


def drain(queue: FairQueue[str], unit: int = 10) -> list[str]:
    """The requests in the order in which they end, served a unit at a time."""
    ended = []
    while (item := queue.first()) is not None:
        queue.serve(item, unit)
        if not queue.backlog.left(item, item.partition("/")[0]):
            queue.remove(item)
            ended.append(item)
    return ended


def push(queue: FairQueue[str], item: str, size: int, priority: int = 0) -> None:
    queue.push(item, item.partition("/")[0], size, priority)


def test_a_small_request_passes_a_large_one_that_came_before() -> None:
    queue: FairQueue[str] = FairQueue()
    push(queue, "a/large", 1000)
    queue.serve("a/large", 100)
    push(queue, "a/small", 20)
    push(queue, "b/small", 20)
    assert drain(queue) == ["b/small", "a/small", "a/large"]


def test_about_equal_requests_are_ended_one_after_the_other() -> None:
    queue: FairQueue[str] = FairQueue()
    names = [f"a/{number}" for number in range(10)]
    for number, name in enumerate(names):
        push(queue, name, 100 + number % 3)
    served = []
    while (item := queue.first()) is not None:
        queue.serve(item, 10)
        served.append(item)
        if not queue.backlog.left(item, "a"):
            queue.remove(item)
    assert sorted(names) == sorted(dict.fromkeys(served))
    assert sum(one != other for one, other in itertools.pairwise(served)) == len(names) - 1


def test_a_tenant_that_floods_stands_in_its_own_way() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        push(queue, f"flood/{number}", 50)
    for number in range(5):
        push(queue, f"other/{number}", 50)
    assert {item for item in drain(queue)[:11] if item.startswith("other")} == {f"other/{n}" for n in range(5)}


def test_a_low_priority_waits_longer_but_not_forever() -> None:
    queue: FairQueue[str] = FairQueue()
    push(queue, "a/low", 20, priority=9)
    ended: list[str] = []
    for number in range(30):
        push(queue, f"a/{number}", 20)
        item = queue.first()
        assert item is not None
        queue.serve(item, 20)
        queue.remove(item)
        ended.append(item)
    assert 0 < ended.index("a/low") <= 20


def test_a_stream_of_small_requests_does_not_starve_a_large_one() -> None:
    queue: FairQueue[str] = FairQueue()
    push(queue, "large", 1000)
    for turn in range(1000):
        push(queue, f"t{turn}", 20)
        item = queue.first()
        assert item is not None
        queue.serve(item, 20)
        if not queue.backlog.left(item, item):
            queue.remove(item)
        if item == "large":
            break
    assert turn < 100


def test_one_that_is_parked_keeps_its_place() -> None:
    queue: FairQueue[str] = FairQueue()
    push(queue, "a/first", 20)
    push(queue, "a/second", 20)
    queue.park("a/first")
    assert queue.first() == "a/second"
    queue.resume("a/first")
    assert queue.first() == "a/first"


def test_one_that_leaves_is_passed_over_and_one_that_is_not_here_does_no_harm() -> None:
    queue: FairQueue[str] = FairQueue()
    push(queue, "a", 20)
    push(queue, "b", 20)
    queue.remove("a")
    queue.remove("nobody")
    assert queue.first() == "b"
    queue.remove("b")
    assert queue.first() is None
    assert (len(queue), queue.backlog.total) == (0, 0)


def test_the_backlog_bounds_what_is_served_before_a_request_is_done() -> None:
    backlog: Backlog[str] = Backlog()
    backlog.add("large", "a", 1000)
    backlog.add("small", "b", 10)
    assert backlog.until_done("c", 50) == 50 + 50 + 10
    assert backlog.until_done("a", 50) == 50 + 50 + 10
    assert backlog.serve("large", "a", 2000) == 1000
    assert backlog.serve("nobody", "a", 5) == 0
    assert backlog.until_done("a", 50) == 50 + 10
    assert (backlog.remove("nobody", "a"), backlog.remove("small", "nowhere"), backlog.total) == (0, 0, 10)
    assert (backlog.remove("small", "b"), backlog.total, list(backlog)) == (10, 0, ["large"])


def test_a_share_is_that_of_processor_sharing_and_never_less() -> None:
    rng = random.Random(3)
    sizes = [int(rng.lognormvariate(6, 2)) for _ in range(2000)]
    backlog: Backlog[int] = Backlog()
    for number, size in enumerate(sizes):
        backlog.add(number, "a", size)
    for size in (1, 15, 16, 17, 100, 1000, 12_345, 10**7):
        exact = size + sum(min(size, other) for other in sizes)
        assert exact <= backlog.own_share("a", size) <= 1.031 * exact
    for number in range(len(sizes)):
        backlog.serve(number, "a", 100)
    assert backlog.own_share("a", 10**8) == 10**8 + sum(max(size - 100, 0) for size in sizes)
    for number in range(len(sizes)):
        backlog.remove(number, "a")
    assert (backlog.own_share("a", 7), backlog.until_done("b", 7), backlog.total) == (7, 7, 0)


def calls_in(function: Callable[[], object]) -> int:
    """Calls of functions, builtin ones too, and turns of generators."""
    count = 0

    def note(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_the_work_for_a_request_does_not_grow_with_what_waits() -> None:
    def come_and_go(requests: int) -> None:
        queue: FairQueue[str] = FairQueue()
        for number in range(requests):
            push(queue, f"a/{number}", 100 + number % 50)
            queue.backlog.until_done("a", 100)
            queue.backlog.until_done("b", 100)
        drain(queue, 60)

    small, large = (calls_in(lambda n=n: come_and_go(n)) for n in (250, 2000))  # type: ignore[misc]
    assert large < 10 * small, "eight times as many"


@pytest.mark.promise("S12")
def test_small_requests_hardly_wait_for_a_large_one() -> None:
    """One request of 100,000 tokens and 50 tenants of 200 tokens each, at 60 % load and 10,000 tokens a second."""
    speed, batch = 10_000, 2_000
    rng = random.Random(1)
    arrivals, now = [], 0.0
    while now < 30:
        now += rng.expovariate(0.6 * speed / 200)
        arrivals.append((now, f"t{rng.randrange(50)}/{len(arrivals)}"))
    heapq.heapify(arrivals)
    queue: FairQueue[str] = FairQueue()
    push(queue, "large/0", 100_000)
    came, waits, clock, large_done = {}, [], 0.0, 0.0
    while arrivals or len(queue):
        while arrivals and arrivals[0][0] <= clock:
            at, name = heapq.heappop(arrivals)
            came[name] = at
            push(queue, name, 200)
        room, ended = batch, []
        while room and (item := queue.first()) is not None:
            queue.serve(item, 100)
            room -= 100
            if not queue.backlog.left(item, item.partition("/")[0]):
                queue.remove(item)
                ended.append(item)
        clock += max((batch - room) / speed, 0.001)
        waits += [clock - came[item] for item in ended if item in came]
        large_done = clock if "large/0" in ended else large_done
    waits.sort()
    assert waits[int(0.99 * len(waits))] < 1.0
    assert large_done < 27.0, "10 s alone, 25 s beside the others: it is not starved"
