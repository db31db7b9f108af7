"""rerankd bench: load by the clock, and what became of it."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from click.testing import CliRunner
from tests.live import LiveServer, free_port

from rerankd.cli.load import NO_ANSWER, Load, Measured, run_load
from rerankd.cli.main import cli


def ignore(measured: Measured) -> None:
    pass


def load(url: str, **changed: object) -> Load:
    values = {"rate": 50.0, "seconds": 1.0, "documents": 2, "words": 4, **changed}
    return Load(url=url, **values)  # type: ignore[arg-type]


def test_every_request_is_sent_and_counted(tiny_server: LiveServer) -> None:
    arguments = ["bench", tiny_server.url, "--rate", "20", "--seconds", "1", "--documents", "3", "--words", "5"]
    done = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    figures = json.loads(done.stdout)
    assert done.exit_code == 0
    assert figures["sent"] == 20
    assert figures["statuses"] == {"200": 20}
    assert figures["pairs_per_second"] == pytest.approx(3 * figures["requests_per_second"])
    assert 0 < figures["latency_seconds"]["p50"] <= figures["latency_seconds"]["p100"]


def test_a_server_that_is_not_there_ends_with_one(tiny_server: LiveServer) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = CliRunner().invoke(cli, ["bench", url, "--rate", "5", "--seconds", "1"], catch_exceptions=False)
    assert done.exit_code == 1
    assert f"{NO_ANSWER}: 5" in done.stdout


def test_an_answer_other_than_200_ends_with_one(tiny_server: LiveServer) -> None:
    arguments = ["bench", tiny_server.url, "--rate", "5", "--seconds", "1", "--path", "/nowhere", "--json"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 1
    assert json.loads(done.stdout)["statuses"] == {"404": 5}


def test_a_wrong_address_is_said_in_one_line() -> None:
    done = CliRunner().invoke(cli, ["bench", "localhost:8000"])
    assert done.exit_code == 2
    assert done.stderr.startswith("rerankd: URL: base_url has to be an address")


def test_bodies_differ_and_a_share_of_them_comes_again() -> None:
    plain = load("http://x", rate=200.0)
    assert plain.numbers() == list(range(200))
    assert plain.body(3) == plain.body(3) != plain.body(4)
    half = load("http://x", rate=200.0, repeated=0.5).numbers()
    assert 60 < 200 - len(set(half)) < 140


def test_a_slow_server_cannot_slow_its_own_test_down() -> None:
    """One connection at a time is served, a tenth of a second each: ten requests in a fifth of a second wait."""

    async def measure() -> Measured:
        turn = asyncio.Lock()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            async with turn:
                await asyncio.sleep(0.1)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            started = time.perf_counter()
            measured = await run_load(load(f"http://127.0.0.1:{port}/", seconds=0.2), {}, ignore)
            assert time.perf_counter() - started >= 1.0
            return measured

    measured = asyncio.run(measure())
    assert measured.statuses == {"200": 10}
    # The last was due after .18 s and answered after 1 s at the earliest.
    assert measured.percentile(1.0) is not None
    assert measured.percentile(1.0) >= 0.8
