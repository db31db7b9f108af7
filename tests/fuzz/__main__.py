"""Coverage-guided fuzzing of one target.

    python -m tests.fuzz dialect --seconds 600 --corpus out/fuzz/dialect

The corpus grows from run to run. An input that breaks a target is written beside it; put into the folder
`tests/fuzz/found/TARGET` it is a test from then on.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

import atheris
import structlog

with atheris.instrument_imports(include=["rerankd"]):
    from tests.fuzz.targets import TARGETS, seeds

    from rerankd.settings.testing import TESTING_VARIABLE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", type=Path, required=True)
    chosen = parser.parse_args()
    chosen.corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(chosen.target)):
        (chosen.corpus / f"seed{number}").write_bytes(seed)
    options = [f"-max_total_time={chosen.seconds}", "-timeout=20", "-rss_limit_mb=4096", "-max_len=8192"]
    os.environ[TESTING_VARIABLE] = "1"
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    artifacts = f"-artifact_prefix={chosen.corpus.parent / chosen.target}-"
    atheris.Setup([sys.argv[0], *options, artifacts, str(chosen.corpus)], TARGETS[chosen.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
