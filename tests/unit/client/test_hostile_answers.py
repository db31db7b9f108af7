"""Whatever a server sends, and whatever a caller gives: one ClientError, bounded in time and bytes."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from rerankd.client import AsyncClient, Client, ClientError, Timeout, _core
from rerankd.client.errors import CallTimeout, InvalidRequest, InvalidResponse
from rerankd.client.retry import Attempts, RetryBudget

Answer = Callable[[httpx.Request], httpx.Response]


def ask(answer: Answer, **options: Any) -> Any:
    with Client("http://server.test", retries=0, transport=httpx.MockTransport(answer), **options) as client:
        return client.rank("q", ["a", "b"])


def ask_async(answer: Answer, **options: Any) -> Any:
    async def rank() -> Any:
        transport = httpx.MockTransport(answer)
        async with AsyncClient("http://server.test", retries=0, transport=transport, **options) as client:
            return await client.rank("q", ["a", "b"])

    return asyncio.run(rank())


BOTH = pytest.mark.parametrize("rank", [ask, ask_async])


@pytest.mark.promise("P8")
@BOTH
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b'{"scores": [NaN, 1]}',
        b'{"scores": [Infinity, 1]}',
        b'{"scores": [1e999, 1]}',
        b'{"scores": [' + b"9" * 400 + b", 1]}",
        b'{"scores": [' + b"9" * 9_000 + b", 1]}",
        b'{"scores": [0.1, 0.2], "errors": 5}',
        b'{"scores": [0.1, 0.2], "errors": {"a": 1}}',
        b'{"scores": [0.1, 0.2], "errors": [5]}',
        b'{"scores": [true, false]}',
        b'{"scores": [[1], [2]]}',
        b'{"scores": {"0": 1, "1": 2}}',
        b"\xff\xfe",
        b"",
        b"null",
    ],
)
def test_an_answer_that_is_not_rerankds_is_one_error(rank: Any, body: bytes) -> None:
    with pytest.raises(InvalidResponse):
        rank(lambda request: httpx.Response(200, content=body))


@pytest.mark.promise("P8")
@BOTH
def test_an_answer_that_unpacks_to_very_much_is_refused(rank: Any) -> None:
    packed = gzip.compress(b" " * 50_000_000)
    assert len(packed) < 100_000
    headers = {"Content-Encoding": "gzip"}
    with pytest.raises(InvalidResponse, match="max_response_bytes"):
        rank(lambda request: httpx.Response(200, content=packed, headers=headers), max_response_bytes=1_000_000)


@pytest.mark.promise("P8")
@pytest.mark.parametrize("key", ["secret\n", "secret\r\nX: y", "sécret", "secret\x00", "\ud800secret"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="api_key") as refused:
            kind("http://server.test", key)
        assert "secret" not in str(refused.value)


@pytest.mark.promise("P8")
@pytest.mark.parametrize(
    "value", ["Mon, 99 Foo", "x", "", "Wed, 21 Oct 99999 07:28:00 GMT", "nan", "inf", "\x00", "1e400"]
)
def test_a_retry_after_that_cannot_be_read_is_none(value: str) -> None:
    assert _core.retry_after_seconds(value) is None


@pytest.mark.promise("P8")
def test_a_server_that_asks_for_a_very_long_wait_is_not_waited_for() -> None:
    error = _core.status_error(httpx.Response(429, headers={"Retry-After": "1e9"}), b"")
    assert Attempts(2, RetryBudget(), None).wait_after(error) is None


@pytest.mark.promise("S18")
@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_half_a_surrogate_pair_is_a_client_error(text: str) -> None:
    with Client("http://server.test") as client, pytest.raises(InvalidRequest, match="surrogate"):
        client.rank(text, ["a"])

    async def rank() -> None:
        async with AsyncClient("http://server.test") as client:
            await client.rank("q", [text])

    with pytest.raises(InvalidRequest, match="surrogate"):
        asyncio.run(rank())


@pytest.fixture(params=["headers", "body"])
def dripping(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that sends a byte each tenth of a second, for ever."""
    ended = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    def drip(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65536)
                if request.param == "body":
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
                else:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not ended.wait(0.1):
                    connection.sendall(b" ")
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    ended.set()
    server.close()


@pytest.mark.promise("S18")
@pytest.mark.timeout(30)
def test_the_total_of_a_call_is_total(dripping: str) -> None:
    timeout = Timeout(total=0.5)
    began = time.monotonic()
    with Client(dripping, timeout=timeout) as client, pytest.raises(CallTimeout):
        client.rank("q", ["a"])

    async def rank() -> None:
        async with AsyncClient(dripping, timeout=timeout) as client:
            await client.rank("q", ["a"])

    with pytest.raises(CallTimeout):
        asyncio.run(rank())
    assert time.monotonic() - began < 10


def test_an_answer_within_the_bounds_is_read() -> None:
    body = json.dumps({"scores": [0.1, 0.2], "meta": {"warnings": ["w"]}}).encode()
    found = ask(lambda request: httpx.Response(200, content=body), max_response_bytes=len(body))
    assert (found.scores, found.warnings) == ((0.1, 0.2), ("w",))
    with pytest.raises(ClientError):
        ask(lambda request: httpx.Response(200, content=body), max_response_bytes=len(body) - 1)
