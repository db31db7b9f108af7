"""benchmarks/gpu.py, as far as a machine without a GPU can tell."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import gpu, gpu_card
from benchmarks.gpu_engine import REFERENCE, EngineRun, Transformers, Turns, requests_of
from benchmarks.workloads import Workload
from tests.checkpoints import SMALL

from rerankd.engine.base import EngineOptions, HeadSpec
from rerankd.engine.registry import create_engine


def test_the_rival_computes_the_reference_s_scores(small_checkpoint: Path, make_forest) -> None:
    options = EngineOptions(small_checkpoint, HeadSpec("words", 9, 8), dtype="float32", device="cpu")
    batch = make_forest(6, 60)
    scores = []
    for engine in (create_engine("reference", options), Transformers(options, "sdpa")):
        engine.load()
        scores.append(engine.score(batch))
    assert np.abs(scores[1] - scores[0]).max() <= 1e-4


def test_an_engine_that_computes_something_else_has_no_time() -> None:
    found = {
        REFERENCE: Turns([0.0, 1.0]),
        "native:bfloat16": Turns([0.01, 1.0], [0.2, 0.1, 0.3], 5000.0),
        "wrong:bfloat16": Turns([1.0, 0.0], [0.001]),
        "sdpa:bfloat16": Turns([0.0, 1.01], [0.4], 7000.0, gpu_card.Draw(300.0, 9000.0)),
    }
    runs = {name: EngineRun(name, "", 1.0, {"one": turns}) for name, turns in found.items()}
    peaks = {"bfloat16": {"rate": 1e-3}}
    native, wrong, rival = gpu.engine_rows(runs, "one", "small", peaks)
    assert (native["milliseconds, median"], native["pairs/s"], native["prompt tokens/s"]) == ("200.0", "5", "1175")
    assert (native["times the slowest"], rival["times the slowest"]) == ("2.00", "1.00")
    assert rival["MB of the card, W"] == "9000, 300"
    assert float(str(native["share of peak"]).rstrip("%")) == pytest.approx(
        2 * float(str(rival["share of peak"])[:-1]), abs=1
    )
    assert {wrong[column] for column in wrong if column.endswith(("/s", "median", "best", "slowest"))} == {"void"}


def test_without_the_reference_no_row_means_anything() -> None:
    runs = {"native:bfloat16": EngineRun("native:bfloat16", "", 1.0, {"one": Turns([0.0], [0.1])})}
    assert gpu.engine_rows(runs, "one", "small", {}) == []


def test_every_engine_is_asked_the_same_and_nothing_twice() -> None:
    first, second = (list(requests_of(Workload(3, 5, 7), 1000, 3)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(one.tails, other.tails, strict=True))
    assert len({tuple(part.prefix.tolist()) for part in first}) == 3


def test_requests_begin_alike_for_as_many_tokens_as_asked() -> None:
    requests = list(requests_of(Workload(3, 5, 7), 1000, 3, alike=4))
    assert {len({tuple(part.prefix[:length].tolist()) for part in requests}) for length in (4, 5)} == {1, 3}
    assert {len(part.prefix) for part in requests} == {5}


def test_the_driver_s_lines_become_watts_and_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 100.0, 500\necho '[N/A], [N/A]'\necho 300.0, 700\nexec sleep 60\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with gpu_card.watched() as draw:
        while (found := draw()) is None or found.watts == 100.0:
            time.sleep(0.01)
    assert found == gpu_card.Draw(200.0, 700.0)
    monkeypatch.setenv("PATH", "")
    with gpu_card.watched() as draw:
        assert draw() is None


def test_rows_of_attention_say_which_kernel_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel gets the same queries; without a card ours is the definition, and FlashAttention is missing."""
    from tests.engine.cuda_on_cpu import plain_attention

    from rerankd.engine.native.cuda import ops

    seen = []

    def attention(*given: torch.Tensor) -> torch.Tensor:
        seen.append(plain_attention(*given))
        return seen[-1]

    monkeypatch.setattr(ops, "attention", attention)
    monkeypatch.setattr(gpu_card, "_TURNS", 1)
    found = gpu_card.attention(SMALL, Workload(2, 77, 7), "cpu")
    assert found["prefix tree"] is not None
    assert found["prefix tree"] > 0
    assert found["flash_attn varlen"] is None
    assert all(torch.isfinite(rows).all() for rows in seen)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_command_says_what_failed_and_is_resumed_where_it_stopped(tmp_path: Path) -> None:
    asked = ["--device", "cpu", "--layouts", "small", "--stages", "engines", "--workloads", "B", "--repeat", "2"]

    def run(*more: str) -> str:
        command = [sys.executable, gpu.__file__, "--out", str(tmp_path), *asked, *more]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "not begun, the time is over" in run("--engines", "native:float32", "--seconds", "0")
    first = run("--engines", "native:float32,native:fp8")
    assert "small native:fp8: exit status 1" in first
    assert "it wrote nothing" in first
    assert "small layout" in first
    kept = tmp_path / "small" / "native-float32.json"
    before = kept.stat().st_mtime_ns
    again = run("--engines", "native:float32")
    assert "small native:float32: kept" in again
    assert kept.stat().st_mtime_ns == before
    turns = json.loads(kept.read_text(encoding="utf-8"))["workloads"]["B"]
    assert len(turns["seconds"]) == 2
    assert "small layout" in (tmp_path / "report.md").read_text(encoding="utf-8")
