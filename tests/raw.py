"""Requests byte by byte, and what a process weighs: for tests of what no well-behaved client does."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx


class RawConnection:
    """A TCP connection to a server on this machine."""

    def __init__(self, port: int, timeout: float = 10.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._rest = b""

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes) -> int:
        """How many bytes left before the server closed."""
        sent = 0
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(data), 65536):
                self._socket.sendall(data[start : start + 65536])
                sent += len(data[start : start + 65536])
        return sent

    def read_all(self) -> bytes:
        """Everything until the server closes (or resets) the connection; raises TimeoutError if it does not."""
        read, self._rest = self._rest, b""
        with contextlib.suppress(ConnectionError):
            while chunk := self._socket.recv(65536):
                read += chunk
        return read

    def read_response(self) -> tuple[int, bytes]:
        """Status and body of one response with a Content-Length; status 0 where the connection ended before."""
        read = b""
        while b"\r\n\r\n" not in read:
            chunk = self._receive()
            if not chunk:
                return 0, read
            read += chunk
        head, _, body = read.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")),
            0,
        )
        while len(body) < length:
            chunk = self._receive()
            if not chunk:
                break
            body += chunk
        self._rest = body[length:]
        return int(head.split(b" ", 2)[1]), body[:length]

    def _receive(self) -> bytes:
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        with contextlib.suppress(ConnectionError):
            return self._socket.recv(65536)
        return b""


def head(path: str = "/rerank", *, method: str = "POST", **headers: str | int) -> bytes:
    """The head of a request; ``content_length=3`` is the header Content-Length."""
    given = {"Host": "localhost", "Content-Type": "application/json"}
    given |= {name.replace("_", "-").title(): str(value) for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def post(body: bytes, path: str = "/rerank", **headers: str | int) -> bytes:
    return head(path, content_length=len(body), **headers) + body


def request_of(documents: int = 10, characters: int = 200) -> dict[str, Any]:
    """A plain request; each document is another text."""
    return {
        "query": "what is asked",
        "documents": [f"{index} " + "word " * (characters // 5) for index in range(documents)],
    }


def body_of(documents: int = 10, characters: int = 200) -> bytes:
    return json.dumps(request_of(documents, characters)).encode()


@dataclass
class Memory:
    """How far a process's resident memory rose above where it stood, in bytes, at its highest."""

    pid: int
    before: int = field(init=False)

    def __post_init__(self) -> None:
        # 5: forget the high-water mark.
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        self.before = self._status("VmRSS")

    def growth(self) -> int:
        return self._status("VmHWM") - self.before

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
        raise KeyError(name)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Lag:
    """Asks ``/livez`` all the time from a thread: the longest answer is how long the event loop was held."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.seconds: list[float] = []

    @property
    def worst(self) -> float:
        return max(self.seconds, default=0.0)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stop.is_set():
                started = time.perf_counter()
                client.get("/livez")
                self.seconds.append(time.perf_counter() - started)
                time.sleep(0.002)

    @contextlib.contextmanager
    def watched(self) -> Iterator[Lag]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
