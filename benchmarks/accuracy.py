"""What each format and engine costs in accuracy: score error on random weights, nDCG@10 on labelled data.

    python benchmarks/accuracy.py --sets ../shared/data/eval/trec-dl19,../shared/data/eval/scifact --queries 40

The first table compares probabilities with the reference's (transformers, float32, one pair at a time) on the 0.6B
layout, pairs of many lengths. The second is what ``rerankd evaluate`` says of the embedded model, and how far each
engine's nDCG@10 is from the reference's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.checkpoints import LAYOUTS

from benchmarks.engine import Setting, checkpoint, measure
from benchmarks.engine_process import RIVALS, ROOT
from benchmarks.machine import command, machine, print_table
from benchmarks.workloads import Texts, Workload

REFERENCE = "reference:float32"
ENGINES = "native:float32,native:bfloat16,native:float16,native:int8"
_MEASURE = "ndcg@10"
_TITLE = "nDCG@10"
_TAILS = (10, 20, 40, 90, 158, 300, 600)
_DOCUMENTS = 4

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=sorted(LAYOUTS), default="0.6B")
    parser.add_argument("--checkpoint", type=Path, help="a folder to use, or to write random weights to")
    parser.add_argument("--engines", default=ENGINES, help="engine:dtype, by commas; the reference is added")
    parser.add_argument("--evaluated", help="the engines of the second table, if not the same")
    parser.add_argument("--sets", default="", help="folders of labelled data, separated by commas")
    parser.add_argument("--queries", type=int, default=40, help="of each set, from the beginning")
    parser.add_argument("--model", default="tiny", help="the model that is evaluated")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    where = machine()
    print(json.dumps(where, indent=2), flush=True)
    engines = [REFERENCE, *arguments.engines.split(",")]
    evaluated = [REFERENCE, *(arguments.evaluated or arguments.engines).split(",")]
    record = {
        "kind": "accuracy",
        "machine": where,
        "command": command(),
        "layout": arguments.layout,
        "scores": scores(engines, arguments),
        "sets": evaluations(evaluated, arguments) if arguments.sets else [],
    }
    for title, rows in tables(record).items():
        print_table(title, rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def scores(engines: Sequence[str], arguments: argparse.Namespace) -> list[Row]:
    """Each engine's probabilities beside the reference's. One engine is in memory at a time."""
    layout = LAYOUTS[arguments.layout]
    folder = checkpoint(arguments.checkpoint or ROOT / "out" / "bench" / arguments.layout, layout)
    texts = Texts(folder / "tokenizer.json")
    workloads = {str(tail): Workload(_DOCUMENTS, 77, tail) for tail in _TAILS}
    found = measure(engines, workloads, Setting(folder, texts, 77 + max(_TAILS)))
    rows, truth = list[Row](), np.empty(0)
    for name in engines:
        turns = [found[workload][name] for workload in workloads]
        void = next((turn.void for turn in turns if turn.void), "")
        if void:
            rows.append({"engine": name, "void": void})
            continue
        values = np.concatenate([scored.probabilities for turn in turns for scored in turn.scored])
        truth = values if name == REFERENCE else truth
        rows.append({"engine": name, "void": "", "pairs": len(values), **_errors(values, truth)})
    return rows


def _errors(found: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> Row:
    errors = np.abs(found - truth)
    return {
        "spread": float(np.ptp(truth)),
        "max_error": float(errors.max()),
        "mean_error": float(errors.mean()),
        "rank_correlation": float(np.corrcoef(_ranks(found), _ranks(truth))[0, 1]),
    }


def _ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Random weights tie in no format, so that places are ranks."""
    return values.argsort().argsort().astype(float)


def evaluations(engines: Sequence[str], arguments: argparse.Namespace) -> list[Row]:
    """``rerankd evaluate`` of each engine, and the change against the reference by set."""
    rows, truth = list[Row](), dict[str, float]()
    for name in engines:
        report = _evaluate(name, arguments)
        if isinstance(report, str):
            rows.append({"engine": name, "void": report})
            continue
        found = {one: float(facts["reranked"][_MEASURE]) for one, facts in report["sets"].items()}
        truth = found if name == REFERENCE else truth
        for one, value in found.items():
            facts = report["sets"][one]
            queries, pairs = facts["queries"], facts["pairs"]
            rows.append({"engine": name, "void": "", "set": one, "queries": queries, "pairs": pairs,
                         "ndcg": value, "change": value - truth[one]})  # fmt: skip
    return rows


def _evaluate(name: str, arguments: argparse.Namespace) -> Any:
    """The report, or the last words of a run that failed."""
    kind, _, dtype = name.partition(":")
    python = RIVALS / "vllm" / "bin" / "python" if kind == "vllm" else Path(sys.executable)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "report.json"
        words = [
            *(str(python), "-m", "rerankd", "evaluate", *arguments.sets.split(",")),
            *("--model", arguments.model, "--engine", kind, "--dtype", dtype, "--device", "cpu", "--fresh"),
            *("--queries", str(arguments.queries), "--json", str(file)),
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        return json.loads(file.read_text(encoding="utf-8"))


def tables(record: Mapping[str, Any]) -> dict[str, list[dict[str, object]]]:
    """The record's tables by title."""
    pairs = next((row["pairs"] for row in record["scores"] if not row["void"]), 0)
    spans = f"{77 + min(_TAILS)} to {77 + max(_TAILS)} tokens"
    return {
        f"Probabilities beside the reference's: {pairs} pairs of {spans}, {record['layout']} layout": [
            _score_row(row) for row in record["scores"]
        ],
        f"{_TITLE} of the embedded model, first 100 candidates": [_set_row(row) for row in record["sets"]],
    }


def _score_row(row: Row) -> dict[str, object]:
    columns = ("largest error of p", "mean error of p", "rank correlation")
    if row["void"]:
        return {"engine": row["engine"], **dict.fromkeys(columns, ""), columns[0]: f"void: {row['void']}"}
    figures = (f"{row['max_error']:.1e}", f"{row['mean_error']:.1e}", f"{row['rank_correlation']:.5f}")
    return {"engine": row["engine"], **dict(zip(columns, figures, strict=True))}


def _set_row(row: Row) -> dict[str, object]:
    columns = ("set", "queries", "pairs", _TITLE, "change")
    if row["void"]:
        return {"engine": row["engine"], **dict.fromkeys(columns, ""), "set": f"void: {row['void']}"}
    figures = (row["set"], row["queries"], row["pairs"], f"{row['ndcg']:.4f}", f"{row['change']:+.4f}")
    return {"engine": row["engine"], **dict(zip(columns, figures, strict=True))}


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
