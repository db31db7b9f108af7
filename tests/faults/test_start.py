"""A server that starts: what holds the interpreter is done before anybody can ask, so that probes never wait."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.figures import Measured
from tests.live import ROOT, LiveServer
from tests.raw import RawConnection, head

MOST_SECONDS = 0.1

COUNTED = """
import os, sys
from rerankd.http import server
from rerankd.prompt import tokenizer
from rerankd.settings import ModelSettings, Settings

read, load, bind = [], tokenizer._load, server.open_socket

def counted(*given):
    read.append(given)
    return load(*given)

def seen(host, port):
    print("torch" in sys.modules, "onnxruntime" in sys.modules, len(read))
    return bind(host, port)

def ready(_):
    print(len(read), flush=True)
    os._exit(0)

tokenizer._load, server.open_socket = counted, seen
server.run(Settings(port=0, cache="off", models={"other": ModelSettings(engine="onnx")}), ready)
"""
"""Prints what was imported and how many tokenizers were read when the socket opened, then how many when ready."""


@pytest.mark.promise("P12")
def test_engines_are_imported_and_tokenizers_read_before_anybody_can_wait_for_them(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", COUNTED],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["True", "True", "2", "2"]


@pytest.mark.slow
@pytest.mark.promise("P12")
@pytest.mark.parametrize("engine", ["native", "onnx"])
def test_livez_answers_at_once_from_the_first_connection_on(tmp_path: Path, measured: Measured, engine: str) -> None:
    """Asked all the time, from before the server listens until it is ready."""
    server = LiveServer("--engine", engine, "--threads", "1", log=tmp_path / "server.log")
    seconds: list[float] = []
    status, until = 0, time.monotonic() + 120
    try:
        while status != 200 and server.process.poll() is None and time.monotonic() < until:
            for path in ("/livez", "/readyz"):
                with contextlib.suppress(ConnectionRefusedError):
                    started = time.perf_counter()
                    status = status_of(server, path)
                    seconds.append(time.perf_counter() - started)
                    assert path == "/readyz" or status == 200
    finally:
        server.stop()
    assert status == 200, server.log.read_text()
    worst = max(seconds) * 1000
    measured("P12", f"start, {engine}", "livez under 100 ms", f"{worst:.0f} ms, {len(seconds)} asked")
    assert worst < MOST_SECONDS * 1000


def status_of(server: LiveServer, path: str) -> int:
    with RawConnection(server.port) as connection:
        connection.send(head(path, method="GET"))
        return connection.read_response()[0]
