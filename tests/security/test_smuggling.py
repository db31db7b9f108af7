"""Section G-15: requests that two servers in a row might read differently are refused, and the connection closed."""

from __future__ import annotations

import pytest
from tests.figures import Measured
from tests.live import LiveServer
from tests.raw import RawConnection, body_of, head, post

START = b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

AMBIGUOUS = {
    "length and chunks": START + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
    "two lengths": START + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}X",
    "the same length twice": START + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": START + b"Content-Length: 2, 3\r\n\r\n{}X",
    "a signed length": START + b"Content-Length: +2\r\n\r\n{}",
    "a bad chunk size": START + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
    "a huge chunk size": START + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n",
    "a chunk without its end": START + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "chunks that are not the last coding": START + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": START + b"Content-Length : 2\r\n\r\n{}",
    "a folded header": START + b"X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "a bare line feed in a header": START + b"X-A: b\nX-C: d\r\nContent-Length: 2\r\n\r\n{}",
    "a NUL in a header": START + b"X-A: b\0c\r\n\r\n",
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03hello",
    "an unknown method": b"GARBAGE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/3.0": b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.promise("G-15")
@pytest.mark.parametrize("case", AMBIGUOUS)
def test_an_ambiguous_request_is_refused_and_its_connection_closed(
    impatient_server: LiveServer, measured: Measured, case: str
) -> None:
    with RawConnection(impatient_server.port, timeout=5) as connection:
        connection.send(AMBIGUOUS[case])
        answer = connection.read_all()
    statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    measured("G-15", case, "400 and close", f"{statuses} and closed")
    # The header folding of old is the one thing that parsers of HTTP/1.1 may still unfold.
    assert all(400 <= status < 500 for status in statuses)
    assert len(statuses) == 1


def test_pipelined_requests_are_answered_in_order(fake_server: LiveServer) -> None:
    with RawConnection(fake_server.port) as connection:
        connection.send(
            post(body_of(3), x_request_id="one")
            + head("/livez", method="GET", x_request_id="two")
            + post(b"{", x_request_id="three")
            + head("/nowhere", method="GET", x_request_id="four", connection="close")
        )
        answer = connection.read_all()
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"400", b"404"]
    places = [answer.index(b"x-request-id: " + name) for name in (b"one", b"two", b"three", b"four")]
    assert places == sorted(places)


def test_an_answer_to_bad_bytes_is_json(fake_server: LiveServer) -> None:
    with RawConnection(fake_server.port) as connection:
        connection.send(b"hello\r\n\r\n")
        status, body = connection.read_response()
    assert status == 400
    assert b'"code":"invalid_request"' in body


def test_an_offer_to_upgrade_is_passed_over(fake_server: LiveServer) -> None:
    """Java's HTTP client offers HTTP/2 with its first request, and its body must not be lost for it."""
    upgrade = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAMAAABkAAQBAAAAAAIAAAAA",
    }
    with RawConnection(fake_server.port) as connection:
        connection.send(post(body_of(2), **upgrade))
        assert connection.read_response()[0] == 200
        connection.send(post(body_of(2)))
        assert connection.read_response()[0] == 200


def test_a_client_may_ask_before_it_sends_its_body(fake_server: LiveServer) -> None:
    body = body_of(2)
    with RawConnection(fake_server.port) as connection:
        connection.send(head(content_length=len(body), expect="100-continue"))
        assert connection.read_response()[0] == 100
        connection.send(body)
        assert connection.read_response()[0] == 200


def test_a_body_that_is_refused_is_not_asked_for(fake_server: LiveServer) -> None:
    with RawConnection(fake_server.port) as connection:
        connection.send(head(content_length=100_000_000, expect="100-continue"))
        assert connection.read_response()[0] == 413
