"""Published figures are those of a result file, and the page and plots are made from nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks import report
from benchmarks.plots import draw

ROOT = Path(__file__).parents[2]


def row(engine: str, seconds: float, void: str = "") -> dict[str, Any]:
    figures = {"seconds": [seconds + 1, seconds], "processor_seconds": [2 * seconds], "gflops": 10.0,
               "share_of_peak": 0.5, "idle_mb": 100.0, "peak_mb_over_idle": 50.0, "max_difference": 1e-3}  # fmt: skip
    return {"engine": engine, "void": void, **({} if void else figures)}


def engine_record(shapes: list[tuple[str, int, int]], *rows: dict[str, Any]) -> dict[str, Any]:
    results = [
        {"workload": name, "documents": documents, "prefix": 77, "tail": tail, "tokens": documents * (77 + tail),
         "rows": list(rows)}
        for name, documents, tail in shapes
    ]  # fmt: skip
    machine = {"processor": "Some CPU (model 1)", "cores": "2", "torch": "2", "commit": "abc", "taken": "2026-01-01"}
    return {"kind": "engine", "machine": machine, "command": ["python", "benchmarks/engine.py"], "layout": "0.6B",
            "peaks": {}, "results": results}  # fmt: skip


BOTH = [("A", 16, 158), ("B", 64, 33)]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    return tmp_path / "results"


@pytest.mark.parametrize("readme", report.READMES, ids=lambda readme: readme.name)
def test_the_readmes_ratios_are_those_of_the_newest_result_files(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    assert report.with_table(text, report.ratios(report.newest())) == text


def test_the_pages_figures_are_those_of_the_newest_result_files() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    assert all(report.speed(folder) in page for folder in report.newest())


def test_each_kind_of_processor_has_the_table_of_its_latest_figures(results: Path) -> None:
    def published(
        processor: str, commit: str, taken: str, seconds: float, shapes: list[tuple[str, int, int]]
    ) -> Path:
        record = engine_record(shapes, row("native:float32", seconds))
        record["machine"] |= {"processor": processor, "commit": commit, "taken": taken}
        return report.publish({"engine.json": record}).parent

    published("slow", "a", "2026-01-01 10:00 UTC", 4.0, BOTH)
    slow = published("slow", "b", "2026-01-01 11:00 UTC", 9.0, BOTH)
    fast = published("fast", "c", "2026-01-01 09:00 UTC", 1.0, BOTH)
    published("fast", "d", "2026-01-01 12:00 UTC", 1.0, BOTH[:1])
    assert report.newest() == [fast, slow], "the folder without B has no table"


def test_every_published_folder_names_its_machine_commands_and_lengths() -> None:
    for folder in report.RESULTS.iterdir():
        text = (folder / "README.md").read_text(encoding="utf-8")
        for record in report.load(folder):
            assert " ".join(record["command"]) in text
            assert record["machine"]["processor"] in text
            assert record["machine"]["commit"] in folder.name
            assert {"prefix", "tail"} <= set(record["results"][0]) if record.get("kind") == "engine" else True
        assert all((folder / name).is_file() for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text))


def test_the_pages_table_counts_from_the_usual_code_and_leaves_void_rows_out(results: Path) -> None:
    rows = (row("usual:float32", 20.0), row("native:int8", 2.0), row("vllm:bfloat16", 1.0, "it reads 1 token"))
    page = report.publish({"engine.json": engine_record(BOTH, *rows)})
    table = report.speed(page.parent)
    assert "| rerankd, int8 | 2.00 | 2.00 | 10.0 | 10.0 | 100 | 50 | 50 | 1.0e-03 |" in table
    assert "| vLLM" not in table
    assert "void: it reads 1 token" in page.read_text(encoding="utf-8")


def test_figures_of_several_commits_are_refused(results: Path) -> None:
    one, other = engine_record(BOTH, row("native:int8", 1.0)), engine_record(BOTH, row("native:int8", 1.0))
    other["machine"]["commit"] = "def"
    with pytest.raises(SystemExit, match="several commits"):
        report.publish({"one.json": one, "other.json": other})


def test_curves_are_drawn_from_workloads_that_differ_in_one_length(tmp_path: Path) -> None:
    documents = engine_record([("1", 1, 33), ("10", 10, 33), ("100", 100, 33)], row("native:int8", 1.0))
    lengths = engine_record([("a", 4, 16), ("b", 4, 160), ("c", 4, 1600)], row("native:int8", 1.0))
    assert draw([documents, lengths, engine_record(BOTH, row("native:int8", 1.0))], tmp_path) == [
        "documents.svg", "lengths.svg",
    ]  # fmt: skip
    assert "svg" in (tmp_path / "documents.svg").read_text(encoding="utf-8")


def test_the_same_figures_give_the_same_files(results: Path) -> None:
    record = json.loads(
        json.dumps(engine_record([("1", 1, 33), ("2", 2, 33), ("3", 3, 33)], row("native:int8", 1.0)))
    )
    first = {file.name: file.read_bytes() for file in report.publish({"e.json": record}).parent.iterdir()}
    again = {file.name: file.read_bytes() for file in report.publish({"e.json": record}).parent.iterdir()}
    assert first == again
