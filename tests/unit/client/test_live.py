"""The clients against real sockets: each phase that can be slow, and connections that break."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from rerankd.client import AsyncClient, Client, Timeout, errors


class Handler(BaseHTTPRequestHandler):
    """Answers as the server does; ``release`` holds back the query "slow"."""

    protocol_version = "HTTP/1.1"
    arrived = threading.Event()
    release = threading.Event()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["query"] == "slow":
            self.arrived.set()
            self.release.wait(10)
        if asked["query"] == "reset":
            # A close with nothing lingering sends a reset instead of an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        body = json.dumps({"scores": [len(text) / 10 for text in asked["documents"]]}).encode()
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests' output stays clean."""


@pytest.fixture
def address() -> Iterator[str]:
    Handler.release.clear()
    Handler.arrived.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Handler.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def deaf_address() -> Iterator[str]:
    """A listener whose queue is full: connections to it neither open nor fail."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def unread_address() -> Iterator[str]:
    """A listener that takes a connection and reads nothing from it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_real_server_is_asked_and_answers(address: str) -> None:
    with Client(address) as client:
        assert [result.index for result in client.rank("q", ["a", "ccc", "bb"])] == [1, 2, 0]


async def test_a_real_server_is_asked_and_answers_for_asyncio_too(address: str) -> None:
    async with AsyncClient(address) as client:
        assert [result.index for result in await client.rank("q", ["a", "ccc", "bb"])] == [1, 2, 0]


def test_a_server_that_does_not_take_the_connection_is_a_connect_timeout(deaf_address: str) -> None:
    with (
        Client(deaf_address, timeout=Timeout(connect=0.2), retries=0) as client,
        pytest.raises(errors.ConnectTimeout),
    ):
        client.rank("q", ["a"])


def test_a_server_that_does_not_read_is_a_write_timeout(unread_address: str) -> None:
    with Client(unread_address, timeout=Timeout(write=0.2)) as client, pytest.raises(errors.WriteTimeout):
        client.rank("q", ["a" * 20_000_000])


def test_a_server_that_does_not_answer_is_a_read_timeout(address: str) -> None:
    with Client(address, timeout=Timeout(read=0.2)) as client, pytest.raises(errors.ReadTimeout):
        client.rank("slow", ["a"])


def test_the_whole_call_is_bounded_beside_its_phases(address: str) -> None:
    with Client(address, timeout=Timeout(total=0.2)) as client, pytest.raises(errors.ReadTimeout):
        client.rank("slow", ["a"])


def test_connections_that_are_all_busy_are_a_pool_timeout(address: str) -> None:
    transport = httpx.HTTPTransport(limits=httpx.Limits(max_connections=1))
    with Client(address, timeout=Timeout(pool=0.3), transport=transport) as client:
        slow = threading.Thread(target=client.rank, args=("slow", ["a"]))
        slow.start()
        assert Handler.arrived.wait(10)
        with pytest.raises(errors.PoolTimeout):
            client.rank("q", ["a"])
        Handler.release.set()
        slow.join()


def test_a_reset_connection_is_a_failed_connection(address: str) -> None:
    with Client(address, retries=0) as client, pytest.raises(errors.ConnectionFailed):
        client.rank("reset", ["a"])


def test_a_closed_port_is_a_failed_connection() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", retries=0) as client, pytest.raises(errors.ConnectionFailed):
        client.rank("q", ["a"])


def test_the_client_loads_nothing_but_httpx_the_standard_library_and_itself() -> None:
    code = (
        "import sys, httpx; before = set(sys.modules); import rerankd.client; "
        "print('\\n'.join({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) - set(sys.stdlib_module_names) == {"rerankd"}
    code = "import sys, rerankd.client; print('\\n'.join(name for name in sys.modules if name.startswith('rerankd')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name for name in run.stdout.split() if not name.startswith("rerankd.client")} == {"rerankd"}
