"""Section E: how a server ends, and how it changes its model. Real processes, real signals."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.figures import Measured
from tests.live import LiveServer
from tests.raw import RawConnection, body_of, head, percentile, post

from rerankd.model_hub import resolve_checkpoint

SLOW = "seconds_per_batch=1.0"


@contextlib.contextmanager
def server_of(tmp_path: Path, *flags: str, script: str = "", ready: bool = True) -> Iterator[LiveServer]:
    server = LiveServer("--engine", "fake", "--fake-script", script, *flags, log=tmp_path / "server.log")
    try:
        yield server.wait_ready() if ready else server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()


def exit_of(server: LiveServer, seconds: float = 30) -> tuple[int, float]:
    """The exit status and how long it took."""
    started = time.monotonic()
    return server.process.wait(timeout=seconds), time.monotonic() - started


def asked(pool: ThreadPoolExecutor, client: httpx.Client, count: int) -> list[Future[httpx.Response]]:
    return [
        pool.submit(client.post, "/rerank", json={"query": f"q{number}", "documents": ["d"]})
        for number in range(count)
    ]


def wait_in_flight(server: LiveServer, client: httpx.Client, count: int) -> None:
    """Until so many requests wait or run."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        metrics = client.get("/metrics").text
        if f'reranker_queue_requests{{model="tiny"}} {count}.0' in metrics:
            return
        time.sleep(0.01)
    raise AssertionError(f"never saw {count} requests in flight:\n{server.log.read_text()}")


@pytest.mark.promise("E-01")
def test_sigterm_finishes_what_is_in_flight(tmp_path: Path, measured: Measured) -> None:
    with (
        server_of(tmp_path, "--drain-grace-seconds", "0.5", script=SLOW) as server,
        ThreadPoolExecutor(8) as pool,
        httpx.Client(base_url=server.url, timeout=20) as client,
    ):
        answers = asked(pool, client, 6)
        wait_in_flight(server, client, 6)
        server.process.terminate()
        time.sleep(0.1)
        readyz = client.get("/readyz")
        in_grace = pool.submit(client.post, "/rerank", json={"query": "late", "documents": ["d"]})
        time.sleep(0.7)
        after_grace = client.post("/rerank", json={"query": "too late", "documents": ["d"]})
        statuses = [answer.result().status_code for answer in answers]
        late = in_grace.result().status_code
        code, _ = exit_of(server)
    measured(
        "E-01",
        "SIGTERM with 6 in flight",
        "6/6 200, readyz 503 at once, new ones 503 after the grace, exit 0",
        f"{statuses.count(200)}/6, readyz {readyz.status_code}, {late} in the grace, "
        f"{after_grace.status_code} after it, exit {code}",
    )
    assert statuses == [200] * 6
    assert (readyz.status_code, late, after_grace.status_code, code) == (503, 200, 503, 0)
    assert after_grace.json()["code"] == "draining"
    assert after_grace.headers["connection"] == "close"
    assert int(after_grace.headers["retry-after"]) >= 1


@pytest.mark.promise("E-02")
@pytest.mark.slow
def test_idle_connections_do_not_hold_the_exit(tmp_path: Path, measured: Measured) -> None:
    with server_of(tmp_path, "--drain-grace-seconds", "0.2") as server, contextlib.ExitStack() as open_connections:
        for start in (head("/livez", method="GET"), post(body_of(1)), b"POST /rerank HT", head(content_length=9)):
            connection = open_connections.enter_context(RawConnection(server.port))
            connection.send(start)
        time.sleep(0.2)
        server.process.terminate()
        code, seconds = exit_of(server)
    measured(
        "E-02", "four idle or half-sent connections", "exit 0 within the limit", f"exit {code} in {seconds:.1f} s"
    )
    assert code == 0
    assert seconds < 3


@pytest.mark.promise("E-03")
@pytest.mark.slow
def test_the_drain_limit_is_kept_and_answered(tmp_path: Path, measured: Measured) -> None:
    flags = ("--drain-grace-seconds", "0.2", "--drain-seconds", "2")
    with (
        server_of(tmp_path, *flags, script="seconds_per_batch=5.0") as server,
        ThreadPoolExecutor(8) as pool,
        httpx.Client(base_url=server.url, timeout=20) as client,
    ):
        answers = asked(pool, client, 3)
        wait_in_flight(server, client, 3)
        server.process.terminate()
        code, seconds = exit_of(server)
        responses = [answer.result() for answer in answers]
    statuses = [response.status_code for response in responses]
    measured(
        "E-03",
        "a request of 5 s and a drain of 2 s",
        "503/504, exit at the limit +- 1 s",
        f"{statuses}, exit {code} after {seconds:.1f} s",
    )
    assert set(statuses) <= {503, 504}
    assert code == 0
    assert 1 <= seconds <= 3


@pytest.mark.promise("E-04")
def test_sigterm_while_loading_ends_at_once(tmp_path: Path, measured: Measured) -> None:
    with server_of(tmp_path, script="load_seconds=30", ready=False) as server:
        wait_alive(server)
        server.process.terminate()
        code, seconds = exit_of(server)
    measured("E-04", "SIGTERM while loading", "exit < 5 s", f"exit {code} in {seconds:.1f} s")
    assert code == 0
    assert seconds < 5


def wait_alive(server: LiveServer) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{server.url}/livez", timeout=2)
            return
        time.sleep(0.02)


