"""benchmarks/gpu.py, as far as a machine without a GPU can tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import gpu

from rerankd.engine.base import EngineOptions, HeadSpec
from rerankd.engine.registry import create_engine


def test_the_rival_computes_the_reference_s_scores(small_checkpoint: Path, make_forest) -> None:
    options = EngineOptions(small_checkpoint, HeadSpec("words", 9, 8), dtype="float32", device="cpu")
    batch = make_forest(6, 60)
    scores = []
    for engine in (create_engine("reference", options), gpu.Transformers(options, "sdpa")):
        engine.load()
        scores.append(engine.score(batch))
    assert np.abs(scores[1] - scores[0]).max() <= 1e-4


def test_an_engine_that_computes_something_else_has_no_time() -> None:
    found = {
        "reference:float32": gpu.Turns([0.0, 1.0]),
        "native:bfloat16": gpu.Turns([0.01, 1.0], [0.2, 0.1, 0.3], 5000.0),
        "wrong:bfloat16": gpu.Turns([1.0, 0.0], [0.001]),
        "sdpa:bfloat16": gpu.Turns([0.0, 1.01], [0.4], 7000.0),
    }
    native, wrong, rival = gpu._rows(found, gpu.Workload(2, 10, 40))
    assert (native["milliseconds, median"], native["pairs/s"], native["prompt tokens/s"]) == ("200.0", "10", "500")
    assert (native["times the slowest"], rival["times the slowest"]) == ("2.00", "1.00")
    assert {wrong[column] for column in wrong if column.endswith(("/s", "median", "best", "slowest"))} == {"void"}


def test_every_engine_is_asked_the_same_and_nothing_twice() -> None:
    first, second = (list(gpu._requests(gpu.Workload(3, 5, 7), 1000, 3)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(one.tails, other.tails, strict=True))
    assert len({tuple(part.prefix.tolist()) for part in first}) == 3


def test_requests_begin_alike_for_as_many_tokens_as_asked() -> None:
    requests = list(gpu._requests(gpu.Workload(3, 5, 7), 1000, 3, alike=4))
    assert {len({tuple(part.prefix[:length].tolist()) for part in requests}) for length in (4, 5)} == {1, 3}
    assert {len(part.prefix) for part in requests} == {5}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_command_writes_the_table_and_says_what_failed(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    asked = ["--device", "cpu", "--layouts", "small", "--engines", "native:float32,native:fp8", "--workloads", "B"]
    command = [sys.executable, gpu.__file__, *asked, "--repeat", "2", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "native:fp8: failed" in done.stdout
    record = json.loads(out.read_text(encoding="utf-8"))
    assert set(record) == {"machine", "command", "tables"}
    ((title, (row,)),) = record["tables"].items()
    assert "small layout" in title
    assert row["engine"] == "native:float32"
    assert float(row["milliseconds, median"]) > 0
