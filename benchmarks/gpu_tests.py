"""The tests that need a card, and what became of them: ``python -m benchmarks.gpu_tests --out tests.json``."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    junit = out.with_suffix(".xml")
    subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu", "tests", "-q", f"--junitxml={junit}"], check=False)
    (suite,) = ElementTree.parse(junit).getroot().iter("testsuite")
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    counts = {key: int(suite.get(key, "0")) for key in ("tests", "skipped")}
    passed = counts["tests"] - counts["skipped"] - len(failed)
    figures = {"passed": passed, "skipped": counts["skipped"], "failed": failed, "seconds": suite.get("time")}
    out.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
