"""The generated pages say what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from rerankd.settings import ENVIRONMENT_PREFIX, Settings, fields_of

ROOT = Path(__file__).parents[2]


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    rows = {name: row for name, row in fields_of(Settings).items() if not row.metadata["tests_only"]}
    assert [name for name in rows if f"{ENVIRONMENT_PREFIX}{name.upper()}" not in page] == []


def test_the_generated_pages_are_up_to_date() -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