@pytest.mark.thorough
@pytest.mark.parametrize("first", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, first: signal.Signals) -> None:
    with server_of(tmp_path, "--drain-grace-seconds", "20") as server:
        server.process.send_signal(first)
        time.sleep(0.2 if first is signal.SIGTERM else 0.02)
        server.process.send_signal(signal.SIGTERM)
        _, seconds = exit_of(server)
    assert seconds < 2


@pytest.mark.slow
def test_a_person_who_presses_control_c_does_not_wait_for_load_balancers(tmp_path: Path) -> None:
    with server_of(tmp_path, "--drain-grace-seconds", "20") as server:
        server.process.send_signal(signal.SIGINT)
        code, seconds = exit_of(server)
    assert code == 0
    assert seconds < 2


@pytest.mark.promise("D-04")
@pytest.mark.slow  # judged by the clock: the machine must be quiet
def test_probes_answer_quickly_under_full_load(tmp_path: Path, measured: Measured) -> None:
    stop = threading.Event()

    def flood(client: httpx.Client) -> None:
        while not stop.is_set():
            client.post("/rerank", content=body_of(20, 400), headers={"Content-Type": "application/json"})

    with (
        server_of(tmp_path, "--queue-requests", "8", "--cache", "off", script="seconds_per_batch=0.05") as server,
        ThreadPoolExecutor(24) as pool,
        httpx.Client(base_url=server.url, timeout=20, limits=httpx.Limits(max_connections=64)) as client,
    ):
        for _ in range(24):
            pool.submit(flood, client)
        seconds = []
        with httpx.Client(base_url=server.url, timeout=5) as prober:
            for number in range(200):
                started = time.perf_counter()
                prober.get("/livez" if number % 2 else "/readyz").raise_for_status()
                seconds.append(time.perf_counter() - started)
                time.sleep(0.01)
            metrics = prober.get("/metrics").text
        stop.set()
    worst = percentile(seconds, 0.99)
    measured(
        "D-04",
        "200 probes beside 24 flooding clients, queue of 8",
        "p99 < 100 ms, 0 failures",
        f"{worst * 1000:.0f} ms",
    )
    assert 'status="429"' in metrics
    assert worst < 0.1


@pytest.fixture
def own_model(tmp_path: Path) -> Path:
    """A copy of the embedded model that a test may break."""
    return Path(shutil.copytree(resolve_checkpoint("tiny"), tmp_path / "model"))


ADMIN = {"Authorization": "Bearer secret"}


def scores_of(client: httpx.Client) -> list[float]:
    body = {"query": "capital of France", "documents": ["Paris is the capital of France.", "Bananas are yellow."]}
    response = client.post("/rerank", json=body)
    scores: list[float] = response.raise_for_status().json()["scores"]
    return scores


@pytest.mark.promise("E-06")
def test_a_failed_reload_keeps_the_old_model(tmp_path: Path, own_model: Path, measured: Measured) -> None:
    flags = ("--model", str(own_model), "--threads", "1", "--admin-keys", "root:secret")
    with server_of(tmp_path, *flags) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        before = scores_of(client)
        (own_model / "tokenizer.json").write_text("{broken")
        failed = client.post("/admin/reload", headers=ADMIN)
        after = scores_of(client)
        ready = client.get("/readyz").status_code
    measured(
        "E-06",
        "reload of a broken model",
        "old scores identical, error reported",
        f"{failed.status_code}, identical: {before == after}, readyz {ready}",
    )
    assert failed.status_code == 500
    assert "old models go on serving" in failed.json()["message"]
    assert before == after
    assert ready == 200


@pytest.mark.promise("E-07")
def test_a_reload_never_serves_scores_of_the_old_model(tmp_path: Path, own_model: Path, measured: Measured) -> None:
    flags = ("--model", str(own_model), "--threads", "1", "--admin-keys", "root:secret")
    with server_of(tmp_path, *flags) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        scores_of(client)
        cached = client.post("/rerank", json={"query": "q", "documents": ["a", "b"]})
        cached = client.post("/rerank", json={"query": "q", "documents": ["a", "b"]})
        template = json.loads((own_model / "template.json").read_text())
        (own_model / "template.json").write_text(json.dumps({**template, "scale": 2.0}))
        assert client.post("/admin/reload", headers=ADMIN).status_code == 200
        fresh = client.post("/rerank", json={"query": "q", "documents": ["a", "b"]})
    hits = [response.json()["meta"]["cached_documents"] for response in (cached, fresh)]
    measured(
        "E-07", "cache warm, new revision", "0 hits of the old revision", f"{hits[0]} hits before, {hits[1]} after"
    )
    assert hits == [2, 0]


@pytest.mark.slow
def test_requests_during_a_reload_are_answered(tmp_path: Path, own_model: Path) -> None:
    flags = ("--model", str(own_model), "--admin-keys", "root:secret", "--cache", "off")
    with (
        server_of(tmp_path, *flags, script="seconds_per_batch=0.02") as server,
        ThreadPoolExecutor(4) as pool,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        reloads = [pool.submit(client.post, "/admin/reload", headers=ADMIN) for _ in range(1)]
        statuses = []
        while not all(reload.done() for reload in reloads):
            statuses.append(client.post("/rerank", json={"query": "q", "documents": ["d"]}).status_code)
        assert reloads[0].result().status_code == 200
    assert set(statuses) <= {200}


@pytest.mark.slow
def test_the_port_is_free_as_soon_as_the_process_has_ended(tmp_path: Path) -> None:
    with server_of(tmp_path, "--drain-grace-seconds", "0.1") as server:
        assert server.stop() == 0
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", server.port))
