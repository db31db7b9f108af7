"""Section A as a rule, against a server: whatever is sent to it, doubled again and again up to the largest body.

Processor time of the process, the longest silence of its event loop, and its memory; ``test_growth.py`` has the same
bodies without a server and without its limits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.figures import Measured
from tests.growth import TELLING, Case, cases, exponent
from tests.live import LiveServer, running_server
from tests.raw import Lag, Memory, RawConnection

SIZES = (256 * 1024, 512 * 1024, 1024 * 1024, 2 * 1024 * 1024, 4_000_000)
MOST_POWER = 1.15
MOST_LAG = 0.1
MEGABYTES = 64
TIMES_THE_BODY = 24
NOTHING = 0.004
"""Seconds of processor time below which a body costs no more than a request does, and the probes beside it."""
TRIES = 3
"""What is over its bound is measured again: the machine's own hiccups do not come back, and a cause does."""

BY_DIALECT: dict[str, list[Case]] = {}
for found in cases():
    if found.shape in TELLING or found.field is None:
        BY_DIALECT.setdefault(found.dialect.name, []).append(found)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.promise("A1", "A2", "A3")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    flags = ("--engine", "fake", "--cache", "off")
    with running_server(*flags, log=tmp_path_factory.mktemp("growth") / "server.log") as server:
        yield server


def costs_of(
    server: LiveServer, client: httpx.Client, case: Case, sizes: tuple[int, ...]
) -> tuple[dict[int, float], float]:
    """Seconds of processor time for a body of each size, and the longest answer to ``/livez`` meanwhile."""
    path = case.route.path.replace("{model}", "tiny")
    # Made before anybody watches: this process would hold its own watcher while it makes them.
    bodies = {size: case.body(size) for size in sizes}
    costs = {}
    with Lag(server.url).watched() as lag:
        for size, body in bodies.items():
            before = processor_seconds(server.process.pid)
            response = client.post(path, content=body, headers={"X-Request-Timeout-Ms": "2000"})
            assert response.status_code < 500 or response.status_code == 504, response.text
            costs[size] = processor_seconds(server.process.pid) - before
    return costs, lag.worst


def processor_seconds(pid: int) -> float:
    """Of all threads that there are, by a clock of nanoseconds: the process's own has hundredths."""
    stats = [task / "schedstat" for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int(stat.read_text(encoding="ascii").split()[0]) for stat in stats) / 1e9


@dataclass(frozen=True)
class Growth:
    """What bodies of one kind cost: the exponent of the processor time, the longest silence, the memory in bytes."""

    power: float
    lag: float
    memory: int

    @property
    def is_within(self) -> bool:
        most = MEGABYTES * 1e6 + TIMES_THE_BODY * SIZES[-1]
        return self.power < MOST_POWER and self.lag < MOST_LAG and self.memory < most

    def __str__(self) -> str:
        return f"power {self.power:.2f}, lag {self.lag * 1000:.0f} ms, memory {self.memory / 1e6:.0f} MB"


def growth_of(server: LiveServer, client: httpx.Client, case: Case) -> Growth:
    """The largest body comes first: where that costs little, the smaller ones cost what no clock can tell."""
    memory = Memory(server.process.pid)
    costs, lag = costs_of(server, client, case, SIZES[-1:])
    if costs[SIZES[-1]] >= 8 * NOTHING:
        more, longer = costs_of(server, client, case, SIZES[:-1])
        costs, lag = {**more, **costs}, max(lag, longer)
    told = [(size, spent) for size, spent in costs.items() if spent >= NOTHING]
    return Growth(exponent(*zip(*told, strict=True)) if len(told) > 2 else 0.0, lag, memory.growth())


@pytest.mark.parametrize("name", BY_DIALECT)
def test_cost_is_linear_up_to_the_largest_body(server: LiveServer, measured: Measured, name: str) -> None:
    """All fields are measured before any is judged: the table is whole, whatever is red."""
    over: list[str] = []
    with httpx.Client(base_url=server.url, headers={"Content-Type": "application/json"}, timeout=60) as client:
        for case in BY_DIALECT[name]:
            tries = [growth_of(server, client, case)]
            while not tries[-1].is_within and len(tries) < TRIES:
                tries.append(growth_of(server, client, case))
            measured("A1", f"{case.where}, {case.shape}", "1.15, 100 ms, 64 MB + 24x", str(tries[-1]))
            if not tries[-1].is_within:
                over.append(f"{case.where}, {case.shape}: {'; '.join(map(str, tries))}")
    assert not over


@pytest.mark.promise("A4")
@pytest.mark.parametrize("part", [b"POST /rerank HTTP/1.1\r\nX-Half: ", b"{", b"GET / HTTP/1.1\r\n\r\n" * 5000])
def test_connections_that_send_half_or_read_nothing_cost_what_they_send(
    server: LiveServer, measured: Measured, part: bytes
) -> None:
    head = b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n" if part == b"{" else b""
    memory = Memory(server.process.pid)
    with contextlib.ExitStack() as stack, Lag(server.url).watched() as lag:
        for _ in range(60):
            connection = stack.enter_context(RawConnection(server.port, timeout=0.3))
            with contextlib.suppress(TimeoutError):
                connection.send(head + part)
    what = f"60 connections of {len(part)} bytes, none read"
    measured("A4", what, "100 ms, 64 MB", f"{lag.worst * 1000:.0f} ms, {memory.growth() / 1e6:.0f} MB")
    assert lag.worst < MOST_LAG
    assert memory.growth() < MEGABYTES * 1e6 + TIMES_THE_BODY * 60 * len(part)
