"""What computes is shown: in the start line, in ``/info`` and as a metric; and its absence is a warning."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from tests.live import running_server

from rerankd.engine.native.cpu.library import ISA_VARIABLE, NO_KERNELS, KernelsUnavailable, load_kernels

QUESTION = {"query": "a", "documents": ["b", "a"]}


def widest() -> str:
    try:
        return load_kernels().isa
    except KernelsUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.promise("F1", "S10")
@pytest.mark.parametrize("has_kernels", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_a_server_without_kernels_answers_and_says_so(tmp_path: Path, has_kernels: bool) -> None:
    isa, log = widest(), tmp_path / "server.log"
    variable, shown = (isa, isa) if has_kernels else (NO_KERNELS, "torch")
    with running_server("--threads", "1", log=log, env={ISA_VARIABLE: variable}) as server:
        assert httpx.post(f"{server.url}/rerank", json=QUESTION).status_code == 200
        info = httpx.get(f"{server.url}/info").json()
        metrics = httpx.get(f"{server.url}/metrics").text
    lines = log.read_text()
    assert info["kernels"] == shown
    assert f'reranker_engine_kernels{{isa="{shown}",model="tiny"}} 1.0' in metrics
    assert ("no kernels for the CPU" in lines) == (not has_kernels)
    assert (f"C kernels for {isa}" if has_kernels else "RERANKD_CPU_ISA is none") in lines
