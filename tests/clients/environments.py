"""The environments that clients run in: each made once, from its list, and made again when the list changes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

LISTS = Path(__file__).parent / "environments"
CALLS = Path(__file__).parent / "calls"
FOLDER = Path(os.environ.get("RERANKD_CLIENT_ENVIRONMENTS") or Path(__file__).parents[2] / ".venv-clients")

PYTHON_ENVIRONMENTS = ("sdks", "frameworks", "gateways", "stores", "adapters", "load", "older", "shapes")


def python_environment(name: str) -> list[str]:
    """The command that runs the calls of a Python environment."""
    packages = LISTS / f"{name}.txt"
    place = FOLDER / name
    if _is_new(place, packages):
        _run([sys.executable, "-m", "venv", "--clear", str(place)])
        _run([str(place / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "-r", str(packages)])
        _remember(place, packages)
    return [str(place / "bin" / "python"), str(CALLS / f"{name}.py")]


def node_environment() -> list[str]:
    """The command that runs the calls of npm's clients; its working folder has to be ``FOLDER / "node"``."""
    packages = LISTS / "package.json"
    place = FOLDER / "node"
    if _is_new(place, packages):
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(packages, place)
        _run(["npm", "install", "--no-audit", "--no-fund", "--silent"], folder=place)
        _remember(place, packages)
    return ["node", str(CALLS / "node.mjs")]


def _is_new(place: Path, packages: Path) -> bool:
    stamp = place / ".installed"
    return not stamp.is_file() or stamp.read_text() != _hash(packages)


def _remember(place: Path, packages: Path) -> None:
    (place / ".installed").write_text(_hash(packages))


def _hash(packages: Path) -> str:
    return hashlib.sha256(packages.read_bytes()).hexdigest()


def _run(command: list[str], folder: Path | None = None) -> None:
    subprocess.run(command, cwd=folder, check=True, timeout=1800)
