"""What HTTP and scheduling cost when the engine costs nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.http_load import closed_loop, make_body, open_loop
from tests.figures import Measured
from tests.live import LiveServer, running_server

QUIET = ("--engine", "fake", "--log-level", "error")


def pin(pid: int, core: int) -> None:
    """Every thread of a process on one core, so that client and server do not share it."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


@pytest.fixture
def server_apart(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    """A server on the first core, the test on the last."""
    cores = sorted(os.sched_getaffinity(0))
    with running_server(*QUIET, *request.param, log=tmp_path / "server.log") as server:
        pin(server.process.pid, cores[0])
        pin(os.getpid(), cores[-1])
        yield server
        pin(os.getpid(), cores[-1])
        os.sched_setaffinity(0, cores)


@pytest.mark.load
@pytest.mark.parametrize("server_apart", [("--cache", "off")], indirect=True)
async def test_a_request_costs_two_milliseconds_beside_the_engine(
    server_apart: LiveServer, measured: Measured
) -> None:
    await open_loop(server_apart.url, 50, 3, make_body(10, 200, same=False))
    result = await open_loop(server_apart.url, 100, 30, make_body(10, 200, same=False))
    p50, p99 = result.percentile(0.5) * 1e3, result.percentile(0.99) * 1e3
    measured(
        "load",
        "100 requests/s, 10 documents of 200 characters",
        "p50 <= 2 ms, p99 <= 10 ms",
        f"p50 {p50:.2f} ms, p99 {p99:.2f} ms",
    )
    assert result.failed == 0
    assert (p50 <= 2, p99 <= 10) == (True, True)


@pytest.mark.load
@pytest.mark.parametrize("server_apart", [("--cache", "memory")], indirect=True)
async def test_a_thousand_known_requests_a_second_on_one_core(server_apart: LiveServer, measured: Measured) -> None:
    body = make_body(10, 200, same=True)
    await closed_loop(server_apart.url, 4, 2, body)
    result = await closed_loop(server_apart.url, 8, 10, body)
    measured(
        "load",
        "all scores cached, one core",
        ">= 1,000 requests/s",
        f"{result.rate:.0f}/s, p99 {result.percentile(0.99) * 1e3:.1f} ms",
    )
    assert result.failed == 0
    assert result.rate >= 1000
