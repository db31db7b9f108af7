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
def test_a_server_without_kernels_answers_and_says_so(tmp_path: Path) -> None:
    isa = widest()
    for variable, shown in ((NO_KERNELS, "torch"), (isa, isa)):
        log = tmp_path / f"{shown}.log"
        with running_server(log=log, env={ISA_VARIABLE: variable}) as server:
            assert httpx.post(f"{server.url}/rerank", json=QUESTION).status_code == 200
            info = httpx.get(f"{server.url}/info").json()
            metrics = httpx.get(f"{server.url}/metrics").text
        lines = log.read_text()
        assert info["kernels"] == shown
        assert f'reranker_engine_kernels{{isa="{shown}",model="tiny"}} 1.0' in metrics
        assert ("no kernels for the CPU" in lines) == (shown == "torch")
        assert ("RERANKD_CPU_ISA is none" if shown == "torch" else f"C kernels for {isa}") in lines
