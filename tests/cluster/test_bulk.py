"""Pairs of Parquet files by Ray Data: killed and resumed, every row once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.figures import Measured
from tests.live import ROOT

from rerankd.cluster.bulk import Fields, Part, PartScorer, open_output, parts_of, rows_of
from rerankd.errors import InvalidRequest
from rerankd.settings import Settings

pyarrow = pytest.importorskip("pyarrow", reason="needs the extra ray")
pq = pytest.importorskip("pyarrow.parquet")

FAKE = Settings(engine="fake")


def write(file: Path, rows: int, *, queries: int = 10, words: str = "text", group: int = 1000) -> Path:
    columns: dict[str, Any] = {
        "id": list(range(rows)),
        "query": [f"question {row * queries // rows}" for row in range(rows)],
        "document": [f"{words} of document {row}" for row in range(rows)],
    }
    pq.write_table(pyarrow.table(columns), file, row_group_size=group)
    return file


def written(output: Path) -> list[dict[str, Any]]:
    return [row for file in sorted(output.glob("part-*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_parts_hold_every_row_once_across_files_and_row_groups(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 25, group=7)
    write(tmp_path / "b.parquet", 5)
    parts = list(parts_of(tmp_path, Fields(), 10))
    assert [(part.first, part.rows) for part in parts] == [(0, 10), (10, 10), (20, 5), (0, 5)]
    assert [part.number for part in parts] == [0, 1, 2, 3]
    ids = [row["id"] for part in parts for row in rows_of(part).to_pylist()]
    assert ids == [*range(25), *range(5)]


def test_scores_are_those_of_the_model_and_failures_say_why(tmp_path: Path) -> None:
    table = pyarrow.table(
        {"query": ["q", "q", None, " ", "q"], "document": ["a", None, "b", "c", "d"], "kept": [1, 2, 3, 4, 5]}
    )
    pq.write_table(table, tmp_path / "in.parquet")
    output = tmp_path / "out"
    (part,) = parts_of(tmp_path / "in.parquet", Fields(), 10)
    open_output(output, {"fields": {}, "model": "tiny"}, fresh=False)
    assert PartScorer(FAKE, str(output), Fields(), None).score(part) == 3
    rows = written(output)
    assert [row["kept"] for row in rows] == [1, 5]
    lines = [json.loads(line) for line in (output / "failures" / "part-000000.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [1, 2, 3]
    assert "'document' holds no text" in lines[0]["error"]
    assert "blank" in lines[2]["error"]
    from rerankd.local_models import load_named

    alone = load_named("tiny", FAKE).rank("q", ["a", "d"])
    assert [row["score"] for row in rows] == list(alone.scores)


def test_what_cannot_be_read_is_said_before_anything_starts(tmp_path: Path) -> None:
    write(tmp_path / "in.parquet", 3)
    with pytest.raises(InvalidRequest, match="no column 'text'; it has id, query, document"):
        list(parts_of(tmp_path / "in.parquet", Fields(document="text"), 10))
    (tmp_path / "in.txt").write_text("hello")
    with pytest.raises(InvalidRequest, match="as Parquet"):
        list(parts_of(tmp_path / "in.txt", Fields(), 10))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidRequest, match="there is no"):
        list(parts_of(tmp_path / "empty", Fields(), 10))


def test_an_output_goes_on_with_its_own_run_alone(tmp_path: Path) -> None:
    output = tmp_path / "out"
    mine, other = ({"model": name, "fields": {}} for name in ("a", "b"))
    open_output(output, mine, fresh=False)
    open_output(output, mine, fresh=False)
    with pytest.raises(InvalidRequest, match="--fresh"):
        open_output(output, other, fresh=False)
    (output / "part-000000.parquet").write_bytes(b"old")
    open_output(output, other, fresh=True)
    assert not list(output.glob("part-*"))
    with pytest.raises(InvalidRequest, match="not empty"):
        open_output(tmp_path, mine, fresh=False)


def test_a_part_that_is_scored_twice_is_there_once(tmp_path: Path) -> None:
    write(tmp_path / "in.parquet", 30)
    output = tmp_path / "out"
    open_output(output, {"fields": {}, "model": ""}, fresh=False)
    scorer = PartScorer(FAKE, str(output), Fields(), None)
    part = Part(0, str(tmp_path / "in.parquet"), 0, 30)
    scorer.score(part)
    scorer.score(part)
    assert [row["id"] for row in written(output)] == list(range(30))
    assert sorted(file.name for file in output.iterdir()) == ["failures", "part-000000.parquet", "run.json"]


@pytest.mark.slow
@pytest.mark.promise("bulk")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("rows", "part_rows", "flags"),
    [(200_000, 5_000, ("--engine", "fake")), (2_000, 100, ("--engine", "onnx"))],
    ids=["200,000 with the fake engine", "2,000 with the embedded model"],
)
def test_a_run_that_is_killed_goes_on_and_every_row_is_there_once(
    ray_cluster: str, tmp_path: Path, rows: int, part_rows: int, flags: tuple[str, ...], measured: Measured
) -> None:
    write(tmp_path / "in.parquet", rows, queries=rows // 20)
    output = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "rerankd", "rank", "--ray", str(tmp_path / "in.parquet"), str(output)),
        *("--part-rows", str(part_rows), "--ray-max-replicas", "2", *flags),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "RAY_ADDRESS": ray_cluster}
    log = tmp_path / "first.log"
    with log.open("wb") as stream:
        first = subprocess.Popen(command, env=env, stdout=stream, stderr=stream)
    until = time.monotonic() + 400
    while len(list(output.glob("part-*.parquet"))) < 3:
        assert first.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < until
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = {file.name: file.stat().st_mtime_ns for file in output.glob("part-*.parquet")}
    assert 0 < len(done) < rows // part_rows
    second = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert second.returncode == 0, second.stderr[-3000:]
    assert f"{rows:,} of {rows:,} rows" in second.stderr
    found = written(output)
    last = second.stderr.splitlines()[-2]
    measured("bulk", f"{rows:,} rows, {flags[1]}, killed once", "each once", f"{len(found):,} rows; {last}")
    assert [row["id"] for row in found] == list(range(rows))
    assert all(0 <= row["score"] <= 1 for row in found)
    # Some that a task of the killed run was still writing may have come later; none was scored again.
    assert all((output / name).stat().st_mtime_ns == at for name, at in done.items())
