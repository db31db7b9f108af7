"""The shape of the source: short files, nothing commented out, checks switched on; the linter has other limits."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

import rerankd

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "training", "benchmarks", "tests", "docs")
SOURCES = sorted(
    [
        *ROOT.glob("*.py"),
        *(file for folder in FOLDERS for kind in ("py", "c", "h") for file in (ROOT / folder).rglob(f"*.{kind}")),
    ]
)


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_no_test_is_commented_out() -> None:
    marker = "# def" + " test_"
    assert [file.name for file in SOURCES if marker in file.read_text(encoding="utf-8")] == []


def test_the_checks_are_strict() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert settings["mypy"]["strict"] is True
    assert settings["pytest"]["ini_options"]["xfail_strict"] is True
    assert {"C901", "PLR0915"} <= set(settings["ruff"]["lint"]["select"])


@pytest.mark.parametrize(
    "folder", sorted(p.name for p in (ROOT / "src/rerankd").iterdir() if (p / "__init__.py").is_file())
)
def test_every_layer_says_what_it_is_for(folder: str) -> None:
    tree = ast.parse((ROOT / "src" / "rerankd" / folder / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)


def test_the_changelog_knows_the_version() -> None:
    assert f"## [{rerankd.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
