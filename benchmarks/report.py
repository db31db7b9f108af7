"""Measured figures as a page: python benchmarks/report.py engine.json serve.json ...

Reads what ``--json`` of the other commands wrote; writes ``benchmarks/results/DATE-COMMIT/README.md`` and a copy of
the figures beside it, so that every published number has its machine, its command and its lengths.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

# Run as a file, Python looks beside the file alone.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.machine import table

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="+", type=Path)
    records = {file.name: json.loads(file.read_text(encoding="utf-8")) for file in parser.parse_args().figures}
    commits = {record["machine"]["commit"] for record in records.values()}
    if len(commits) > 1:
        sys.exit(f"these figures are of several commits: {', '.join(sorted(commits))}")
    folder = RESULTS / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}-{commits.pop()}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, record in records.items():
        (folder / name).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(page(list(records.values())), encoding="utf-8")
    print(folder / "README.md")


def page(records: list[dict[str, Any]]) -> str:
    """The page of these records, each with its machine and command."""
    return "\n".join(["# Measured\n", *map(_section, records)])


def _section(record: dict[str, Any]) -> str:
    machine = "\n".join(f"- {name}: {value}" for name, value in record["machine"].items())
    tables = "\n".join(table(title, rows) for title, rows in record["tables"].items())
    return f"## `{' '.join(['python', *record['command']])}`\n\n{machine}\n\n{tables}"


if __name__ == "__main__":
    main()
