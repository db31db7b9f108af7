"""Sections C and D as a supervisor sees them: a process of its own that dies, hangs, or does not start."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.figures import Measured
from tests.live import LiveServer, free_port
from tests.served import POISON_WORD, poison_script


@contextlib.contextmanager
def fake_server(tmp_path: Path, script: str = "", *flags: str) -> Iterator[LiveServer]:
    """``rerankd serve --engine fake``, started and not awaited."""
    server = LiveServer(
        *("--engine", "fake", "--cache", "off", "--fake-script", script, *flags), log=tmp_path / "server.log"
    )
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.process.send_signal(signal.SIGCONT)
            server.process.kill()
        server.process.wait()


def ask(server: LiveServer, document: str = "d", query: str = "q", timeout: float = 20) -> httpx.Response:
    return httpx.post(f"{server.url}/rerank", json={"query": query, "documents": [document]}, timeout=timeout)


def wait_listening(server: LiveServer) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1):
            return
        time.sleep(0.02)
    raise AssertionError(server.log.read_text())


@pytest.mark.promise("D-01")
def test_it_is_alive_but_not_ready_before_warm_up(tmp_path: Path, measured: Measured) -> None:
    with fake_server(tmp_path, "load_seconds=3") as server:
        wait_listening(server)
        livez, readyz = (httpx.get(f"{server.url}/{probe}").status_code for probe in ("livez", "readyz"))
        refused = ask(server)
        server.wait_ready()
        after = ask(server).status_code
    measured(
        "D-01",
        "before warm-up",
        "livez 200, readyz 503, requests 503",
        f"livez {livez}, readyz {readyz}, requests {refused.status_code}, then {after}",
    )
    assert (livez, readyz, refused.status_code, after) == (200, 503, 503, 200)
    assert int(refused.headers["retry-after"]) >= 1


@dataclass
class Death:
    """What the clients and the supervisor of a dying server saw."""

    statuses: list[int]
    spread: float
    """Seconds between the first and the last 503."""
    code: int
    seconds: float
    """From the fatal request to the end of the process."""

    def __str__(self) -> str:
        told = self.statuses.count(503)
        return f"{told} x 503 within {self.spread:.2f} s, exit {self.code} after {self.seconds:.1f} s"


def outlive(server: LiveServer) -> Death:
    """A request that runs, the fatal one behind it, and ten behind that."""

    def timed(document: str, query: str) -> tuple[int, float]:
        body = {"query": query, "documents": [document]}
        return client.post("/rerank", json=body).status_code, time.monotonic()

    with httpx.Client(base_url=server.url, timeout=20) as client, ThreadPoolExecutor(20) as pool:
        first = pool.submit(timed, "d", "first")
        time.sleep(0.1)
        started = time.monotonic()
        fatal = pool.submit(timed, "d" + POISON_WORD, "fatal")
        time.sleep(0.1)
        waiting = [pool.submit(timed, f"d{number}", f"q{number}") for number in range(10)]
        answers = [future.result() for future in (first, fatal, *waiting)]
    code = server.process.wait(timeout=20)
    told = [moment for status, moment in answers if status == 503]
    return Death([status for status, _ in answers], max(told) - min(told), code, seconds=time.monotonic() - started)


@pytest.mark.promise("C-09")
def test_a_sticky_fault_ends_the_process_after_everybody_was_told(tmp_path: Path, measured: Measured) -> None:
    with fake_server(tmp_path, f"seconds_per_batch=1,{poison_script('die_on')}", "--max-batch-tokens", "8") as server:
        server.wait_ready()
        death = outlive(server)
    measured(
        "C-09",
        "sticky fault, over HTTP",
        "waiters 503 < 1 s, exit != 0 < 8 s",
        str(death),
    )
    assert death.statuses.count(503) >= 10
    assert set(death.statuses) <= {200, 503}
    assert death.spread < 1
    assert death.code != 0
    assert death.seconds < 8


@pytest.mark.promise("D-03")
@pytest.mark.slow
def test_a_hung_engine_ends_the_process(tmp_path: Path, measured: Measured) -> None:
    with fake_server(
        tmp_path, f"seconds_per_batch=1,{poison_script('hang_on')}", "--engine-timeout-seconds", "2"
    ) as server:
        server.wait_ready()
        death = outlive(server)
    measured(
        "D-03",
        "score never returns, over HTTP, limit 2 s",
        "declared dead, exit != 0",
        str(death),
    )
    assert death.statuses.count(503) >= 10
    assert set(death.statuses) <= {200, 503}
    assert death.code != 0
    assert death.seconds < 8


@pytest.mark.promise("D-07")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "flags", "word"),
    [
        ("missing weights", ("--engine", "native", "--model", "./nowhere"), "nowhere"),
        ("bad dtype", ("--dtype", "float7"), "float7"),
        ("unknown setting value", ("--max-documents", "many"), "max-documents"),
        ("bad script", ("--fake-script", "explode=now"), "explode"),
    ],
)
def test_a_failure_to_start_is_loud(
    case: str, flags: tuple[str, ...], word: str, tmp_path: Path, measured: Measured
) -> None:
    started = time.monotonic()
    with fake_server(tmp_path, "", *flags) as server:
        code = server.process.wait(timeout=20)
        seconds = time.monotonic() - started
    log = server.log.read_text()
    said = [line for line in log.splitlines() if word in line]
    measured("D-07", case, "exit != 0 < 10 s, one clear line", f"exit {code} in {seconds:.1f} s: {said[-1:]}"[:90])
    assert code != 0
    assert seconds < 10
    assert said
    assert "Traceback" not in log


@pytest.mark.promise("D-07")
@pytest.mark.slow
def test_a_port_in_use_is_said_in_one_line(tmp_path: Path, measured: Measured) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        started = time.monotonic()
        with fake_server(tmp_path, "", "--port", str(port)) as server:
            code = server.process.wait(timeout=20)
            seconds = time.monotonic() - started
    log = server.log.read_text()
    measured("D-07", "port in use", "exit != 0 < 10 s, one clear line", f"exit {code} in {seconds:.1f} s")
    assert code != 0
    assert str(port) in log
    assert "Traceback" not in log


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    found = (child for task in tasks.iterdir() for child in (task / "children").read_text().split())
    return [int(child) for child in found]


@pytest.mark.promise("D-08")
@pytest.mark.slow
def test_nothing_survives_the_server(tmp_path: Path, measured: Measured) -> None:
    with fake_server(tmp_path) as server:
        server.wait_ready()
        ask(server)
        children = children_of(server.process.pid)
        server.process.kill()
        server.process.wait()
        with pytest.raises(httpx.TransportError):
            ask(server, timeout=2)
    measured(
        "D-08", "kill -9 the server", "children gone < 5 s", f"it has {len(children)} children, port closed at once"
    )
    assert children == []


@pytest.mark.slow
def test_a_killed_server_starts_again_on_the_same_port(tmp_path: Path) -> None:
    port = free_port()
    for _ in range(2):
        server = LiveServer("--engine", "fake", port=port, log=tmp_path / "server.log")
        try:
            assert ask(server.wait_ready()).status_code == 200
        finally:
            server.process.kill()
            server.process.wait()
