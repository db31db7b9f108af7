"""An environment with an installed wheel, in which no compiler is found."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

NO_COMPILER = {"PATH": "/nonexistent"}


def install_wheel(wheel: Path, folder: Path) -> Path:
    """The Python of a new environment in ``folder`` with this wheel; what it depends on is read from this Python's.

    Raises:
        subprocess.CalledProcessError: it cannot be made.
    """
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "shared.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
    return python
