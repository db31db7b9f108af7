"""A real server in a process of its own, for tests that send real requests."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from rerankd.settings.testing import TESTING_VARIABLE

ROOT = Path(__file__).parents[1]
NO_GRACE = ("--drain-grace-seconds", "0")
"""Flags of a server that is told to end where nobody looks at how it does: it would take requests for two seconds."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class LiveServer:
    """``rerankd serve`` as a child process on a free loopback port.

    ``log`` holds everything it printed. The process is ours to kill.
    """

    def __init__(self, *flags: str, log: Path, env: dict[str, str] | None = None, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RERANKD_")}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rerankd", "serve", "--port", str(self.port), *flags],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**clean, "PYTHONPATH": str(ROOT / "src"), TESTING_VARIABLE: "1", **(env or {})},
                cwd=log.parent,
            )

    def wait_ready(self, seconds: float = 180.0) -> LiveServer:
        """Wait until ``/readyz`` says 200; a server that ended or took too long fails with its own log."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            # Not httpx: a client takes longer to make than a question takes to answer.
            with contextlib.suppress(OSError, HTTPException), contextlib.closing(self._connection()) as asked:
                asked.request("GET", "/readyz")
                if asked.getresponse().status == 200:
                    return self
            time.sleep(0.03)
        raise AssertionError(f"the server is not ready (exit {self.process.poll()}):\n{self.log.read_text()[-4000:]}")

    def _connection(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=2)

    def stop(self) -> int:
        """SIGTERM, then the exit status; SIGKILL after 40 seconds."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextlib.contextmanager
def running_server(*flags: str, log: Path, env: dict[str, str] | None = None) -> Iterator[LiveServer]:
    """A ready server for the length of a ``with`` block."""
    server = LiveServer(*flags, log=log, env=env)
    try:
        yield server.wait_ready()
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
