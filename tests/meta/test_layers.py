"""Which folder may import what, proven on the source and on a fresh interpreter."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "rerankd"

WEB = {"fastapi", "starlette"}
FRONT = {*WEB, "rerankd.http", "rerankd.wire"}
NATIVE = "rerankd.engine.native"

FORBIDDEN = {
    "http": {"torch", "tokenizers", "transformers", NATIVE},
    "wire": {"torch", *WEB, "rerankd.http", "rerankd.service", "rerankd.prompt", "rerankd.core", "rerankd.engine"},
    "service": {"torch", *FRONT, NATIVE},
    "cache": {"torch", *FRONT, "rerankd.service", "rerankd.prompt", "rerankd.core", "rerankd.engine"},
    "prompt": {"torch", *FRONT, "rerankd.service"},
    "core": {"torch", "tokenizers", *FRONT, "rerankd.service", "rerankd.cache", "rerankd.prompt", NATIVE},
    "engine": {*FRONT, "rerankd.service", "rerankd.cache", "rerankd.prompt", "rerankd.core"},
    "experiments": {"torch", *FRONT, "rerankd.service", "rerankd.core", "rerankd.engine", "rerankd.prompt"},
    "limits": {"torch", *FRONT, "rerankd.service", "rerankd.core", "rerankd.engine"},
    "observe": {"torch", *FRONT, "rerankd.service", "rerankd.core", "rerankd.engine"},
}
"""What a folder on a request's way may not import; each stands on the ones below it."""
BESIDE = {"cli", "client", "cluster", "evaluate", "integrations", "models", "resilience", "settings"}
"""Folders that are not on a request's way; the client has a test of its own."""


def test_every_folder_has_its_walls() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert set(FORBIDDEN) <= folders <= set(FORBIDDEN) | BESIDE


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_a_layer_imports_nothing_from_above_it(folder: str) -> None:
    wrong = [
        f"{file.relative_to(PACKAGE)} imports {name}"
        for file in sorted((PACKAGE / folder).rglob("*.py"))
        for name in imports_of(file)
        for forbidden in FORBIDDEN[folder]
        if name == forbidden or name.startswith(f"{forbidden}.")
    ]
    assert wrong == []


@functools.cache
def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_the_client_imports_httpx_and_the_standard_library_alone() -> None:
    heavy = {"torch", "numpy", "fastapi", "starlette", "pydantic", "tokenizers", "prometheus_client", "click.core"}
    loaded = modules_after("import rerankd.client")
    # httpx's own command line may load click and rich; nothing of ours may add to what httpx loads.
    assert not (loaded & heavy) - modules_after("import httpx")


SERVER = "import rerankd.cli.serve, rerankd.http.server, rerankd.engine.onnx.engine"


def test_the_web_side_never_loads_torch() -> None:
    loaded = modules_after(SERVER)
    assert {"rerankd.wire.registry", "rerankd.http.app"} <= loaded
    assert "torch" not in loaded


def test_a_server_starts_without_what_it_does_not_need() -> None:
    assert not modules_after(SERVER) & {"httpx", "huggingface_hub", "redis"}


def test_a_command_starts_without_what_the_others_need() -> None:
    """A shell waits for these at every press of the tabulator."""
    loaded = modules_after("from rerankd.cli.main import cli; cli(['completion', 'bash'], standalone_mode=False)")
    assert "rerankd.cli.completion" in loaded
    assert not loaded & {"numpy", "asyncio", "prometheus_client", "rerankd.cli.serve"}
