"""What HTTP and scheduling cost beside the model: the fake engine, one worker, ten documents of 200 characters.

Seconds are the machine's as much as the server's: they are shown, and held against a request that is refused unread,
sent in the same run. What neighbours hardly change, the server's processor time, is held as a multiple of that too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from benchmarks.http_load import MakeBody, Result, closed_loop, make_body, open_loop
from tests.figures import Measured
from tests.live import LiveServer, running_server
from tests.raw import cpu_seconds

pytestmark = [pytest.mark.load, pytest.mark.promise("load")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running_server("--engine", "fake", log=tmp_path_factory.mktemp("load") / "server.log") as server:
        asyncio.run(closed_loop(server.url, 4, 2, make_body(10, 200, same=False)))
        yield server


def bare_body(number: int) -> bytes:
    """Refused as soon as its JSON is read: the way of a request without its work."""
    return b"{}"


@dataclass(frozen=True)
class Cost:
    """Of a request: the machine's milliseconds, the server's of a processor, and how many of them a second."""

    p50: float
    p99: float
    processor: float
    rate: float
    failed: int


def cost(server: LiveServer, load: Callable[[], Coroutine[Any, Any, Result]]) -> Cost:
    before = cpu_seconds(server.process.pid)
    result = asyncio.run(load())
    processor = (cpu_seconds(server.process.pid) - before) / len(result.seconds)
    p50, p99 = (result.percentile(share) * 1000 for share in (0.5, 0.99))
    return Cost(p50, p99, processor * 1000, result.rate, result.failed)


def capacity(server: LiveServer) -> float:
    """Requests a second, as fast as they go."""
    return asyncio.run(closed_loop(server.url, 8, 5, make_body(10, 200, same=False))).rate


def best_of_three(server: LiveServer, load: Callable[[MakeBody], Coroutine[Any, Any, Result]]) -> tuple[Cost, Cost]:
    """Of bare and of whole requests, in turn; by the median: a busy machine makes a run worse, never better."""
    bodies = bare_body, make_body(10, 200, same=False)
    turns = [[cost(server, lambda body=body: load(body)) for body in bodies] for _ in range(3)]  # type: ignore[misc]
    bare, whole = (min(runs, key=lambda run: run.p50) for runs in zip(*turns, strict=True))
    return bare, whole


def test_the_overhead_of_a_request_is_small(server: LiveServer, measured: Measured) -> None:
    # No more than the machine can do just now: behind a queue a request's time is that of the queue.
    rate = min(100.0, capacity(server) / 3)
    bare, whole = best_of_three(server, lambda body: open_loop(server.url, rate, 10, body))
    measured(
        "load",
        f"{rate:.0f} req/s x 10 documents",
        "p50 2 ms, p99 10 ms on a quiet machine; p50 <= 6 x, processor <= 12 x a refused one's",
        f"p50 {whole.p50:.2f} ms, p99 {whole.p99:.2f} ms, processor {whole.processor:.2f} ms; "
        f"refused: p50 {bare.p50:.2f} ms, processor {bare.processor:.2f} ms",
    )
    assert whole.failed == 0
    assert whole.p50 <= 6 * bare.p50
    assert whole.processor <= 12 * bare.processor


def test_requests_that_the_cache_knows_cost_little_more_than_refused_ones(
    server: LiveServer, measured: Measured
) -> None:
    known = cost(server, lambda: closed_loop(server.url, 8, 10, make_body(10, 200, same=True)))
    bare = cost(server, lambda: closed_loop(server.url, 8, 5, bare_body))
    measured(
        "load",
        "all-cached requests, 8 connections",
        "1,000/s on one quiet core; processor <= 6 x a refused one's",
        f"{known.rate:.0f}/s, processor {known.processor:.2f} ms; "
        f"refused: {bare.rate:.0f}/s, processor {bare.processor:.2f} ms",
    )
    assert known.failed == 0
    assert known.processor <= 6 * bare.processor


def test_a_constant_rate_never_fails(server: LiveServer, measured: Measured) -> None:
    rate = min(50.0, capacity(server) / 3)
    result = asyncio.run(open_loop(server.url, rate, 30, make_body(10, 200, same=False)))
    measured("load", f"{rate:.0f} req/s for 30 s", "0 failures", f"{result.failed} failures")
    assert result.failed == 0


def test_new_connections_cost_no_memory(server: LiveServer, measured: Measured) -> None:
    """A thousand connections come and go."""

    def resident() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))

    body = make_body(1, 200, same=True)
    asyncio.run(closed_loop(server.url, 200, 1, body))
    before = resident()
    for _ in range(5):
        asyncio.run(closed_loop(server.url, 200, 1, body))
    grown = (resident() - before) / 1024
    measured("load", "1,000 connections come and go", "growth < 8 MB", f"{grown:.1f} MB")
    assert grown < 8
