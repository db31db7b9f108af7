"""The same small application under uvicorn, our protocol over uvicorn's, and granian: cost and manners.

    pip install granian
    python -m benchmarks.asgi_servers

For each server: the most requests a second over 8 connections, the processor time of one request (all threads and
processes of the server; it hardly changes when others use the machine), how long half a header and half a body stay
open, and what becomes of oversized headers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.http_load import closed_loop, make_body
from rerankd.http.listener import Listener, open_socket
from rerankd.observe.metrics import Metrics
from rerankd.settings import Settings

ROOT = Path(__file__).parents[1]
PORT = 8950
PATIENCE = 40.0
START = b"POST / HTTP/1.1\r\nHost: x\r\n"
HALF_HEADER = START + b"X-"
HALF_BODY = START + b"Content-Length: 9\r\n\r\n{"
LONG_HEADER = START + b"X: " + b"x" * 2_000_000 + b"\r\n\r\n"

SERVERS = {
    "uvicorn": "-m uvicorn benchmarks.asgi_servers:app --loop uvloop --no-access-log --log-level error",
    "ours": "-m benchmarks.asgi_servers --serve",
    "granian": "-m granian benchmarks.asgi_servers:app --interface asgi --loop uvloop --log-level error",
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads a JSON body and answers with as many numbers as it has documents."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    documents = json.loads(body)["documents"] if body else []
    answer = json.dumps({"scores": [0.5] * len(documents)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def serve_ours(port: int) -> None:
    await Listener(app, Settings(), Metrics()).open(open_socket("127.0.0.1", port))
    await asyncio.Event().wait()


@contextlib.contextmanager
def running(command: str) -> Iterator[int]:
    """The server's process, listening."""
    arguments = [sys.executable, *command.split(), "--port", str(PORT)]
    process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT)):
                break
            time.sleep(0.1)
        time.sleep(1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def processor_seconds(pid: int) -> float:
    """User and system time of a process and its children."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if pid in (int(stat.parent.name), int(fields[1])):
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(pid: int) -> str:
    """The best of three runs."""
    url, body = f"http://127.0.0.1:{PORT}", make_body(10, 200, same=True)
    rates, costs = [], []
    for _ in range(3):
        before = processor_seconds(pid)
        result = uvloop.run(closed_loop(url, 8, 3, body))
        rates.append(result.rate)
        costs.append((processor_seconds(pid) - before) / len(result.seconds) * 1000)
    return f"{max(rates):.0f}/s, {min(costs):.3f} ms of processor time a request"


def held_open(data: bytes) -> str:
    """How long the server waits for the rest."""
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", PORT), timeout=PATIENCE) as connection:
        connection.sendall(data)
        try:
            while connection.recv(4096):
                pass
        except TimeoutError:
            return f"open after {PATIENCE:.0f} s"
    return f"closed after {time.monotonic() - started:.0f} s"


def answer_to(data: bytes) -> str:
    with socket.create_connection(("127.0.0.1", PORT), timeout=5) as connection, contextlib.suppress(OSError):
        connection.sendall(data)
        return connection.recv(4096).split(b"\r\n")[0].decode()
    return "reset"


def main() -> None:
    for name, command in SERVERS.items():
        with running(command) as pid:
            print(f"{name:8} {measure(pid)}")
            print(f"         half a header: {held_open(HALF_HEADER)}")
            print(f"         half a body: {held_open(HALF_BODY)}")
            print(f"         a header of 2 MB: {answer_to(LONG_HEADER)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        uvloop.run(serve_ours(int(sys.argv[-1])))
    else:
        main()
