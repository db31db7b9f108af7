"""Requests sent ahead of their answers: bounded in memory, fair to others, read as if they came alone."""

from __future__ import annotations

import contextlib
import json

import httpx
import pytest
from tests.figures import Measured
from tests.live import LiveServer
from tests.raw import Memory, RawConnection, body_of, head, post

SHORT = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
OFFER = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


@pytest.mark.promise("A4")
def test_requests_ahead_of_their_answers_cost_no_more_than_their_bytes(
    fake_server: LiveServer, measured: Measured
) -> None:
    memory = Memory(fake_server.process.pid)
    flood = SHORT * (252 * 1024 // len(SHORT))
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(RawConnection(fake_server.port, timeout=0.2))
            with contextlib.suppress(TimeoutError):
                connection.send(flood)
        slowest = 0.0
        with httpx.Client(base_url=fake_server.url) as client:
            for _ in range(30):
                slowest = max(slowest, client.get("/livez").elapsed.total_seconds())
    measured("A4", "20 connections of 252 KB, none read", "growth < 64 MB", f"{memory.growth() / 1e6:.1f} MB")
    assert memory.growth() < 64_000_000
    assert slowest < 2.0


@pytest.mark.promise("A4")
@pytest.mark.parametrize("count", [1, 7, 8, 9, 10, 57, 58, 500])
def test_each_of_many_requests_in_a_row_is_answered_once_and_in_order(fake_server: LiveServer, count: int) -> None:
    with RawConnection(fake_server.port) as connection:
        last = head("/livez", method="GET", x_request_id="last", connection="close")
        connection.send(
            b"".join(head("/livez", method="GET", x_request_id=f"n{number}") for number in range(count)) + last
        )
        answer = connection.read_all()
    names = [line.split(b": ")[1] for line in answer.split(b"\r\n") if line.startswith(b"x-request-id")]
    assert names == [*(f"n{number}".encode() for number in range(count)), b"last"]


@pytest.mark.promise("A4")
def test_bodies_between_short_requests_stay_whole(fake_server: LiveServer) -> None:
    body = body_of(20, 500)
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:100], body[100:5000], body[5000:]))
    chunks = head(transfer_encoding="chunked") + chunked + b"0\r\n\r\n"
    with RawConnection(fake_server.port) as connection:
        for _ in range(15):
            connection.send(SHORT * 3 + post(body) + SHORT + chunks)
        for _ in range(15):
            answers = [connection.read_response() for _ in range(6)]
            assert [status for status, _ in answers] == [200] * 6
            assert len(json.loads(answers[3][1])["scores"]) == len(json.loads(answers[5][1])["scores"]) == 20


@pytest.mark.promise("A9")
def test_an_offer_to_upgrade_may_come_any_number_of_times(fake_server: LiveServer) -> None:
    with RawConnection(fake_server.port) as connection:
        connection.send(OFFER * 2000 + head("/livez", method="GET", connection="close"))
        answer = connection.read_all()
    assert answer.count(b"HTTP/1.1 200 OK") == 2001


@pytest.mark.promise("P14")
@pytest.mark.parametrize("connection_header", ["Upgrade, close", "close, upgrade", "CLOSE , Upgrade"])
def test_a_connection_that_is_to_be_closed_is_closed_though_it_offers_to_upgrade(
    fake_server: LiveServer, connection_header: str
) -> None:
    with RawConnection(fake_server.port, timeout=5) as connection:
        connection.send(head("/livez", method="GET", connection=connection_header, upgrade="h2c"))
        assert connection.read_all().count(b"HTTP/1.1 200 OK") == 1


@pytest.mark.promise("P14")
@pytest.mark.parametrize("blank", [" ", "\t", "  \t "])
def test_blanks_around_a_header_are_no_part_of_it(fake_server: LiveServer, blank: str) -> None:
    body = body_of(2)
    headers = {"X-Request-Timeout-Ms": "5000", "X-Request-Id": "mine", "Content-Encoding": "identity"}
    padded = {name: f"{blank}{value}{blank}" for name, value in headers.items()}
    with RawConnection(fake_server.port) as connection:
        connection.send(head(content_length=f"{blank}{len(body)}{blank}", **padded) + body)
        assert connection.read_response()[0] == 200
