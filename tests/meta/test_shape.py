"""The shape of the source: short functions, short files, nothing commented out, checks switched on."""

from __future__ import annotations

import ast
import statistics
import tomllib
from pathlib import Path

import pytest

import rerankd

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    file for folder in ("src", "training", "benchmarks", "tests", "docs") for file in (ROOT / folder).rglob("*.py")
)


def function_lengths(file: Path) -> dict[str, int]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {f"{file.relative_to(ROOT)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1 for node in functions}


def test_no_function_is_longer_than_60_lines() -> None:
    lengths = {name: length for file in SOURCES for name, length in function_lengths(file).items()}
    assert {name: length for name, length in lengths.items() if length > 60} == {}


def test_the_median_function_of_the_package_has_at_most_10_lines() -> None:
    package = [file for file in SOURCES if file.is_relative_to(ROOT / "src")]
    assert statistics.median(length for file in package for length in function_lengths(file).values()) <= 10


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_no_test_is_commented_out() -> None:
    marker = "# def" + " test_"
    assert [file.name for file in SOURCES if marker in file.read_text(encoding="utf-8")] == []


def test_the_type_checker_is_strict() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["tool"]["mypy"]["strict"] is True
    assert settings["tool"]["pytest"]["ini_options"]["xfail_strict"] is True


@pytest.mark.parametrize(
    "folder", sorted(p.name for p in (ROOT / "src/rerankd").iterdir() if (p / "__init__.py").is_file())
)
def test_every_layer_says_what_it_is_for(folder: str) -> None:
    tree = ast.parse((ROOT / "src" / "rerankd" / folder / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)


def test_the_changelog_knows_the_version() -> None:
    assert f"## [{rerankd.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
