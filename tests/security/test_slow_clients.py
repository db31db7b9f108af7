"""Sections G-05 to G-07: clients that are slow on purpose, and headers without end."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from tests.figures import Measured
from tests.live import LiveServer
from tests.raw import Memory, RawConnection, body_of, head, percentile, post

MB = 1024 * 1024
DEADLINE = 1.0


def test_half_a_header_is_closed_at_its_deadline(impatient_server: LiveServer) -> None:
    with RawConnection(impatient_server.port) as connection:
        started = time.monotonic()
        connection.send(b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        status, body = connection.read_response()
        seconds = time.monotonic() - started
    assert status == 408
    assert b"header_timeout_seconds" in body
    assert DEADLINE <= seconds + 0.1 <= DEADLINE + 1


def test_half_a_body_is_answered_408_at_its_deadline(impatient_server: LiveServer) -> None:
    with RawConnection(impatient_server.port) as connection:
        started = time.monotonic()
        connection.send(head(content_length=100) + b"{")
        status, body = connection.read_response()
        seconds = time.monotonic() - started
    assert status == 408
    assert b'"code":"receive_timeout"' in body
    assert DEADLINE <= seconds + 0.1 <= DEADLINE + 1


def test_a_connection_that_says_nothing_is_closed(impatient_server: LiveServer) -> None:
    """Three of them, at once."""
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        silent = {first: stack.enter_context(RawConnection(impatient_server.port)) for first in (b"", b"\r\n", b"P")}
        for first, connection in silent.items():
            connection.send(first)
        for first, connection in silent.items():
            connection.read_all()
            assert time.monotonic() - started < DEADLINE + 1, first


def test_a_body_nobody_reads_is_cut_off_too(impatient_server: LiveServer) -> None:
    with RawConnection(impatient_server.port) as connection:
        started = time.monotonic()
        connection.send(head("/livez", method="GET", content_length=100) + b"x")
        assert connection.read_response()[0] == 200
        connection.read_all()
        assert time.monotonic() - started < DEADLINE + 2.5


def test_an_idle_connection_is_closed_after_the_keep_alive(impatient_server: LiveServer) -> None:
    with RawConnection(impatient_server.port) as connection:
        connection.send(head("/livez", method="GET"))
        assert connection.read_response()[0] == 200
        started = time.monotonic()
        connection.read_all()
        assert 1.5 < time.monotonic() - started < 3


def test_the_deadline_counts_anew_for_each_request_of_a_connection(impatient_server: LiveServer) -> None:
    with RawConnection(impatient_server.port) as connection:
        for _ in range(3):
            connection.send(head(content_length=len(body_of(1))))
            time.sleep(DEADLINE * 0.6)
            connection.send(body_of(1))
            assert connection.read_response()[0] == 200


@dataclass
class Slow:
    """A connection of the crowd: when it was opened, and when its next byte is due."""

    connection: socket.socket
    opened: float
    due: float


class Crowd:
    """Connections that send one byte a second each, and come over a second: nobody's deadlines end all at once."""

    def __init__(self, port: int, count: int, start: bytes) -> None:
        self._port = port
        self._start = start
        self._to_come = self._count = count
        self._selector = selectors.DefaultSelector()
        self.closed_after: list[float] = []

    def dribble(self, seconds: float) -> Iterator[None]:
        """Turn by turn until all came and were closed, or the time is over."""
        begun = time.monotonic()
        while (self._to_come or self._selector.get_map()) and time.monotonic() - begun < seconds:
            while self._to_come > self._count * (1 - (time.monotonic() - begun)) and self._to_come:
                self._open()
            for key, _ in self._selector.select(timeout=0):
                self._look(key.data)
            now = time.monotonic()
            for key in list(self._selector.get_map().values()):
                if now > key.data.due:
                    key.data.due += 1
                    with contextlib.suppress(OSError):
                        key.data.connection.send(b"x")
            yield

    def _open(self) -> None:
        one = socket.create_connection(("127.0.0.1", self._port))
        one.sendall(self._start)
        one.setblocking(False)
        now = time.monotonic()
        # The first byte before the deadline of a second.
        self._selector.register(one, selectors.EVENT_READ, Slow(one, now, now + 0.5))
        self._to_come -= 1

    def _look(self, slow: Slow) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                ended = not slow.connection.recv(65536)
            except ConnectionError:
                ended = True
            if ended:
                self.closed_after.append(time.monotonic() - slow.opened)
                self._selector.unregister(slow.connection)
                slow.connection.close()


