"""The processor time that HTTP and scheduling take for one `/rerank`, beside another checkout.

    python benchmarks/request_cost.py                         # this tree
    python benchmarks/request_cost.py --before ../other       # this tree and another checkout, in turns
    python benchmarks/request_cost.py --documents 1000 --loop # the event loop's thread alone

Each checkout's server runs on the fake engine with its score cache off, so that what is left is the work for a
request beside the model. One client sends the same requests to each server in turns, on one kept connection each, and
takes what the kernel has counted for the server's threads before and after. The medians of the rounds are shown.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.machine import machine, print_table

_HERE = Path(__file__).parents[1]
_SETTINGS = {"RERANKD_ENGINE": "fake", "RERANKD_CACHE": "off", "RERANKD_LOG_FORMAT": "json"}
_WARM_REQUESTS = 50
_START_SECONDS = 180
_TURN = 10
"""Requests to one server before it is the other's turn: whatever else slows the machine slows both."""
_TEXT = "Past the old mill the river leaves the valley; it is widest in spring, when the snow of the hills melts."


@dataclass
class Server:
    """A running server, the one connection to it, and what its requests have cost so far."""

    name: str
    process: subprocess.Popen[bytes]
    connection: http.client.HTTPConnection
    microseconds: list[float] = field(default_factory=list)
    """Processor time of one request, a round."""

    def processor_seconds(self, *, loop_alone: bool) -> float:
        """Time that the process's threads, or the first of them, the event loop's, have been on a processor."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        threads = [tasks / str(self.process.pid)] if loop_alone else list(tasks.iterdir())
        nanoseconds = 0
        for thread in threads:
            with contextlib.suppress(FileNotFoundError):  # it has ended
                nanoseconds += int((thread / "schedstat").read_text(encoding="ascii").split()[0])
        return nanoseconds / 1e9

    def rank(self, body: bytes) -> None:
        self.connection.request("POST", "/rerank", body, {"Content-Type": "application/json", "Accept": "*/*"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{self.name}: {answer.status} {text[:200]!r}")


@contextlib.contextmanager
def started(name: str, checkout: Path, port: int) -> Iterator[Server]:
    """The server of a checkout until the block ends."""
    environ = {**os.environ, **_SETTINGS, "PYTHONPATH": str(checkout / "src"), "RERANKD_PORT": str(port)}
    if (checkout / "src/rerankd/settings/testing.py").exists():  # older ones refuse what they do not know
        environ["RERANKD_TESTING"] = "1"
    command = [sys.executable, "-c", "from rerankd.cli.main import cli; cli()", "serve"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, cwd="/")
        server = Server(name, process, http.client.HTTPConnection("127.0.0.1", port, timeout=60))
        try:
            until = time.monotonic() + _START_SECONDS
            while True:
                try:
                    server.rank(_body(3, 0))
                    break
                except (OSError, RuntimeError, http.client.HTTPException):
                    server.connection.close()
                    if process.poll() is not None or time.monotonic() > until:
                        log.seek(0)
                        raise RuntimeError(f"{name} did not start: {log.read()[-2000:].decode()}") from None
                    time.sleep(0.2)
            yield server
        finally:
            server.connection.close()
            process.terminate()
            process.wait(30)


def _body(documents: int, number: int) -> bytes:
    """A request of which no two have a text in common."""
    texts = [f"{number} {index}: {_TEXT[: 60 + 7 * (index % 8)]}" for index in range(documents)]
    return json.dumps({"query": f"{number}: how wide is the river in spring?", "documents": texts}).encode()


def measure(servers: list[Server], documents: int, requests: int, rounds: int, *, loop_alone: bool) -> None:
    """Fill in what a request of so many documents costs each server, a figure a round."""
    numbers = iter(range(1, 10**9))
    for server in servers:
        server.microseconds.clear()
        # The server has closed it if the others took long to start.
        server.connection.close()
        for _ in range(min(_WARM_REQUESTS, requests)):
            server.rank(_body(documents, next(numbers)))
    for _ in range(rounds):
        spent = [0.0] * len(servers)
        for turn in range(0, requests, _TURN):
            bodies = [_body(documents, next(numbers)) for _ in range(min(_TURN, requests - turn))]
            for index, server in enumerate(servers):
                before = server.processor_seconds(loop_alone=loop_alone)
                for body in bodies:
                    server.rank(body)
                spent[index] += server.processor_seconds(loop_alone=loop_alone) - before
        for server, seconds in zip(servers, spent, strict=True):
            server.microseconds.append(seconds / requests * 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--documents", default="3,10,100", help="documents of a request, with commas")
    parser.add_argument("--requests", type=int, default=1000, help="requests of 3 documents a round; fewer of larger")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop", action="store_true", help="count the event loop's thread alone")
    parser.add_argument("--port", type=int, default=8098, help="and the one after it")
    chosen = parser.parse_args()
    checkouts = {"this tree": _HERE}
    if chosen.before:
        checkouts = {"before": chosen.before.resolve(), **checkouts}
    rows: list[dict[str, object]] = []
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(started(name, checkout, chosen.port + index))
            for index, (name, checkout) in enumerate(checkouts.items())
        ]
        for documents in map(int, chosen.documents.split(",")):
            requests = max(10, chosen.requests * 10 // (documents + 7))
            measure(servers, documents, requests, chosen.rounds, loop_alone=chosen.loop)
            medians = [statistics.median(server.microseconds) for server in servers]
            row: dict[str, object] = {"documents": documents, "requests a round": requests}
            for server, median in zip(servers, medians, strict=True):
                row[f"{server.name}, us"] = f"{median:.0f} ({min(server.microseconds):.0f} at least)"
            rows.append(row | ({"ratio": f"{medians[-1] / medians[0]:.2f}"} if len(servers) > 1 else {}))
    print_table("machine", [machine()])
    threads = "the event loop's thread" if chosen.loop else "all threads"
    print_table(f"processor time of one /rerank, {threads}", rows)


if __name__ == "__main__":
    main()
