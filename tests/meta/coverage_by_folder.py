"""Lines of the package that tests ran, by folder, and the files with the most that none did.

    python -m tests.meta.coverage_by_folder out/coverage.json

reads what ``make coverage`` writes. Servers in processes of their own are not counted.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

FILES = 25


def main(report: Path) -> None:
    files = json.loads(report.read_text(encoding="utf-8"))["files"]
    lines, missing = Counter[str](), Counter[str]()
    for name, found in files.items():
        inside = name.partition("rerankd/")[2]
        folder = inside.partition("/")[0] if "/" in inside else "."
        for key in (folder, "all"):
            lines[key] += found["summary"]["num_statements"]
            missing[key] += found["summary"]["missing_lines"]
    print(f"{'folder':14} {'lines':>7} {'not run':>7} {'run':>6}")
    for folder in sorted(lines):
        print(f"{folder:14} {lines[folder]:7} {missing[folder]:7} {1 - missing[folder] / lines[folder]:6.1%}")
    most = sorted(files.items(), key=lambda item: -item[1]["summary"]["missing_lines"])[:FILES]
    print(f"\n{'file':60} {'not run':>7} {'run':>6}")
    for name, found in most:
        summary = found["summary"]
        print(f"{name:60} {summary['missing_lines']:7} {summary['percent_covered']:5.1f}%")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