def timed_requests(client: httpx.Client, count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        client.get("/livez").raise_for_status()
        seconds.append(time.perf_counter() - started)
        time.sleep(0.005)
    return seconds


@pytest.mark.promise("G-05")
@pytest.mark.parametrize("kind", ["header", "body"])
@pytest.mark.parametrize(
    ("count", "unseen"),
    [(50, 0.020), pytest.param(500, 0.010, marks=pytest.mark.slow)],  # judged by the clock: the machine must be quiet
)
def test_slow_clients_are_closed_in_time_and_hurt_nobody(
    impatient_server: LiveServer, measured: Measured, kind: str, count: int, unseen: float
) -> None:
    """``unseen``: seconds of a p99 that count as nothing, because one jump of a busy machine makes them."""
    start = (
        b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
        if kind == "header"
        else head(content_length=1000) + b"{"
    )
    with httpx.Client(base_url=impatient_server.url) as client:
        timed_requests(client, 20)
        idle = percentile(timed_requests(client, 150), 0.99)
        crowd = Crowd(impatient_server.port, count, start)
        busy = [second for _ in crowd.dribble(DEADLINE + 3) for second in timed_requests(client, 3)]
    last = max(crowd.closed_after)
    beside = percentile(busy, 0.99)
    measured(
        "G-05",
        f"{count} connections with a slow {kind}",
        "closed <= deadline + 1 s; p99 beside them < 2x idle",
        f"last closed {last - DEADLINE:+.2f} s; p99 {beside * 1000:.1f} ms, idle {idle * 1000:.1f} ms",
    )
    assert len(crowd.closed_after) == count
    assert last <= DEADLINE + 1
    assert beside < max(2 * idle, unseen)


@pytest.mark.promise("G-06")
def test_a_client_that_never_reads_is_dropped(impatient_server: LiveServer, measured: Measured) -> None:
    body = body_of(400, 2000)
    memory = Memory(impatient_server.process.pid)
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", impatient_server.port))
        one.settimeout(10)
        # Answers carry the texts back: eight of them are more than the kernel takes in for a client that is asleep.
        one.sendall(post(body) * 2)
        started = time.monotonic()
        while connections_to(impatient_server.port, one.getsockname()[1]) and time.monotonic() - started < 10:
            time.sleep(0.05)
        seconds = time.monotonic() - started
    grown = memory.growth()
    measured(
        "G-06",
        "a client that never reads (limit 1 s)",
        "dropped <= limit + 1 s, memory flat",
        f"{seconds:.1f} s, {grown / MB:.1f} MB",
    )
    assert seconds < 5


def connections_to(server: int, client: int) -> int:
    """Established connections of the server with that client's port, as the kernel lists them."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    wanted = (f":{server:04X}", f":{client:04X}", "01")
    return sum((row[1][-5:], row[2][-5:], row[3]) == wanted for row in rows)


@pytest.mark.promise("G-07")
@pytest.mark.parametrize(
    ("what", "flood"),
    [
        ("one header of 2 MB", b"X-Big: " + b"x" * (2 * MB) + b"\r\n\r\n"),
        ("10,000 headers", b"".join(b"X-%d: y\r\n" % number for number in range(10_000)) + b"\r\n"),
        ("a header that never ends", b"X-Big: " + b"x" * MB),
        ("129 headers", b"".join(b"X-%d: y\r\n" % number for number in range(129)) + b"\r\n"),
    ],
)
def test_a_flood_of_headers_is_refused(fake_server: LiveServer, measured: Measured, what: str, flood: bytes) -> None:
    memory = Memory(fake_server.process.pid)
    with RawConnection(fake_server.port) as connection:
        connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + flood)
        status, _ = connection.read_response()
    grown = memory.growth()
    measured("G-07", what, "431, growth < 8 MB", f"{status}, {grown / MB:.1f} MB")
    assert status == 431
    assert grown < 8 * MB


def test_a_long_address_counts_as_a_header(fake_server: LiveServer) -> None:
    with RawConnection(fake_server.port) as connection:
        connection.send(head("/livez?" + "x" * 100_000, method="GET"))
        assert connection.read_response()[0] == 431
