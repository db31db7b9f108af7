"""A server where there is no uvloop, no ``resource`` and no signal handler of the event loop: as on Windows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.live import ROOT, free_port

WITHOUT = """
import asyncio, sys
sys.modules["uvloop"] = sys.modules["resource"] = None

def refuse(self, number, *rest):
    raise NotImplementedError

asyncio.SelectorEventLoop.add_signal_handler = refuse
from rerankd.cli.main import cli
cli(sys.argv[1:])
"""


@pytest.mark.promise("F14", "U8")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.thorough)])
def test_it_serves_on_asyncio_alone_and_ends_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    flags = ["serve", "--port", str(port), "--engine", "fake", "--drain-grace-seconds", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT, *flags], env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, cwd=tmp_path
    )
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        answer = httpx.post(f"http://127.0.0.1:{port}/rerank", json={"query": "q", "documents": ["a", "b"]})
        assert len(answer.json()["scores"]) == 2
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
