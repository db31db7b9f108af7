"""Where a figure was taken: every table begins with this."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def machine() -> dict[str, str]:
    """Processor, cores, memory, versions and the commit, as words."""
    # Here, so that a benchmark of what needs no torch can print its table without it.
    import torch

    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit(),
        "taken": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "load": f"{os.getloadavg()[0]:.1f} before the run",
    }


def command() -> list[str]:
    """The command as a person gives it from the repository's root."""
    return ["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]


def commit() -> str:
    """The commit that is measured, marked where the tree differs from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {name.strip(): value.strip() for name, value in facts.items()}
    found = named.get("flags", "").split()
    flags: list[str] = [flag for flag in ("avx512f", "avx512_bf16", "avx512_vnni", "amx_tile") if flag in found]
    if not flags and "avx2" in found:
        flags = ["avx2"]
    return f"{named.get('model name', 'unknown')} (model {named.get('model', '?')}; {' '.join(flags)})"


def table(title: str, rows: Sequence[Mapping[str, object]]) -> str:
    """A Markdown table of rows that have the same columns."""
    columns = list(rows[0])
    lines = [list(columns), ["---"] * len(columns), *([str(row[column]) for column in columns] for row in rows)]
    return f"### {title}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    print("\n" + table(title, rows), flush=True)
