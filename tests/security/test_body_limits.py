"""Sections G-01 to G-04: bodies that are too large, compressed, broken or in pieces."""

from __future__ import annotations

import contextlib
import gzip
import select
import time
import zlib
from pathlib import Path

import httpx
import pytest
from tests.figures import Measured
from tests.live import LiveServer, running_server
from tests.raw import Memory, RawConnection, body_of, cpu_seconds, head, post

LIMIT = 4 * 1024 * 1024
MB = 1024 * 1024


@pytest.mark.promise("G-01")
def test_a_declared_length_over_the_limit_is_refused_at_once(fake_server: LiveServer, measured: Measured) -> None:
    memory = Memory(fake_server.process.pid)
    started = time.perf_counter()
    with RawConnection(fake_server.port) as connection:
        connection.send(head(content_length=30 * MB))
        status, body = connection.read_response()
    seconds = time.perf_counter() - started
    grown = memory.growth()
    measured(
        "G-01",
        "Content-Length of 30 MB",
        "413, growth < 8 MB",
        f"{status} in {seconds * 1000:.0f} ms, {grown / MB:.1f} MB",
    )
    assert status == 413
    assert b"max_body_bytes" in body
    assert grown < 8 * MB


@pytest.mark.promise("G-01")
def test_a_stream_is_cut_at_the_limit(fake_server: LiveServer, measured: Measured) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    memory = Memory(fake_server.process.pid)
    with RawConnection(fake_server.port) as connection:
        connection.send(head(transfer_encoding="chunked"))
        connection.send(chunk * (30 * MB // 65536))
        status, _ = connection.read_response()
    grown = memory.growth()
    line = next(line for line in fake_server.log.read_text().splitlines()[::-1] if '"too_large"' in line)
    read = int(line.split('"bytes": ')[1].split(",")[0])
    measured(
        "G-01",
        "30 MB in chunks",
        "413, read <= limit + 64 KiB (+ one read), growth < 8 MB",
        f"{status}, limit + {(read - LIMIT) / 1024:.0f} KiB, {grown / MB:.1f} MB",
    )
    assert status == 413
    # One read of the socket may bring 256 KiB at once.
    assert read <= LIMIT + 64 * 1024 + 256 * 1024
    assert grown < 8 * MB + LIMIT


def test_a_client_with_a_body_just_over_the_limit_hears_why(fake_server: LiveServer) -> None:
    response = httpx.post(
        f"{fake_server.url}/rerank", content=b"x" * (LIMIT + MB), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    assert response.headers["connection"] == "close"


def deflate_bomb() -> bytes:
    """10 MB that would become 10 GB."""
    press = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = press.compress(b"\0" * (64 * MB)) + press.flush(zlib.Z_FULL_FLUSH)
    return block * 60


@pytest.mark.promise("G-02")
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_compressed_bomb_is_refused_unopened(fake_server: LiveServer, measured: Measured, encoding: str) -> None:
    bomb = deflate_bomb()[: 3 * MB]
    memory = Memory(fake_server.process.pid)
    started = time.perf_counter()
    with RawConnection(fake_server.port) as connection:
        connection.send(head(content_encoding=encoding, content_length=len(bomb)))
        status, _ = connection.read_response()
        seconds = time.perf_counter() - started
        connection.send(bomb)
    grown = memory.growth()
    measured(
        "G-02",
        f"a {encoding} bomb",
        "415 in < 100 ms, growth < 8 MB",
        f"{status} in {seconds * 1000:.0f} ms, {grown / MB:.1f} MB",
    )
    assert status == 415
    assert seconds < 0.1
    assert grown < 8 * MB


@pytest.mark.promise("G-03")
def test_a_hundred_malformed_bodies_leave_nothing_behind(fake_server: LiveServer, measured: Measured) -> None:
    broken = gzip.compress(b"{}" * 100_000)[:-20] + b"\xff" * 100_000
    bodies = [b'{"query": "' + b"x" * 500_000, broken, b"[" * 200_000, b'{"a":' * 50_000]
    memory = Memory(fake_server.process.pid)
    statuses = set()
    with httpx.Client(base_url=fake_server.url) as client:
        for number in range(100):
            kind = {"Content-Type": "application/json"} | ({"Content-Encoding": "gzip"} if number % 4 == 1 else {})
            statuses.add(client.post("/rerank", content=bodies[number % 4], headers=kind).status_code)
    grown = memory.growth()
    measured("G-03", "100 malformed bodies", "growth < 32 MiB", f"{grown / MB:.1f} MB, statuses {sorted(statuses)}")
    assert statuses == {400, 415}
    assert grown < 32 * MB


@pytest.mark.promise("G-04")
def test_a_hundred_thousand_chunks_of_one_byte_cost_little(fake_server: LiveServer, measured: Measured) -> None:
    body = body_of(1).ljust(100_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    before = cpu_seconds(fake_server.process.pid)
    with RawConnection(fake_server.port) as connection:
        connection.send(head(transfer_encoding="chunked") + chunks)
        status, _ = connection.read_response()
    seconds = cpu_seconds(fake_server.process.pid) - before
    measured("G-04", "100,000 chunks of one byte", "4xx or 200, CPU < 1 s", f"{status}, {seconds:.2f} s")
    assert status == 200
    assert seconds < 1


def test_a_keep_alive_connection_goes_on_after_a_refused_body(fake_server: LiveServer) -> None:
    with RawConnection(fake_server.port) as connection:
        connection.send(post(b"{"))
        assert connection.read_response()[0] == 400
        connection.send(post(body_of(1)))
        assert connection.read_response()[0] == 200


@pytest.mark.promise("G-01")
def test_many_bodies_at_once_are_refused_before_memory_is_full(tmp_path: Path, measured: Measured) -> None:
    """Each is below its own limit and never ends; a caller with another key is served beside them."""
    flags = (
        "--engine",
        "fake",
        "--api-keys",
        "flood:secret-a,other:secret-b",
        "--max-inflight-body-bytes",
        str(16 * MB),
    )
    with running_server(*flags, log=tmp_path / "server.log") as server, contextlib.ExitStack() as open_ones:
        url, headers = f"{server.url}/rerank", {"Authorization": "Bearer secret-b"}
        httpx.post(url, json={"query": "warm", "documents": ["up"]}, headers=headers).raise_for_status()
        memory = Memory(server.process.pid)
        connections = [open_ones.enter_context(RawConnection(server.port)) for _ in range(80)]
        for connection in connections:
            connection.send(head(content_length=4_000_000, authorization="Bearer secret-a") + b"x" * 3_000_000)
        until = time.monotonic() + 20
        # Five have room; which five, the kernel decides.
        while len(ended := select.select(connections, [], [], 0)[0]) < 75 and time.monotonic() < until:
            time.sleep(0.05)
        answered = [connection.read_response()[0] for connection in ended]
        status = httpx.post(url, json={"query": "q", "documents": ["d"]}, headers=headers).status_code
        grown = memory.growth()
    measured(
        "G-01",
        "80 bodies of 3 MB at once, room for 16 MB",
        "429, growth < 64 MB, others 200",
        f"{answered.count(429)} of 80 refused, {grown / MB:.1f} MB, others {status}",
    )
    assert answered == [429] * len(answered)
    assert len(answered) >= 75
    assert status == 200
    assert grown < 64 * MB
