"""Figures as a page: python benchmarks/report.py engine.json scaling.json serve.json accuracy.json ...

Reads what ``--json`` of the other commands wrote; writes ``benchmarks/results/DATE-COMMIT/`` (the figures, a page
with machine, commands, lengths and tables, and the plots), docs/reference/speed.md with a table for each kind of
processor, and the README's table of ratios. Every published number has its file there. ``--pages`` writes the two
pages again from the newest folders.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import accuracy, engine, serve
from benchmarks.machine import table
from benchmarks.plots import draw

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
READMES = (ROOT / "README.md", ROOT / "README.zh.md")
PAGE = ROOT / "docs" / "reference" / "speed.md"
BEGIN, END = "<!-- speed: begin (python benchmarks/report.py) -->", "<!-- speed: end -->"
_MAIN = ("A", "B")
_OFF = "largest difference of a score"
_NAMES = {
    "native": "rerankd",
    "native-uncached": "rerankd, prefix cache off",
    "usual": "transformers",
    "vllm": "vLLM, prefix caching",
    "vllm-uncached": "vLLM",
    "openvino": "OpenVINO GenAI",
}

Record = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", type=Path)
    parser.add_argument("--pages", action="store_true", help="only write the pages again")
    arguments = parser.parse_args()
    if not arguments.pages:
        print(publish({file.name: json.loads(file.read_text(encoding="utf-8")) for file in arguments.figures}))
    folders = newest()
    PAGE.write_text("\n".join([_PAGE_HEAD, *map(speed, folders)]), encoding="utf-8")
    for readme in READMES:
        readme.write_text(with_table(readme.read_text(encoding="utf-8"), ratios(folders)), encoding="utf-8")


def publish(records: Mapping[str, Record]) -> Path:
    """Write the folder of these figures; all are of one commit."""
    commits = {record["machine"]["commit"] for record in records.values()}
    if len(commits) != 1:
        sys.exit(f"these figures are of several commits: {', '.join(sorted(commits))}")
    folder = RESULTS / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}-{commits.pop()}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, record in records.items():
        (folder / name).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    plots = draw(list(records.values()), folder)
    (folder / "README.md").write_text(page(list(records.values()), plots), encoding="utf-8")
    return folder / "README.md"


def newest() -> list[Path]:
    """The folders of the latest figures of each kind of processor, the fastest first."""
    latest: dict[str, tuple[float, Path]] = {}
    for folder in sorted(RESULTS.iterdir(), key=lambda folder: (folder.name[:10], _taken(folder))):
        if record := main_record(folder):
            seconds = min(min(row["seconds"]) for row in record["results"][0]["rows"] if not row["void"])
            latest[record["machine"]["processor"]] = (seconds, folder)
    return [folder for _, folder in sorted(latest.values())]


def main_record(folder: Path) -> Record | None:
    """The figures of the run that has both of the main workloads, if there is one."""
    for record in load(folder):
        if record.get("kind") == "engine" and set(_MAIN) <= {result["workload"] for result in record["results"]}:
            return record
    return None


def _taken(folder: Path) -> str:
    return max((str(record["machine"].get("taken", "")) for record in load(folder)), default="")


def load(folder: Path) -> list[Record]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]


def page(records: Sequence[Record], plots: Sequence[str]) -> str:
    """The page of these records, each with its machine and command."""
    pictures = [f"![{name.partition('.')[0]}]({name})\n" for name in plots]
    return "\n".join(["# Measured\n", *pictures, *map(_section, records)])


def _section(record: Record) -> str:
    machine = "\n".join(f"- {name}: {value}" for name, value in record["machine"].items())
    tables = "\n".join(table(title, rows) for title, rows in tables_of(record).items() if rows)
    return f"## `{' '.join(record['command'])}`\n\n{machine}\n\n{tables}"


def tables_of(record: Record) -> dict[str, list[dict[str, object]]]:
    """The record's tables by title."""
    match record.get("kind"):
        case None:
            # A command whose tables are its figures.
            tables: dict[str, list[dict[str, object]]] = record["tables"]
            return tables
        case "engine":
            return _engine_tables(record)
        case "serve":
            return {"Servers": [serve.row(load) for load in record["loads"]]} | _peaks(record)
        case "accuracy":
            return accuracy.tables(record)
    raise ValueError(f"figures of an unknown kind: {record['kind']}")


def _engine_tables(record: Record) -> dict[str, list[dict[str, object]]]:
    tables = {}
    for result in record["results"]:
        title = f"{result['workload']}: {_lengths(result)}, {record['layout']} layout"
        tables[title] = engine.shown(result["rows"])
    return tables | _peaks(record)


def _lengths(result: Record) -> str:
    return f"{result['documents']} documents of {result['prefix']} + {result['tail']} tokens"


