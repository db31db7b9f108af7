"""Requests at a server, by the clock or as fast as they go, and how long each took.

    python benchmarks/http_load.py --url http://127.0.0.1:8000 --rate 100 --seconds 30
    python benchmarks/http_load.py --url http://127.0.0.1:8000 --connections 8 --seconds 10 --same

Open loop (``--rate``) sends at fixed moments whether answers came or not, so that a slow server cannot slow its
own test down; the clock of a request starts when it should have been sent. Closed loop (``--connections``) finds
the most that the server can do. HTTP is spoken by hand: a client library costs more than the server does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import uvloop

SENTENCE = "the capital of a country is the city from which it is governed and where its parliament meets "

MakeBody = Callable[[int], bytes]


@dataclass
class Result:
    """What became of the requests; seconds each, from the moment it was due."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    elapsed: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.elapsed if self.elapsed else 0.0

    def percentile(self, share: float) -> float:
        """Seconds within which that share of the requests was answered."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != 200)

    def __str__(self) -> str:
        p50, p95, p99 = (self.percentile(share) * 1000 for share in (0.5, 0.95, 0.99))
        return (
            f"{len(self.seconds)} requests, {self.rate:.0f}/s, p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms, "
            f"statuses {dict(self.statuses)}"
        )


def make_body(documents: int, characters: int, *, same: bool) -> MakeBody:
    """Bodies by number; with ``same`` all of one text, so that every score but the first is known."""
    text = SENTENCE * (characters // len(SENTENCE) + 1)

    def body(number: int) -> bytes:
        tag = 0 if same else number
        texts = [f"{tag} {index} {text}"[:characters] for index in range(documents)]
        return json.dumps(
            {"query": f"which city governs {tag}", "documents": texts, "return_documents": False}
        ).encode()

    return body


class Connection:
    """One keep-alive connection that asks and waits."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str) -> None:
        self._reader = reader
        self._writer = writer
        # The name that was asked for: a server refuses others.
        self._start = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n".encode()

    @classmethod
    async def open(cls, url: str, path: str = "/rerank") -> Connection:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
        return cls(reader, writer, parts.netloc, path)

    async def ask(self, body: bytes) -> int:
        """The status of the answer."""
        self._writer.write(self._start + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        await self._reader.readexactly(length)
        return int(answer.split(b" ", 2)[1])

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def open_loop(url: str, rate: float, seconds: float, body: MakeBody, connections: int = 32) -> Result:
    """``rate`` requests a second at fixed moments, over a pool of connections."""
    pool: asyncio.Queue[Connection] = asyncio.Queue()
    opened = [await Connection.open(url) for _ in range(connections)]
    for connection in opened:
        pool.put_nowait(connection)
    result = Result()
    started = time.perf_counter()

    async def one(number: int) -> None:
        due = started + number / rate
        await asyncio.sleep(due - time.perf_counter())
        connection = await pool.get()
        result.statuses[await connection.ask(body(number))] += 1
        result.seconds.append(time.perf_counter() - due)
        pool.put_nowait(connection)

    await asyncio.gather(*(one(number) for number in range(int(rate * seconds))))
    result.elapsed = time.perf_counter() - started
    await asyncio.gather(*(connection.close() for connection in opened))
    return result


async def closed_loop(url: str, connections: int, seconds: float, body: MakeBody) -> Result:
    """Every connection asks again as soon as it was answered."""
    result = Result()
    started = time.perf_counter()

    async def work(first: int) -> None:
        connection = await Connection.open(url)
        number = first
        while time.perf_counter() - started < seconds:
            asked = time.perf_counter()
            result.statuses[await connection.ask(body(number))] += 1
            result.seconds.append(time.perf_counter() - asked)
            number += connections
        await connection.close()

    await asyncio.gather(*(work(number) for number in range(connections)))
    result.elapsed = time.perf_counter() - started
    return result


async def _measure(options: argparse.Namespace) -> Result:
    body = make_body(options.documents, options.characters, same=options.same)
    if options.rate:
        return await open_loop(options.url, options.rate, options.seconds, body, options.connections)
    return await closed_loop(options.url, options.connections, options.seconds, body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second; 0 asks as fast as it goes")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--characters", type=int, default=200, help="of each document")
    parser.add_argument("--same", action="store_true", help="one text for all, so that the cache knows it")
    print(uvloop.run(_measure(parser.parse_args())))


if __name__ == "__main__":
    main()