def _peaks(record: Record) -> dict[str, list[dict[str, object]]]:
    return {"The library's own matrix products": engine.peak_rows(record["peaks"])} if record["peaks"] else {}


def with_table(text: str, table_text: str) -> str:
    """A README's text with the table between its markers."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    if not tail:
        sys.exit(f"the README has no {BEGIN} ... {END}")
    return f"{head}{BEGIN}\n\n{table_text}\n{END}{tail}"


def ratios(folders: Sequence[Path]) -> str:
    """The README's table: times faster than the usual code, by engine, processor and workload."""
    rows: dict[str, dict[str, object]] = {}
    columns = []
    for folder in folders:
        for result in _main_results(folder).values():
            column = f"{_vectors(folder)}, {result['workload']}"
            columns.append(column)
            for row in _speed_rows([result]):
                shown = rows.setdefault(str(row["engine"]), {"engine": row["engine"]})
                shown[column] = row[f"times faster, {result['workload']}"]
    order = sorted(
        rows.values(), key=lambda row: ("rerankd" in str(row["engine"])) - 2 * ("transformers" in str(row["engine"]))
    )
    filled = [
        {column: row.get(column, "") for column in ("engine", *columns)}
        for row in order
        if "off" not in str(row["engine"])
    ]
    return table("", filled).removeprefix("### \n\n")


_VECTORS = {"amx_tile": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx2": "AVX2"}


def _vectors(folder: Path) -> str:
    """The widest instructions of the processor that the figures in a folder were taken on."""
    record = main_record(folder)
    processor = str(record["machine"]["processor"]) if record else ""
    return next((name for flag, name in _VECTORS.items() if flag in processor), processor)


def speed(folder: Path) -> str:
    """A table of the page: one request of each workload, from the one run that has both."""
    results, record = _main_results(folder), main_record(folder)
    assert record is not None
    machine, where = record["machine"], folder.relative_to(ROOT).as_posix()
    lengths = "; ".join(f"{name}: {_lengths(results[name])}" for name in _MAIN)
    words = (
        f"Seconds for one request, Qwen3-Reranker-{record['layout']} layout with random weights, {machine['cores']} "
        f"cores of {machine['processor']}, torch {machine['torch']}, commit {machine['commit']}. "
        f"{lengths}; the prompt included. All engines read the same tokens and were measured in one run; scores are "
        "compared with the first row's. Memory is the process's own, without pages of mapped weights; vLLM's pool of "
        f"keys is in its idle part. Commands, all figures and plots: `{where}`."
    )
    rows = table("", _speed_rows([results[name] for name in _MAIN])).removeprefix("### \n\n")
    return f"## {_vectors(folder)}\n\n{words}\n\n{rows}"


def _main_results(folder: Path) -> dict[str, Record]:
    """The results of both main workloads, by name."""
    record = main_record(folder)
    if record is None:
        raise ValueError(f"{folder} has no figures of {' and '.join(_MAIN)}")
    return {result["workload"]: result for result in record["results"] if result["workload"] in _MAIN}


_PAGE_HEAD = """# Speed

Written by `python benchmarks/report.py --pages` from the newest figures of each kind of processor. How each figure is
measured, and how to measure on your machine: `benchmarks/rivals/README.md`.
"""


def _speed_rows(results: Sequence[Record]) -> list[dict[str, object]]:
    rows: dict[str, dict[str, object]] = {}
    for result in results:
        counted = {row["engine"]: row for row in result["rows"] if not row["void"]}
        usual = counted.get("usual:float32") or max(counted.values(), key=lambda row: float(min(row["seconds"])))
        for name, row in counted.items():
            kind, _, dtype = name.partition(":")
            shown = rows.setdefault(name, {"engine": f"{_NAMES.get(kind, kind)}, {dtype}"})
            off = max(float(str(shown.get(_OFF, 0.0))), row["max_difference"])
            shown[_OFF] = f"{off:.1e}"
            shown["MB idle"] = f"{row['idle_mb']:.0f}"
            shown[f"{result['workload']}, s"] = f"{min(row['seconds']):.2f}"
            shown[f"times faster, {result['workload']}"] = f"{min(usual['seconds']) / min(row['seconds']):.1f}"
            shown[f"MB more at work, {result['workload']}"] = f"{row['peak_mb_over_idle']:.0f}"
    figures = ("{}, s", "times faster, {}", "MB more at work, {}")
    columns = [figure.format(name) for figure in figures for name in _MAIN]
    columns = ["engine", *columns[:4], "MB idle", *columns[4:], _OFF]
    return [{column: row.get(column, "") for column in columns} for row in rows.values()]


if __name__ == "__main__":
    main()
